//! A node, and sessions whose sockets take bytes and forget them.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tidewire::history::HistoryLimits;
use tidewire::protocol::dialect::Native;
use tidewire::protocol::{Command, Payload, Subscription, Wire};
use tidewire::{
    Draft, Identity, Limits, Namespaces, Node, NodeBuilder, Opening, Outlet, Session, Topic,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// JSON of 128 bytes, which is what `make bench` publishes.
pub(crate) const PAYLOAD: &str = r#"{"order":40017,"status":"paid","total":149.90,"currency":"EUR","items":[{"sku":"A-1","count":2},{"sku":"B-22","count":1}],"x":1}"#;

/// Events that a topic's history keeps here: so few that it is full before anything is counted.
const KEPT: usize = 64;

/// A runtime of one thread whose clock stands still, so that no timer comes between.
pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// A node that limits nobody.
pub(crate) fn builder() -> NodeBuilder {
    let limits = Limits { messages_per_second: u32::MAX, burst: u32::MAX, ..Limits::default() };
    Node::builder().limits(limits).namespaces(keeping(KEPT))
}

/// Rules that keep so many events of each topic.
pub(crate) fn keeping(events: usize) -> Arc<RwLock<Arc<Namespaces>>> {
    let limits = HistoryLimits { events, bytes: usize::MAX, age: Duration::from_secs(3_600) };
    Arc::new(RwLock::new(Arc::new(Namespaces::new(Vec::new(), limits, true))))
}

pub(crate) fn topic() -> Topic {
    Topic::application("room:42").expect("a topic")
}

pub(crate) fn draft() -> Draft {
    Draft::message(topic(), Payload::Json(PAYLOAD.into()))
}

/// Sockets that count what they take.
#[derive(Clone, Default)]
pub(crate) struct Sockets(Arc<Counted>);

#[derive(Default)]
struct Counted {
    full: AtomicBool,
    writes: AtomicU64,
}

impl Sockets {
    /// From now on they take nothing, or everything again.
    pub(crate) fn fill(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> io::Result<usize> {
        if self.0.full.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Outlet for Sockets {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes.len())
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(buffers.iter().map(|buffer| buffer.len()).sum())
    }
}

/// Sessions that listen, and what they listen to.
pub(crate) struct Crowd {
    pub(crate) runtime: Runtime,
    pub(crate) node: Node,
    pub(crate) sessions: Vec<Session>,
    pub(crate) sockets: Sockets,
}

impl Crowd {
    /// A node without sessions.
    pub(crate) fn nobody(builder: NodeBuilder) -> Self {
        let runtime = runtime();
        let node = runtime.block_on(async { builder.start() });
        Self { runtime, node, sessions: Vec::new(), sockets: Sockets::default() }
    }

    /// So many sessions that listen to [`topic`].
    pub(crate) fn listening(count: usize) -> Self {
        let mut crowd = Self::nobody(builder());
        (0..count).for_each(|_| crowd.join(Subscription::to(topic())));
        crowd
    }

    /// One session more, with what it wants.
    pub(crate) fn join(&mut self, wish: Subscription) {
        let session = self.runtime.block_on(async {
            let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
            let outlet = Box::new(self.sockets.clone());
            let mut session = self.node.open(opening.outlet(outlet)).expect("there is room");
            session.perform(Command::Subscribe(wish)).await.expect("a wish that is granted");
            session.ready().await.expect("the session goes on");
            session.flush().expect("the socket is whole");
            session
        });
        self.sessions.push(session);
    }

    /// Publishes, over and over, and waits each time until all of `writes` were made.
    pub(crate) fn say(&self, rounds: u64, writes: u64, mut next: impl FnMut() -> Vec<Draft>) {
        self.runtime.block_on(async {
            for _ in 0..rounds {
                let all = self.sockets.writes() + writes;
                for event in self.node.publisher().publish(next()).await {
                    event.expect("a history that works");
                }
                while self.sockets.writes() < all {
                    yield_now().await;
                }
            }
        });
    }
}
