//! One running engine: holds all parts, opens sessions, shuts down.

mod admission;
mod builder;
mod filters;
mod opening;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::{Interest, Refusal, SessionId, Shape, Topic, TopicKind, Wire};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::auth::{Allowed, Authenticator, Authorizer, Identity};
use crate::bookmark::{self, Watched};
use crate::broker::Broker;
use crate::history::{History, HistoryLimits};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::mailbox::{Mailbox, Totals};
use crate::metrics::{ClientLabels, Metrics};
use crate::namespace::Namespaces;
use crate::presence::Presence;
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::session::Session;
use crate::sessions::{Connection, Departures, Sessions};
use crate::sparing::Sparing;
use crate::ticker::{self, Clock};
use crate::upstream::{Prepared, Upstream};

use self::admission::Admission;
pub use self::admission::Place;
pub use self::builder::{NodeBuilder, PreparedNode};
pub use self::opening::Opening;

/// What a shutdown keeps of its grace period for the tasks to end, at most: what they do is short
/// unless a store hangs.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Slow readers are slow for a while.
static SLOW: Sparing = Sparing::new();

/// One running engine; cheap to clone.
///
/// The parts run until [`Node::shutdown`], or until the runtime ends.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) hub: Arc<Hub>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) publisher: Publisher,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    authenticator: Option<Arc<dyn Authenticator>>,
    anonymous: bool,
    pub(crate) upstreams: HashMap<TopicKind, Arc<dyn Upstream>>,
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    pub(crate) metrics: Metrics,
    pub(crate) sessions: Sessions,
    admission: Admission,
    /// What waits for all clients.
    waiting: Totals,
    pub(crate) clock: Clock,
    pub(crate) departures: Departures,
    /// Topics with listeners who may be silent.
    pub(crate) watched: Watched,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Counts of what a node holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open sessions.
    pub connections: usize,
    /// Topics with a listener, or that had one some seconds ago.
    pub topics: usize,
    /// Subscriptions in force.
    pub subscriptions: usize,
    /// Events given a position since the start.
    pub events: u64,
    /// Events handed to clients since the start.
    pub deliveries: u64,
}

impl Inner {
    fn spawn_tasks(self: &Arc<Self>) {
        let mut tasks = self.tasks.lock();
        for index in 0..self.relay.workers() {
            let (relay, stop) = (Arc::clone(&self.relay), self.stop.clone());
            tasks.push(tokio::spawn(relay.run(index, stop)));
        }
        for _ in 0..self.relay.carriers() {
            let (relay, stop) = (Arc::clone(&self.relay), self.stop.clone());
            tasks.push(tokio::spawn(async move { relay.carry(stop).await }));
        }
        // These look after sessions, which hold the node, so they hold it too: it is
        // `Node::shutdown` that ends them.
        tasks.push(tokio::spawn(ticker::run(Arc::clone(self), self.stop.clone())));
        tasks.push(tokio::spawn(ticker::let_go(Arc::clone(self), self.stop.clone())));
        tasks.push(tokio::spawn(bookmark::run(Arc::clone(self), self.stop.clone())));
        let node = Arc::clone(self);
        tasks.push(tokio::spawn(async move { node.see_off().await }));
    }

