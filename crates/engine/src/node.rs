//! One running engine: holds all parts, opens sessions, shuts down.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::{Code, Dialect, Refusal, SessionId, Shape, Token, Topic, TopicKind, Wire};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Authorizer, Identity};
use crate::bookmark::{self, Watched};
use crate::broker::{Broker, Inlet, LocalBroker};
use crate::history::{History, HistoryLimits, MemoryHistory, MemorySettings};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::mailbox::{Mailbox, Outlet};
use crate::metrics::{ClientLabels, Metrics};
use crate::namespace::Namespaces;
use crate::presence::{MemoryPresence, Presence};
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::session::Session;
use crate::sessions::{Connection, Departures, Sessions};
use crate::ticker::{self, Clock};
use crate::upstream::Upstream;

/// Most relay workers: beyond, the map of topics is the limit.
const MAX_RELAY_WORKERS: usize = 16;

/// Most carriers, which write to topics with many listeners: 32 write to 100,000 sockets in about
/// 15 ms.
const MAX_CARRIERS: usize = 32;

/// What a shutdown keeps of its grace period for the tasks to end, at most: what they do is short
/// unless a store hangs.
const LAST_WORK: Duration = Duration::from_secs(1);

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
    pub(crate) clock: Clock,
    pub(crate) departures: Departures,
    /// Topics with listeners who may be silent.
    pub(crate) watched: Watched,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What a session begins with.
pub struct Opening {
    /// The client's language.
    pub dialect: Arc<dyn Dialect>,
    /// The client's transport.
    pub wire: Wire,
    /// Who the client is.
    pub identity: Identity,
    /// The other end, if it is known, for [`Node::connections`].
    pub peer: Option<SocketAddr>,
    /// The socket, where the transport can write without waiting.
    pub outlet: Option<Box<dyn Outlet>>,
    /// Every event is handed over alone with its topic and position, for transports that make
    /// cursors of several topics; always so for [`Wire::Lines`].
    pub marked: bool,
    /// Events of a stream carry no `id:` line, because the transport writes one of its own.
    pub composite: bool,
}

impl Opening {
    /// A session without outlet, marks or composite ids.
    pub fn new(dialect: Arc<dyn Dialect>, wire: Wire, identity: Identity) -> Self {
        let marked = wire == Wire::Lines;
        Self { dialect, wire, identity, peer: None, outlet: None, marked, composite: false }
    }

