//! The one door in: everything that is said on any topic passes here.

mod kept_keys;
mod new_topics;
mod underway;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tidewire_protocol::{
    Audience, Body, Code, Draft, Event, GapReason, Payload, Position, Publication, Refusal,
    SessionId, Topic, TopicKind,
};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::budget::Principal;
use crate::error::{Error, Kind};
use crate::history::{History, Mark};
use crate::idempotency::{Idempotency, Said};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::sparing::Sparing;
use crate::upstream::Upstream;
use new_topics::NewTopics;
use underway::Underway;

/// Longest idempotency key in bytes: a UUID, a ULID, or a path of some.
const KEY_BYTES: usize = 255;

/// The one door in; cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    history: Arc<dyn History>,
    broker: Arc<dyn Broker>,
    /// Set when the node starts; upstreams are made with a publisher, so they come later.
    upstreams: OnceLock<HashMap<TopicKind, Arc<dyn Upstream>>>,
    limits: Arc<arc_swap::ArcSwap<Limits>>,
    idempotency: Idempotency,
    underway: Underway,
    new_topics: NewTopics,
    metrics: Metrics,
}

impl Publisher {
    pub(crate) fn new(
        history: Arc<dyn History>,
        broker: Arc<dyn Broker>,
        limits: Arc<arc_swap::ArcSwap<Limits>>,
        metrics: Metrics,
    ) -> Self {
        let (upstreams, idempotency) = (OnceLock::new(), Idempotency::default());
        kept_keys::restore(&history, &idempotency, &limits.load());
        let underway = Underway::new(metrics.publishing.clone());
        let new_topics = NewTopics::default();
        let inner = Inner {
            history,
            broker,
            upstreams,
            limits,
            idempotency,
            underway,
            new_topics,
            metrics,
        };
        Self(Arc::new(inner))
    }

    pub(crate) fn set_upstreams(&self, upstreams: HashMap<TopicKind, Arc<dyn Upstream>>) {
        self.0.upstreams.set(upstreams).ok().expect("a node is started once");
    }

    /// Appends drafts to the history and announces them, in order; one result for each.
    ///
    /// For sources: they hand over all they have ready in one go.
    pub async fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>> {
        let results = self.0.history.append(drafts).await;
        let events: Vec<_> = results.iter().flatten().cloned().collect();
        self.0.metrics.failures.inc_by((results.len() - events.len()) as u64);
        self.announce(&events).await;
        results
    }

    async fn announce(&self, events: &[Arc<Event>]) {
        self.0.metrics.events.inc_by(events.len() as u64);
        if let Err(error) = self.0.broker.announce(events).await {
            // They are in the history: relays find them by the hole, or by their head checks.
            self.0.metrics.failures.inc();
            tracing::warn!(error = &error as &dyn std::error::Error, "announcing events");
        }
    }

    /// Whether the history outlives the process and keeps marks of its sources.
    pub fn keeps_marks(&self) -> bool {
        self.0.history.keeps_marks()
    }

    /// Publishes drafts together with marks that say how far their source is: all is kept, or
    /// nothing. Where the history keeps no marks this is [`Publisher::publish`] of the drafts alone.
    ///
    /// # Errors
    /// When nothing was kept; where no marks are, the first failure, after which other drafts may
    /// have been said.
    pub async fn publish_marked(
        &self,
        drafts: Vec<Draft>,
        marks: Vec<Mark>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        if !self.keeps_marks() {
            return self.publish(drafts).await.into_iter().collect();
        }
        let count = drafts.len();
        match self.0.history.append_marked(drafts, marks).await {
            Ok(events) => {
                if !events.is_empty() {
                    self.announce(&events).await;
                }
                Ok(events)
            }
            Err(error) => {
                self.0.metrics.failures.inc_by(count.max(1) as u64);
                Err(error)
            }
        }
    }

