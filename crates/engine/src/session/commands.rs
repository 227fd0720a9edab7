//! What a client asks, carried out.

use std::sync::Arc;

use tidewire_protocol::presence::Member;
use tidewire_protocol::{
    Answer, Body, Code, Command, Event, Outcome, Position, Publication, Reference, Refusal, Since,
    Subscription, Tag, Token, Topic, TopicKind,
};

use super::catch_up::{PAGE, Rows};
use super::{Listening, Particulars, Phase, Session, Subscribed};
use crate::auth::Action;
use crate::history::Page;
use crate::hub::Entry;
use crate::mailbox::SubscriptionKey;
use crate::publisher::unavailable;
use crate::upstream::{Prepared, TableRows};

/// Longest meta and key of a member, together, in bytes.
///
/// A thousand members then fit into two megabytes of one answer.
const MEMBER_BYTES: usize = 2_048;

/// How often *earliest* is asked for again when the history was trimmed in between.
const EARLIEST_TRIES: usize = 3;

/// How often rows are read anew when the history does not reach back far enough for them.
const SNAPSHOT_TRIES: usize = 3;

/// Where the presence of a topic begins for a listener.
struct PresenceStart {
    listening: Listening,
    after: Position,
    members: Vec<Member>,
}

/// What a subscription begins with.
struct Start {
    position: Position,
    outcome: Outcome,
    /// What was read already.
    events: Vec<Arc<Event>>,
}