    /// Takes members off presence whose sessions have ended.
    async fn see_off(&self) {
        loop {
            for (topic, reference) in self.departures.take() {
                self.presence.untrack(&topic, &reference).await;
            }
            tokio::select! {
                biased;
                () = self.departures.changed.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    pub(crate) fn remove_deserted(&self, linger: Duration) -> Vec<Topic> {
        self.hub.remove_deserted(linger, |topic| {
            if let Some(upstream) = self.upstreams.get(&topic.kind()) {
                upstream.detach(topic);
            }
        })
    }

    /// How much of a topic is kept.
    pub(crate) fn history_limits(&self, topic: &Topic) -> HistoryLimits {
        self.namespaces.read().history(topic)
    }

    pub(crate) fn measure(&self) {
        self.metrics.topics.set(self.hub.len() as i64);
        let (waiting, limit) = (self.waiting.bytes(), self.limits.load().budgets.mailbox_bytes);
        self.metrics.mailbox_bytes.set(waiting as i64);
        // One of many may hold very little by then.
        if waiting > limit / 8 * 7
            && let Some(unsaid) = SLOW.due()
        {
            tracing::warn!(waiting, limit, unsaid, "slow readers leave little room in memory");
        }
    }

    /// Who a client is now that keys or settings have changed.
    pub(crate) fn judge_again(&self, identity: &Identity) -> Result<Identity, Refusal> {
        match &self.authenticator {
            Some(authenticator) => {
                let judged = authenticator.review(identity)?;
                Ok(Identity { token: identity.token, ..judged })
            }
            None => Ok(identity.clone()),
        }
    }

    pub(crate) fn admits_anonymous(&self) -> bool {
        self.authenticator.is_none() || self.anonymous
    }

    fn session_id() -> SessionId {
        SessionId(getrandom::u64().expect("the system has randomness"))
    }
}

impl Node {
    /// A node with defaults, to be changed before it starts.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Opens a session for a client; while the node shuts down, one that ends at once.
    ///
    /// # Errors
    /// As [`Node::place`], unless the opening has a place already.
    pub fn open(&self, opening: Opening) -> Result<Session, Refusal> {
        let place = match opening.place {
            Some(place) => place,
            None => self.place(&opening.identity, opening.peer.map(|peer| peer.ip()))?,
        };
        let now = self.0.clock.seconds();
        let mailbox =
            Arc::new(Mailbox::among(self.0.waiting.clone(), opening.wire, opening.outlet, now));
        if let Some(frame) = opening.dialect.heartbeat()
            && opening.wire == Wire::WebSocket
        {
            mailbox.beat_with(opening.wire.seal(&frame, None));
        }
        let id = Inner::session_id();
        self.0.sessions.insert(id, Arc::clone(&mailbox), opening.peer, place);
        let labels = labels(opening.dialect.name(), opening.wire);
        self.0.metrics.connections.get_or_create(&labels).inc();
        self.0.metrics.connections_opened.get_or_create(&labels).inc();
        let shape = Shape { dialect: opening.dialect, wire: opening.wire, tag: None };
        let (marked, composite) = (opening.marked, opening.composite);
        let mut session = Session::new(Arc::clone(&self.0), id, mailbox, shape, marked, composite);
        session.become_identity(opening.identity);
        Ok(session)
    }

    /// Whether clients without a token are let in.
    pub fn admits_anonymous(&self) -> bool {
        self.0.admits_anonymous()
    }

    /// Whether tokens are checked at all.
    pub fn has_authentication(&self) -> bool {
        self.0.authenticator.is_some()
    }

    /// The one door in.
    pub fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// The memory of topics.
    pub fn history(&self) -> &Arc<dyn History> {
        &self.0.history
    }

    /// Who is where.
    pub fn presence(&self) -> &Arc<dyn Presence> {
        &self.0.presence
    }

    /// What of a table's events may be shown to whom it is allowed so; `None` for all of them.
    ///
    /// # Errors
    /// As [`Upstream::prepare`].
    pub async fn shown(
        &self,
        topic: &Topic,
        allowed: &Allowed,
    ) -> Result<Option<Prepared>, Refusal> {
        let Some(limit) = &allowed.rows else { return Ok(None) };
        let interest = Interest { limit: Some(Arc::clone(limit)), ..Interest::default() };
        self.0.publisher.upstream(topic)?.prepare(topic, &interest).await.map(Some)
    }

    /// Who may do what.
    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.0.authorizer
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        self.0.limits.load_full()
    }

    /// Puts other limits in force, for requests from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.0.waiting.set_limit(limits.budgets.mailbox_bytes);
        self.0.limits.store(Arc::new(limits));
    }

    /// Open sessions; costs the same however many there are.
    pub fn connection_count(&self) -> usize {
        self.0.sessions.len()
    }

    /// Counts of what is here now.
    pub fn stats(&self) -> Stats {
        let metrics = &self.0.metrics;
        Stats {
            connections: self.connection_count(),
            topics: self.0.hub.named(),
            subscriptions: metrics.subscriptions.get().max(0) as usize,
            events: metrics.events.get(),
            deliveries: metrics.deliveries.get(),
        }
    }

    /// How many open sessions are wanted, and those of one page of them, the oldest first.
    ///
    /// Looks at every session, so it is for operators.
    pub fn connections(
        &self,
        wanted: impl Fn(&Connection) -> bool,
        page: Range<usize>,
    ) -> (usize, Vec<Connection>) {
        self.0.sessions.list(wanted, page)
    }

    /// Judges every session again; to be called after keys, rules or grants have changed.
    ///
    /// Returns at once. Each session then ends with [`Close::Revoked`](tidewire_protocol::Close::Revoked)
    /// if its credential is not good any more; otherwise it takes on the rights that its credential
    /// has now, and ends the subscriptions and members that it is not allowed any more.
    pub fn review(&self) {
        self.0.sessions.review_all();
    }

    /// What the node counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Ends every session with [`Close::Restart`](tidewire_protocol::Close::Restart), each told to come back after another number of
    /// seconds up to `spread`, waits until all are gone or `grace` has passed, and stops all
    /// tasks, at the end of the grace period even those that wait for a store. The node does
    /// nothing any more after that.
    pub async fn shutdown(&self, spread: Duration, grace: Duration) {
        let deadline = Instant::now() + grace;
        let spread = u16::try_from(spread.as_secs()).unwrap_or(u16::MAX);
        self.0.sessions.close_all(spread);
        let farewells = deadline - LAST_WORK.min(grace / 4);
        let _ = timeout_at(farewells, self.0.sessions.emptied()).await;
        // What was accepted is published, whoever has hung up meanwhile.
        self.0.publisher.settle(farewells).await;
        self.0.stop.cancel();
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for mut task in tasks {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

pub(crate) fn labels(dialect: &'static str, wire: Wire) -> ClientLabels {
    let transport = match wire {
        Wire::WebSocket => "websocket",
        Wire::EventStream => "event_stream",
        Wire::Lines => "poll",
    };
    ClientLabels { dialect, transport }
}