    /// Where a source said that it was when it last published with a mark.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn mark(&self, source: &str) -> Result<Option<Bytes>, Error> {
        self.0.history.mark(source).await
    }

    /// The same of all sources of which the names begin so.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn marks(&self, prefix: &str) -> Result<Vec<Mark>, Error> {
        self.0.history.marks(prefix).await
    }

    /// Marks that events of the topic were missed before this place.
    ///
    /// Whoever listens is told at once, and whoever resumes from before the mark is told when it
    /// comes to it.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub async fn interrupt(&self, topic: &Topic, reason: GapReason) -> Result<(), Error> {
        self.interrupt_marked(topic, reason, Vec::new()).await
    }

    /// The same, with marks that are kept if and only if the gap is.
    ///
    /// # Errors
    /// When the history cannot be written.
    pub async fn interrupt_marked(
        &self,
        topic: &Topic,
        reason: GapReason,
        marks: Vec<Mark>,
    ) -> Result<(), Error> {
        let gap = vec![Draft::gap(topic.clone(), reason)];
        self.publish_marked(gap, marks).await.map(drop)
    }

    /// Publishes for a client or a producer that may do so: checks sizes, carries out repeats
    /// once, and hands what belongs to an upstream (a NOTIFY channel) to it.
    ///
    /// Gives the position, or `None` where the upstream gives it later. What was begun is finished
    /// whether or not this future still waits for it; a repeat with the same idempotency key gets
    /// its result.
    ///
    /// # Errors
    /// A refusal for the one who asked.
    pub fn submit(
        &self,
        publication: Publication,
        from: Principal,
        session: Option<SessionId>,
    ) -> impl Future<Output = Result<Option<Position>, Refusal>> + Send + use<> {
        let (publisher, caller) = (self.clone(), Caller { principal: from, session });
        async move {
            let (topic, reference) = (publication.topic.clone(), publication.reference.clone());
            let published = publisher.submit_one(publication, caller).await;
            published.map_err(|refusal| refusal.about(&topic).to(reference))
        }
    }

    async fn submit_one(
        self,
        publication: Publication,
        caller: Caller,
    ) -> Result<Option<Position>, Refusal> {
        let inner = Arc::clone(&self.0);
        let place = inner.underway.place(caller.share(), inner.limits.load().publishing)?;
        let work = async move {
            let published = self.checked(publication, &caller).await;
            drop(place);
            published
        };
        inner.underway.finish(Box::pin(work)).await?
    }

    /// Publishes several for the same caller, in order, each as [`Publisher::submit`] does, with a
    /// result for each. Once begun all of them are published, whether or not this future still
    /// waits. Together they count as one publication under way.
    ///
    /// # Errors
    /// When none of them was begun.
    pub async fn submit_all(
        &self,
        publications: Vec<Publication>,
        from: Principal,
    ) -> Result<Vec<Result<Option<Position>, Refusal>>, Refusal> {
        let (publisher, caller) = (self.clone(), Caller { principal: from, session: None });
        let limit = self.0.limits.load().publishing;
        let place = self.0.underway.place(caller.share(), limit)?;
        let work = async move {
            let mut results = Vec::with_capacity(publications.len());
            for publication in publications {
                let topic = publication.topic.clone();
                let published = publisher.checked(publication, &caller).await;
                results.push(published.map_err(|refusal| refusal.about(&topic)));
            }
            drop(place);
            results
        };
        self.0.underway.finish(Box::pin(work)).await
    }

    async fn checked(&self, publication: Publication, caller: &Caller) -> Result<Said, Refusal> {
        let limits = self.0.limits.load_full();
        check(&publication, &limits)?;
        let Some(key) = publication.idempotency_key.clone() else {
            return self.say(publication, caller, None).await;
        };
        let key = (caller.principal.clone(), key);
        let fingerprint = fingerprint(&publication);
        let kept = self.keeps_marks().then(|| kept_keys::mark(&key, fingerprint)).flatten();
        let say = self.say(publication, caller, kept);
        self.0.idempotency.once(key, fingerprint, &limits, say).await
    }

    async fn say(
        &self,
        publication: Publication,
        caller: &Caller,
        kept: Option<Mark>,
    ) -> Result<Said, Refusal> {
        let Publication { topic, name, payload, echo, .. } = publication;
        if topic.kind() == TopicKind::Notify {
            let upstream = self.upstream(&topic)?;
            return upstream.emit(&topic, &payload).await.map(|()| None);
        }
        self.0.new_topics.admit(&topic, &caller.principal, &self.0).await?;
        let audience = match caller.session {
            Some(session) if !echo => Audience::Except(session),
            _ => Audience::Everyone,
        };
        let draft = Draft { topic, name, body: Body::Message(payload), audience };
        let event = match kept {
            Some(kept) => self.publish_marked(vec![draft], vec![kept]).await.map(|mut it| it.pop()),
            None => self.publish(vec![draft]).await.pop().transpose(),
        };
        let event = event.map(|event| event.expect("one result for each draft"));
        let event = event.map_err(|error| unavailable(&error))?;
        self.0.new_topics.note(event.position, &caller.principal, &self.0);
        Ok(Some(event.position))
    }

    /// The world outside that the topic belongs to.
    ///
    /// # Errors
    /// `NotConfigured` when this node has none for the topic's kind.
    pub(crate) fn upstream(&self, topic: &Topic) -> Result<&Arc<dyn Upstream>, Refusal> {
        let upstream = self.0.upstreams.get().and_then(|all| all.get(&topic.kind()));
        upstream.ok_or_else(|| not_configured(topic))
    }

    pub(crate) fn tick(&self, limits: &Limits) {
        self.0.idempotency.tick(limits);
    }

    /// Waits until the publications under way are finished, until the deadline at the latest.
    pub(crate) async fn settle(&self, deadline: Instant) {
        self.0.underway.settle(deadline).await;
    }
}