impl Session {
    /// Acts on one command; what the client is told is queued.
    ///
    /// Not cancel safe: a command that is dropped halfway may or may not be carried out.
    ///
    /// # Errors
    /// A refusal, which is not queued: the caller says it in its own way.
    pub async fn perform(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Subscribe(wish) => {
                let (topic, reference) = (wish.topic.clone(), wish.reference.clone());
                let done = self.subscribe(wish).await;
                done.map_err(|refusal| refusal.about(&topic).to(reference))
            }
            Command::Unsubscribe { topic, key, reference } => {
                self.unsubscribe(topic, key.as_ref(), reference);
                Ok(())
            }
            Command::Publish(publication) => self.publish(publication).await,
            Command::Track { topic, key, meta, reference } => {
                let done = self.track(&topic, key, meta, reference.clone()).await;
                done.map_err(|refusal| refusal.about(&topic).to(reference))
            }
            Command::Untrack { topic, reference } => {
                self.untrack(&topic).await;
                self.say(&Answer::Untracked { topic, reference });
                Ok(())
            }
            Command::Authenticate { token, reference } => {
                let done = self.authenticate(&token, reference.clone()).await;
                done.map_err(|refusal| refusal.to(reference))
            }
            Command::Ping { reference } => {
                self.say(&Answer::Pong { reference });
                Ok(())
            }
        }
    }

    async fn subscribe(&mut self, wish: Subscription) -> Result<(), Refusal> {
        if wish.implied && self.place_of(&wish.topic, wish.key.as_ref()).is_some() {
            return Ok(());
        }
        self.may(Action::Subscribe, &wish.topic).await?;
        if wish.presence {
            self.may(Action::Presence, &wish.topic).await?;
        }
        if self.repeats(&wish) {
            return self.answer_again(wish).await;
        }
        if self.place_of(&wish.topic, wish.key.as_ref()).is_none() {
            self.check_room()?;
        }
        let listening = self.listen(&wish.topic).await?;
        let wants = self.prepare(&wish).await?;
        let mut start = self.start_of(&wish).await?;
        let mut rows = None;
        if wish.snapshot && !is_resumed(start.as_ref()) {
            let (mut with_rows, found) = self.start_with_rows(&wish).await?;
            // What was lost is named, although the rows make up for it.
            with_rows.outcome = start.map_or(Outcome::Fresh, |start| start.outcome);
            (start, rows) = (Some(with_rows), Some(found));
        }
        let presence = self.presence_start(&wish).await?;
        // Only now is one that is in force replaced: a refused request changes nothing.
        let replaced = self.remove_with_presence(&wish.topic, wish.key.as_ref());
        let start = start.or_else(|| go_on(replaced.as_ref()?));
        let particulars =
            Particulars { name: wish.key.clone(), interest: wish.interest.clone(), wants, rows };
        self.begin(listening, wish, start, presence, particulars);
        Ok(())
    }

    /// What is wanted of a table, made ready; `None` for everything.
    async fn prepare(&self, wish: &Subscription) -> Result<Option<Arc<Prepared>>, Refusal> {
        if wish.interest.is_everything() {
            return Ok(None);
        }
        let upstream = self.node.publisher.upstream(&wish.topic)?;
        Ok(Some(Arc::new(upstream.prepare(&wish.topic, &wish.interest).await?)))
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Refusal> {
        let head = self.node.history.head(topic).await;
        head.map_err(|error| unavailable(&error))
    }

    /// The rows of a table, and the place from which its changes are read: as early as the history
    /// allows, because a change may be said before a query sees it.
    ///
    /// # Errors
    /// `Unavailable` when the history is too short for the changes that the query did not see.
    async fn start_with_rows(&self, wish: &Subscription) -> Result<(Start, Rows), Refusal> {
        let upstream = self.node.publisher.upstream(&wish.topic)?;
        for _ in 0..SNAPSHOT_TRIES {
            let before = self.head(&wish.topic).await?;
            let found = upstream.snapshot(&wish.topic, &wish.interest).await?;
            let head = self.head(&wish.topic).await?;
            let start = self.start_at_earliest(&wish.topic).await;
            let mut start = start.map_err(|error| unavailable(&error))?;
            if covers(&start, &found) {
                let after = start.position;
                start.events.clear();
                start.outcome = Outcome::Fresh;
                start.position = after;
                return Ok((start, Rows { found, told: 0, all_told: false, before, head }));
            }
        }
        let message = "the table changes faster than its history reaches back; keep more of it";
        Err(Refusal::new(Code::Unavailable, message))
    }

    /// Whether the same wish is in force: then nothing changes, and nothing can be missed.
    fn repeats(&self, wish: &Subscription) -> bool {
        let place = self.place_of(&wish.topic, wish.key.as_ref());
        let held = place.map(|place| &self.subscriptions[place]);
        wish.since == Since::Now && held.is_some_and(|held| held.asks_the_same(wish))
    }

    async fn answer_again(&mut self, wish: Subscription) -> Result<(), Refusal> {
        let members = match wish.presence {
            true => Some(self.node.presence.members(&wish.topic).await?),
            false => None,
        };
        let place = self.place_of(&wish.topic, wish.key.as_ref());
        let place = place.expect("the subscription was found above");
        let position = match self.subscriptions[place].phase {
            Phase::CatchingUp { after } => after,
            Phase::Live => self.live_position(place),
        };
        self.say(&subscribed(wish, position, Outcome::Fresh, members));
        Ok(())
    }

    fn live_position(&self, place: usize) -> Position {
        let live = self.subscriptions[place].entry().live.lock();
        live.at().expect("a topic with listeners is placed")
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let limit = self.node.limits.load().subscriptions;
        let held = self.subscriptions.iter();
        let count = held.filter(|held| held.topic().kind() != TopicKind::Presence).count();
        if count < limit {
            return Ok(());
        }
        let message = format!("a connection has at most {limit} subscriptions");
        Err(Refusal::new(Code::TooManySubscriptions, message))
    }

    /// Makes this session a listener of the topic: attached at its source, followed and placed.
    async fn listen(&self, topic: &Topic) -> Result<Listening, Refusal> {
        let listening = Listening::new(&self.node, topic);
        if matches!(topic.kind(), TopicKind::Notify | TopicKind::Table) {
            // Asked each time: while the source is down, nobody is told that events will come.
            self.node.publisher.upstream(topic)?.attach(topic).await?;
        }
        let started = listening.entry.started.get_or_try_init(|| self.place(&listening.entry));
        started.await.map_err(|error| unavailable(&error))?;
        Ok(listening)
    }

    async fn place(&self, entry: &Entry) -> Result<(), crate::Error> {
        self.node.broker.follow(&entry.topic).await?;
        let head = self.node.history.head(&entry.topic).await?;
        self.node.relay.place(entry, head);
        Ok(())
    }

    /// From where the subscription begins; `None` for where the topic is when it goes live.
    async fn start_of(&self, wish: &Subscription) -> Result<Option<Start>, Refusal> {
        let start = match wish.since {
            Since::Now => return Ok(None),
            Since::Earliest => self.start_at_earliest(&wish.topic).await,
            Since::Position(position) => {
                self.start_at(&wish.topic, position, Outcome::Resumed).await
            }
        };
        let start = start.map_err(|error| unavailable(&error))?;
        if let Outcome::Gap(reason) = start.outcome {
            self.node.metrics.gap(reason);
        }
        Ok(Some(start))
    }

    /// What was the earliest may be trimmed before it is read, so it is asked for again.
    async fn start_at_earliest(&self, topic: &Topic) -> Result<Start, crate::Error> {
        let mut tries = EARLIEST_TRIES;
        loop {
            tries -= 1;
            let earliest = self.node.history.earliest(topic).await?;
            let start = self.start_at(topic, earliest, Outcome::Fresh).await?;
            if start.outcome == Outcome::Fresh || tries == 0 {
                return Ok(start);
            }
        }
    }

    async fn start_at(
        &self,
        topic: &Topic,
        after: Position,
        outcome: Outcome,
    ) -> Result<Start, crate::Error> {
        Ok(match self.node.history.read(topic, after, PAGE).await? {
            Page::Events(events) => Start { position: after, outcome, events },
            Page::Lost { head, reason } => {
                Start { position: head, outcome: Outcome::Gap(reason), events: Vec::new() }
            }
        })
    }

    async fn presence_start(&self, wish: &Subscription) -> Result<Option<PresenceStart>, Refusal> {
        if !wish.presence {
            return Ok(None);
        }
        let listening = self.listen(&wish.topic.presence()).await?;
        let head = self.node.history.head(&wish.topic.presence()).await;
        let after = head.map_err(|error| unavailable(&error))?;
        // The list is read after the place: what is told twice does no harm, see `PresenceDiff`.
        let members = self.node.presence.members(&wish.topic).await?;
        Ok(Some(PresenceStart { listening, after, members }))
    }

    /// Answers and begins; nothing is waited for, so no event can come before the answer.
    fn begin(
        &mut self,
        listening: Listening,
        wish: Subscription,
        start: Option<Start>,
        presence: Option<PresenceStart>,
        particulars: Particulars,
    ) {
        let tag = wish.tag.clone();
        let (presence, members) = match presence {
            Some(start) => (Some((start.listening, start.after)), Some(start.members)),
            None => (None, None),
        };
        self.node.metrics.subscriptions.inc();
        let index = self.hold(listening, tag.clone(), wish.presence);
        if particulars.name.is_some() || !wish.interest.is_everything() || wish.snapshot {
            self.subscriptions[index].particulars = Some(Box::new(particulars));
        }
        match start {
            Some(start) => self.begin_behind(index, wish, &start, members),
            None => self.begin_live(index, wish, members),
        }
        if let Some((listening, after)) = presence {
            let index = self.hold(listening, tag, false);
            self.subscriptions[index].phase = Phase::CatchingUp { after };
            self.try_to_go_live(index, after);
        }
    }

    fn hold(&mut self, listening: Listening, tag: Option<Tag>, presence: bool) -> usize {
        let key = SubscriptionKey(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        self.subscriptions.push(Subscribed {
            key,
            listening,
            tag,
            phase: Phase::Live,
            presence,
            particulars: None,
        });
        self.subscriptions.len() - 1
    }

    fn begin_live(&mut self, index: usize, wish: Subscription, members: Option<Vec<Member>>) {
        let held = &self.subscriptions[index];
        let (form, member) = (self.form_of(held), self.member(held));
        let mut live = held.entry().live.lock();
        live.go_live_now(member, &form, |position| {
            self.say(&subscribed(wish, position, Outcome::Fresh, members));
        });
    }

    fn begin_behind(
        &mut self,
        index: usize,
        wish: Subscription,
        start: &Start,
        members: Option<Vec<Member>>,
    ) {
        // With rows, what is replayed is part of the snapshot, which is complete at the head.
        let told = self.subscriptions[index].rows().map_or(start.position, |rows| rows.head);
        let answer = subscribed(wish, told, start.outcome, members);
        match self.subscriptions[index].rows() {
            // A stream that breaks in the middle of a snapshot must begin with it again.
            Some(_) => self.say_as(&answer, None),
            None => self.say(&answer),
        }
        self.subscriptions[index].phase = Phase::CatchingUp { after: start.position };
        if self.has_room() {
            self.hand_over(index, &start.events);
        }
        if let Phase::CatchingUp { after } = self.subscriptions[index].phase {
            self.try_to_go_live(index, after);
        }
    }

    fn unsubscribe(&mut self, topic: Topic, name: Option<&Arc<str>>, reference: Option<Reference>) {
        let tag = self.remove_with_presence(&topic, name).and_then(|held| held.tag.clone());
        self.say(&Answer::Unsubscribed { topic, tag, reference });
    }

    fn remove_with_presence(
        &mut self,
        topic: &Topic,
        name: Option<&Arc<str>>,
    ) -> Option<Subscribed> {
        let removed = self.remove(self.place_of(topic, name)?);
        if removed.presence
            && let Some(place) = self.place_of(&topic.presence(), None)
        {
            self.remove(place);
        }
        Some(removed)
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), Refusal> {
        let topic = publication.topic.clone();
        let reference = publication.reference.clone();
        let allowed = self.may(Action::Publish, &topic).await;
        allowed.map_err(|refusal| refusal.about(&topic).to(reference.clone()))?;
        let confirm = publication.confirm;
        let publisher = self.node.publisher.clone();
        let position = publisher.submit(publication, &self.identity, Some(self.id)).await?;
        if confirm {
            self.say(&Answer::Published { topic, position, reference });
        }
        Ok(())
    }

    async fn track(
        &mut self,
        topic: &Topic,
        key: Option<Arc<str>>,
        meta: Arc<str>,
        reference: Option<Reference>,
    ) -> Result<(), Refusal> {
        self.may(Action::Track, topic).await?;
        if !self.subscriptions.iter().any(|held| held.entry().topic == *topic) {
            let message = "subscribe to the topic before tracking on it";
            return Err(Refusal::new(Code::NotSubscribed, message));
        }
        let member = self.new_member(topic, key, meta)?;
        let known = self.tracked_on(topic).is_some();
        if !known {
            self.check_tracked()?;
            // Before anything is waited for: if the session ends meanwhile, the member goes too.
            self.tracked.push((topic.clone(), Arc::clone(&member.reference)));
        }
        if let Err(refusal) = self.node.presence.track(topic, member.clone()).await {
            if !known {
                self.untrack(topic).await;
            }
            return Err(refusal);
        }
        self.say(&Answer::Tracked { topic: topic.clone(), member, reference });
        Ok(())
    }

    /// A member stays when the subscription ends, so they have a limit of their own.
    fn check_tracked(&self) -> Result<(), Refusal> {
        let limit = self.node.limits.load().subscriptions;
        if self.tracked.len() < limit {
            return Ok(());
        }
        let message = format!("a connection is tracked on at most {limit} topics");
        Err(Refusal::new(Code::TooManySubscriptions, message))
    }

    /// A session is one member of a topic, so tracking again replaces what it said before.
    fn new_member(
        &self,
        topic: &Topic,
        key: Option<Arc<str>>,
        meta: Arc<str>,
    ) -> Result<Member, Refusal> {
        let reference = self.tracked_on(topic).unwrap_or_else(|| self.id.to_string().into());
        let key = key.or_else(|| self.identity.subject.clone());
        let key = key.unwrap_or_else(|| Arc::clone(&reference));
        if key.len() + meta.len() > MEMBER_BYTES {
            let message = format!("key and meta of a member are at most {MEMBER_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        Ok(Member { reference, key, meta })
    }

    fn tracked_on(&self, topic: &Topic) -> Option<Arc<str>> {
        let found = self.tracked.iter().find(|(tracked, _)| tracked == topic);
        found.map(|(_, reference)| Arc::clone(reference))
    }

    async fn untrack(&mut self, topic: &Topic) {
        if let Some(reference) = self.tracked_on(topic) {
            self.node.presence.untrack(topic, &reference).await;
            self.tracked.retain(|(tracked, _)| tracked != topic);
        }
    }

    /// Takes on the identity of a token and ends what it does not allow any more.
    async fn authenticate(
        &mut self,
        token: &Token,
        reference: Option<Reference>,
    ) -> Result<(), Refusal> {
        let identity = self.node.check_token(token).await?;
        let (subject, expires_at) = (identity.subject.clone(), identity.expires_at);
        self.become_identity(identity);
        self.say(&Answer::Authenticated { subject, expires_at, reference });
        self.end_forbidden().await;
        Ok(())
    }

    async fn end_forbidden(&mut self) {
        let held = self.subscriptions.iter().map(|held| (held.key, held.topic(), held.presence));
        let held: Vec<_> =
            held.filter(|(_, topic, _)| topic.kind() != TopicKind::Presence).collect();
        for (key, topic, presence) in held {
            if let Err(refusal) = self.may_keep(&topic, presence).await
                && let Some(place) = self.subscriptions.iter().position(|held| held.key == key)
            {
                self.end(place, refusal);
            }
        }
        for (topic, _) in self.tracked.clone() {
            if self.may(Action::Track, &topic).await.is_err() {
                self.untrack(&topic).await;
            }
        }
    }

    /// Who asked for presence and may not see it any more loses the whole subscription, as it
    /// would have been refused as a whole.
    async fn may_keep(&self, topic: &Topic, presence: bool) -> Result<(), Refusal> {
        self.may(Action::Subscribe, topic).await?;
        if presence {
            self.may(Action::Presence, topic).await?;
        }
        Ok(())
    }

    /// Ends the subscription at `place` and says why.
    pub(super) fn end(&mut self, place: usize, refusal: Refusal) {
        let held = &self.subscriptions[place];
        let (topic, name) = (held.topic(), held.name().cloned());
        let Some(held) = self.remove_with_presence(&topic, name.as_ref()) else { return };
        self.say(&Answer::Ended { topic, tag: held.tag.clone(), refusal });
    }

    async fn may(&self, action: Action, topic: &Topic) -> Result<(), Refusal> {
        self.node.authorizer.authorize(&self.identity, action, topic).await
    }
}

/// Whether everything after the given place follows, so that no rows are needed.
fn is_resumed(start: Option<&Start>) -> bool {
    start.is_some_and(|start| start.outcome == Outcome::Resumed)
}

/// Where a subscription goes on that replaces another and names no place.
fn go_on(replaced: &Subscribed) -> Option<Start> {
    match replaced.phase {
        Phase::CatchingUp { after } => {
            Some(Start { position: after, outcome: Outcome::Fresh, events: Vec::new() })
        }
        Phase::Live => None,
    }
}

/// Whether every change that is not in the rows is in the history from `start` on.
///
/// Changes come in the order of their commits. When the oldest one kept is in the rows, all that
/// were let go of committed before it; when nothing was let go of, nothing can be missing.
fn covers(start: &Start, found: &TableRows) -> bool {
    let oldest = start.events.iter().find_map(|event| match &event.body {
        Body::Change(change) => Some(change.transaction.id),
        _ => None,
    });
    start.outcome == Outcome::Fresh
        && (start.position.seq == 0 || oldest.is_none_or(|id| found.seen.contains(id)))
}

fn subscribed(
    wish: Subscription,
    position: Position,
    outcome: Outcome,
    members: Option<Vec<Member>>,
) -> Answer {
    let Subscription { topic, tag, reference, .. } = wish;
    Answer::Subscribed { topic, position, outcome, members, tag, reference }
}