    /// The same, and who is at the other end.
    #[must_use]
    pub fn peer(mut self, peer: Option<SocketAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// The same with a socket to write into directly.
    #[must_use]
    pub fn outlet(mut self, outlet: Box<dyn Outlet>) -> Self {
        self.outlet = Some(outlet);
        self
    }

    /// The same with marks and without `id:` lines; see [`Opening::composite`].
    #[must_use]
    pub fn composite(mut self) -> Self {
        self.marked = true;
        self.composite = true;
        self
    }
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

/// Puts a node together; every part has a default that needs nothing outside this process.
pub struct NodeBuilder {
    history: Option<Arc<dyn History>>,
    broker: Arc<dyn Broker>,
    presence: Option<Arc<dyn Presence>>,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    anonymous: bool,
    upstreams: HashMap<TopicKind, Arc<dyn Upstream>>,
    limits: Limits,
    memory: MemorySettings,
    metrics: Metrics,
}

impl NodeBuilder {
    /// Where topics are remembered; in memory by default.
    #[must_use]
    pub fn history(mut self, history: Arc<dyn History>) -> Self {
        self.history = Some(history);
        self
    }

    /// How much the default history may use.
    #[must_use]
    pub fn memory(mut self, settings: MemorySettings) -> Self {
        self.memory = settings;
        self
    }

    /// How events reach other nodes; there are none by default.
    #[must_use]
    pub fn broker(mut self, broker: Arc<dyn Broker>) -> Self {
        self.broker = broker;
        self
    }

    /// Who is where; in memory by default.
    #[must_use]
    pub fn presence(mut self, presence: Arc<dyn Presence>) -> Self {
        self.presence = Some(presence);
        self
    }

    /// Rules per topic, which may be exchanged while the node runs.
    #[must_use]
    pub fn namespaces(mut self, namespaces: Arc<RwLock<Arc<Namespaces>>>) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Who may do what, in place of the namespaces.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Who is who. Without one, every client may do everything.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Whether clients without a token are let in where there is an authenticator; off by default.
    #[must_use]
    pub fn anonymous(mut self, admitted: bool) -> Self {
        self.anonymous = admitted;
        self
    }

    /// The world outside that topics of `kind` belong to.
    #[must_use]
    pub fn upstream(mut self, kind: TopicKind, upstream: Arc<dyn Upstream>) -> Self {
        self.upstreams.insert(kind, upstream);
        self
    }

    /// How much everything may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the node counts.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// The parts that exist before the node does, for upstreams that are made with its publisher.
    #[must_use]
    pub fn prepare(mut self) -> PreparedNode {
        let limits = Arc::new(ArcSwap::from_pointee(self.limits.clone()));
        let history = self.history.take().unwrap_or_else(|| self.memory_history());
        let publisher = Publisher::new(
            Arc::clone(&history),
            Arc::clone(&self.broker),
            Arc::clone(&limits),
            self.metrics.clone(),
        );
        PreparedNode { builder: self, limits, history, publisher }
    }

    fn memory_history(&self) -> Arc<dyn History> {
        let memory = MemoryHistory::new(self.memory, Arc::clone(&self.namespaces));
        Arc::new(memory.with_metrics(self.metrics.clone()))
    }

    /// Starts the node. Must be called inside a Tokio runtime.
    #[must_use]
    pub fn start(self) -> Node {
        self.prepare().start()
    }
}

/// A node that is about to start.
pub struct PreparedNode {
    builder: NodeBuilder,
    limits: Arc<ArcSwap<Limits>>,
    history: Arc<dyn History>,
    publisher: Publisher,
}

impl PreparedNode {
    /// The publisher of the node to be.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The world outside that topics of `kind` belong to.
    #[must_use]
    pub fn upstream(mut self, kind: TopicKind, upstream: Arc<dyn Upstream>) -> Self {
        self.builder = self.builder.upstream(kind, upstream);
        self
    }

    /// Who is who; see [`NodeBuilder::authenticator`].
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.builder = self.builder.authenticator(authenticator);
        self
    }

    /// Starts the node. Must be called inside a Tokio runtime.
    #[must_use]
    pub fn start(self) -> Node {
        let Self { builder, limits, history, publisher } = self;
        let metrics = builder.metrics;
        let hub = Arc::new(Hub::new());
        let relay = Arc::new(Relay::new(
            writers().clamp(1, MAX_RELAY_WORKERS),
            writers().clamp(1, MAX_CARRIERS),
            Arc::clone(&hub),
            Arc::clone(&history),
            Arc::clone(&limits),
            metrics.clone(),
        ));
        attach(builder.broker.as_ref(), &relay);
        publisher.set_upstreams(builder.upstreams.clone());
        let stop = CancellationToken::new();
        let (presence, telling) = presence(builder.presence, &limits, &metrics, &publisher, &stop);
        let inner = Arc::new(Inner {
            hub,
            relay,
            history,
            broker: builder.broker,
            publisher,
            presence,
            authorizer: builder.authorizer.unwrap_or_else(|| Arc::clone(&builder.namespaces) as _),
            authenticator: builder.authenticator,
            anonymous: builder.anonymous,
            upstreams: builder.upstreams,
            limits,
            metrics,
            sessions: Sessions::default(),
            clock: Clock::start(),
            departures: Departures::default(),
            watched: Watched::default(),
            namespaces: builder.namespaces,
            stop,
            tasks: Mutex::new(telling.into_iter().collect()),
        });
        inner.spawn_tasks();
        Node(inner)
    }
}

/// Half of the runtime's threads: one writer keeps up with a core's worth of sockets, and the rest
/// is left to sessions and sources.
///
/// With two threads that is one. Two would write to one topic at once while nothing is left to
/// publish, so that less is joined.
fn writers() -> usize {
    tokio::runtime::Handle::current().metrics().num_workers() / 2
}

fn attach(broker: &dyn Broker, relay: &Arc<Relay>) {
    let relay = Arc::downgrade(relay);
    broker.attach(Inlet::new(move |events| {
        if let Some(relay) = relay.upgrade() {
            relay.receive(events);
        }
    }));
}

fn presence(
    given: Option<Arc<dyn Presence>>,
    limits: &Arc<ArcSwap<Limits>>,
    metrics: &Metrics,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> (Arc<dyn Presence>, Option<JoinHandle<()>>) {
    if let Some(given) = given {
        return (given, None);
    }
    let memory = Arc::new(MemoryPresence::new(Arc::clone(limits), metrics.clone()));
    let (telling, publisher, stop) = (Arc::clone(&memory), publisher.clone(), stop.clone());
    let task = tokio::spawn(async move { telling.run(publisher, stop).await });
    (memory, Some(task))
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
    }

    /// Who the bearer of a token shown on a live connection is.
    pub(crate) async fn check_token(&self, token: &Token) -> Result<Identity, Refusal> {
        let Some(authenticator) = &self.authenticator else {
            let message = "this server has no authentication configured";
            return Err(Refusal::new(Code::AuthenticationOff, message));
        };
        authenticator.identify(token).await
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
        NodeBuilder {
            history: None,
            broker: Arc::new(LocalBroker::default()),
            presence: None,
            namespaces: Arc::default(),
            authorizer: None,
            authenticator: None,
            anonymous: false,
            upstreams: HashMap::new(),
            limits: Limits::default(),
            memory: MemorySettings::default(),
            metrics: Metrics::default(),
        }
    }

    /// Opens a session for a client; while the node shuts down, one that ends at once.
    ///
    /// # Errors
    /// `TooManyConnections` at the limit.
    pub fn open(&self, opening: Opening) -> Result<Session, Refusal> {
        let limits = self.0.limits.load();
        let now = self.0.clock.seconds();
        let mailbox = Arc::new(Mailbox::new(opening.wire, opening.outlet, now));
        if let Some(frame) = opening.dialect.heartbeat()
            && opening.wire == Wire::WebSocket
        {
            mailbox.beat_with(opening.wire.seal(&frame, None));
        }
        let id = Inner::session_id();
        if !self.0.sessions.insert(id, Arc::clone(&mailbox), opening.peer, limits.connections) {
            let message = format!("this server takes at most {} connections", limits.connections);
            return Err(Refusal::new(Code::TooManyConnections, message));
        }
        let labels = labels(opening.dialect.name(), opening.wire);
        self.0.metrics.connections.get_or_create(&labels).inc();
        self.0.metrics.connections_opened.get_or_create(&labels).inc();
        let shape = Shape { dialect: opening.dialect, wire: opening.wire, tag: None };
        let (marked, composite) = (opening.marked, opening.composite);
        let mut session = Session::new(Arc::clone(&self.0), id, mailbox, shape, marked, composite);
        session.become_identity(opening.identity);
        Ok(session)
    }

    /// Who the bearer of a token is; without a token, an anonymous client, or one that may do
    /// everything where no authentication is configured.
    ///
    /// # Errors
    /// What the authenticator refuses. A token on a server without authentication is ignored.
    pub async fn identify(&self, token: Option<&Token>) -> Result<Identity, Refusal> {
        match (&self.0.authenticator, token) {
            (None, _) => Ok(Identity::everything()),
            (Some(_), None) => Ok(Identity::anonymous()),
            (Some(authenticator), Some(token)) => authenticator.identify(token).await,
        }
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
        self.0.limits.store(Arc::new(limits));
    }

    /// Counts of what is here now.
    pub fn stats(&self) -> Stats {
        let metrics = &self.0.metrics;
        Stats {
            connections: self.0.sessions.len(),
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
