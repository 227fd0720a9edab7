//! Putting a node together from its parts, and starting it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::TopicKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::{Inner, Node};
use crate::auth::{Authenticator, Authorizer};
use crate::bookmark::Watched;
use crate::broker::{Broker, Inlet, LocalBroker};
use crate::history::{History, MemoryHistory, MemorySettings};
use crate::hub::Hub;
use crate::limits::Limits;
use crate::mailbox::Totals;
use crate::metrics::Metrics;
use crate::namespace::Namespaces;
use crate::presence::{MemoryPresence, Presence};
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::sessions::{Departures, Sessions};
use crate::ticker::Clock;
use crate::upstream::Upstream;

/// Most relay workers: beyond, the map of topics is the limit.
const MAX_RELAY_WORKERS: usize = 16;

/// Most carriers, which write to topics with many listeners: 32 write to 100,000 sockets in about
/// 15 ms.
const MAX_CARRIERS: usize = 32;

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

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
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
        let waiting = limits.load().budgets.mailbox_bytes;
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
            admission: Admission::default(),
            waiting: Totals::new(waiting),
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
