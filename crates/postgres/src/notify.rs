//! NOTIFY as a source: channels are listened to while somebody is subscribed.
//!
//! A [`NotifySource`] keeps one connection for listening with nothing else on it, and a few for
//! sending. The engine attaches a channel when its first subscriber comes and detaches it when the
//! last one has left; `attach` returns only once LISTEN is active, so that nothing said after
//! *subscribed* is missed. When the connection is lost it is opened again, every channel is
//! listened to again, and each is told a gap.
//!
//! `channels` decides, `listener` waits, `shared` is between them and those who attach.

mod backoff;
mod channels;
mod link;
mod listener;
mod metrics;
mod outbound;
mod self_test;
mod shared;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire::sparing::Sparing;
use tidewire::{Publisher, Upstream};
use tidewire_protocol::{Code, Payload, Refusal, Topic};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connect::{Pool, Target};
pub(crate) use backoff::Backoff;
use channels::{Channels, Full};
use listener::Listener;
pub use metrics::NotifyMetrics;
pub use outbound::MAX_PAYLOAD_BYTES;
use shared::Shared;
pub use status::{NotifyStatus, State};

/// How a [`NotifySource`] behaves.
#[derive(Clone, Debug)]
pub struct NotifyOptions {
    /// Channels that are listened to from the start and for ever; others come and go.
    pub always: Vec<Topic>,
    /// Most channels at a time. Up to PostgreSQL 18 a server finds a channel by walking through a
    /// list, so LISTEN takes 0.3 ms with 10,000 of them and 60 ms with 50,000. 10,000 by default.
    pub channel_limit: usize,
    /// How long an attach waits for LISTEN to be active before it is refused. 10 s by default.
    pub attach_timeout: Duration,
    /// Most connections for sending at a time. 4 by default.
    pub pool_size: usize,
    /// Silence on the listening connection after which the server is asked for a sign of life.
    /// 15 s by default.
    ///
    /// TCP keepalives and `TCP_USER_TIMEOUT` find a cable that was pulled, but they are answered
    /// by kernels: a stopped server process, a proxy that lost its other side, or a Unix socket
    /// looks alive to them. An empty query is answered by the server process itself, begins no
    /// transaction, and so never holds up the notification queue.
    pub ping_interval: Duration,
    /// How long any answer on the listening connection may take before the connection is given up.
    /// 10 s by default, so that a dead one is noticed within 25 s.
    pub answer_timeout: Duration,
}

impl Default for NotifyOptions {
    fn default() -> Self {
        Self {
            always: Vec::new(),
            channel_limit: 10_000,
            attach_timeout: Duration::from_secs(10),
            pool_size: 4,
            ping_interval: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// How long to wait for a free connection to send on.
const POOL_PATIENCE: Duration = Duration::from_secs(5);

/// How long `pg_notify` may take; it waits for other transactions that notify to commit.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// Listens to a database's NOTIFY channels and says things on them.
///
/// Its task ends with it; [`NotifySource::shutdown`] ends it politely.
pub struct NotifySource {
    shared: Arc<Shared>,
    pool: Pool,
    attach_timeout: Duration,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl NotifySource {
    /// Starts listening in the background; notifications go to `publisher`.
    ///
    /// Does not wait for the database, which may be down: [`NotifySource::status`] tells. Must be
    /// called inside a Tokio runtime.
    pub fn start(target: Target, publisher: Publisher, options: NotifyOptions) -> Self {
        let always = options.always.into_iter().map(|topic| topic.name().into());
        let shared = Arc::new(Shared::new(Channels::new(options.channel_limit, always)));
        let pool = Pool::new(&target, options.pool_size, POOL_PATIENCE, STATEMENT_LIMIT);
        let stop = CancellationToken::new();
        let listener = Listener {
            target,
            pool: pool.clone(),
            publisher,
            shared: Arc::clone(&shared),
            stop: stop.clone(),
            ping_interval: options.ping_interval,
            answer_timeout: options.answer_timeout,
            complaints: Sparing::new(),
        };
        let task = Mutex::new(Some(tokio::spawn(listener.run())));
        Self { shared, pool, attach_timeout: options.attach_timeout, stop, task }
    }

    /// How listening goes.
    pub fn status(&self) -> NotifyStatus {
        self.shared.status()
    }

    /// What is counted.
    pub fn metrics(&self) -> &NotifyMetrics {
        &self.shared.metrics
    }

    /// Ends listening and closes the connection. Further attaches are refused after their timeout.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the listening task failed");
        }
    }
}

impl Drop for NotifySource {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// Says `payload` on a channel once, over a connection of its own; for command lines.
///
/// # Errors
/// A refusal that says what is wrong with the payload, or that the database cannot be reached.
pub async fn send(target: &Target, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
    let pool = Pool::new(target, 1, POOL_PATIENCE, STATEMENT_LIMIT);
    outbound::notify(&pool, topic, payload).await.map_err(|refusal| refusal.about(topic))
}

#[async_trait]
impl Upstream for NotifySource {
    /// Refused with `Unavailable` when LISTEN was not active in time, or when there are as many
    /// channels as allowed. Cancel safe: an attach that is dropped leaves nothing behind.
    async fn attach(&self, topic: &Topic) -> Result<(), Refusal> {
        let wait = self.shared.want(topic).map_err(|Full| {
            tracing::warn!(%topic, "as many NOTIFY channels as allowed are listened to");
            let message = "this server listens to as many NOTIFY channels as it may";
            Refusal::new(Code::Unavailable, message).about(topic)
        })?;
        let mut waiting = Waiting { shared: &self.shared, topic, attached: false };
        waiting.attached = matches!(timeout(self.attach_timeout, wait).await, Ok(Ok(())));
        if waiting.attached {
            return Ok(());
        }
        let message = "PostgreSQL cannot be listened to at the moment";
        Err(Refusal::new(Code::Unavailable, message).about(topic))
    }

    fn detach(&self, topic: &Topic) {
        self.shared.release(topic);
    }

    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
        outbound::notify(&self.pool, topic, payload).await.map_err(|r| r.about(topic))?;
        self.shared.metrics.sent.inc();
        Ok(())
    }
}

/// An attach that waits; it is over when this is dropped, whatever the reason.
struct Waiting<'a> {
    shared: &'a Shared,
    topic: &'a Topic,
    attached: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.settled(self.topic, self.attached);
    }
}