fn not_configured(topic: &Topic) -> Refusal {
    let message = match topic.kind() {
        TopicKind::Notify => "this server has no PostgreSQL configured, so no NOTIFY channels",
        TopicKind::Table => "this server has no source of row changes configured",
        _ => "this server has no source for such topics",
    };
    Refusal::new(Code::NotConfigured, message).about(topic)
}

/// A history that fails, fails all who ask.
static FAILED: Sparing = Sparing::new();

/// What a client is told when the history fails.
pub(crate) fn unavailable(error: &Error) -> Refusal {
    if let Some(unsaid) = FAILED.due() {
        tracing::warn!(error = error as &dyn std::error::Error, unsaid, "a request failed");
    }
    match error.kind() {
        Kind::Refused => Refusal::new(Code::TooLarge, error.to_string()),
        Kind::Full => {
            let message = "this server has as many topics in use as it allows, try again later";
            Refusal::new(Code::TooManyTopics, message)
        }
        _ => Refusal::new(Code::Unavailable, "the history cannot be reached, try again"),
    }
}

fn check(publication: &Publication, limits: &Limits) -> Result<(), Refusal> {
    if matches!(publication.topic.kind(), TopicKind::Table | TopicKind::Presence) {
        return Err(Refusal::new(Code::BadField, "only topics and channels can be published on"));
    }
    let bytes = publication.payload.len() + publication.name.as_ref().map_or(0, |name| name.len());
    if bytes > limits.payload_bytes {
        let message =
            format!("a payload is at most {} bytes, this one has {bytes}", limits.payload_bytes);
        return Err(Refusal::new(Code::TooLarge, message));
    }
    if publication.idempotency_key.as_ref().is_some_and(|key| key.len() > KEY_BYTES) {
        let message = format!("an idempotency key is at most {KEY_BYTES} bytes long");
        return Err(Refusal::new(Code::BadField, message));
    }
    Ok(())
}

/// On whose behalf something is published.
struct Caller {
    /// Whose idempotency keys and whose share of the publications under way.
    principal: Principal,
    session: Option<SessionId>,
}

impl Caller {
    /// Whose share of the publications under way; one that cannot be told apart from others is
    /// limited with all of them only.
    fn share(&self) -> Option<&Principal> {
        (self.principal != Principal::Local).then_some(&self.principal)
    }
}

fn fingerprint(publication: &Publication) -> u64 {
    let mut hasher = DefaultHasher::new();
    publication.topic.hash(&mut hasher);
    publication.name.hash(&mut hasher);
    match &publication.payload {
        Payload::Json(text) | Payload::Text(text) => text.hash(&mut hasher),
        Payload::Binary(bytes) => bytes.hash(&mut hasher),
    }
    hasher.finish()
}
