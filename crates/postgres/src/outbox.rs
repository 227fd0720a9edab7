//! Row changes from triggers, for databases without logical decoding.
//!
//! Triggers write each change into an unlogged table, the outbox, in the transaction that made it.
//! One reader per database polls what became visible between two snapshots, which is exact: no
//! change is skipped because an older transaction commits later, and a long transaction delays
//! nobody but itself. While the reader sleeps, writers wake it; while it is awake, they need not.
//!
//! `window` knows what was told of a poll, `place` where to go on and whether that can be, `pace` when
//! to look, `relations` what tables look like; these are pure. `reader` waits, over `link`, and
//! `teller` hands over. Where the history outlives the process, what was told and how far it is are
//! kept together (`marks`), so a restart repeats nothing and misses nothing that is still in the
//! outbox. The SQL is in [`crate::sql`].
//! Guide: `docs/row-changes.md`.

mod enabling;
mod link;
pub(crate) mod marks;
mod metrics;
mod pace;
mod place;
mod reader;
mod recording;
mod relations;
mod shared;
mod teller;
mod window;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire::Publisher;
use tidewire_protocol::{Code, Refusal, Topic};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::changes::{ChangeSource, SourceStatus};
use crate::connect::{Pool, Target};
pub use metrics::OutboxMetrics;
use reader::Reader;
use recording::Recording;
use shared::Shared;

/// How an [`OutboxSource`] behaves.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// Whether it may install the outbox and switch tables on when somebody listens to them; true
    /// by default. If not, `tidewire sql install` and `enable_realtime` do.
    pub install: bool,
    /// Pause between two polls while changes come; 10 ms by default, and so half of that is what
    /// a change waits on average. When nothing happens there are no polls but one a second.
    pub poll_interval: Duration,
    /// How long a table is followed after its last listener left, and after the start where it was
    /// followed before, so that who comes back misses nothing; a minute by default.
    pub linger: Duration,
    /// How long [`OutboxSource::add`] waits in all; 10 s by default.
    pub add_timeout: Duration,
    /// How long [`OutboxSource::catch_up`] waits; 5 s by default.
    pub catch_up_timeout: Duration,
    /// Largest change or message, in bytes of its JSON, old and new row together; a larger one is a
    /// gap of its topic. 64 MiB by default, as in the write-ahead log.
    pub row_bytes: usize,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            install: true,
            poll_interval: Duration::from_millis(10),
            linger: Duration::from_secs(60),
            add_timeout: Duration::from_secs(10),
            catch_up_timeout: Duration::from_secs(5),
            row_bytes: 64 << 20,
        }
    }
}

/// How long one statement that installs or switches on may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// Connections for switching tables on; more at a time would only wait for each other's locks.
const POOL_SIZE: usize = 2;

/// Row changes from triggers. Its task ends with it; [`OutboxSource::shutdown`] ends it politely.
pub struct OutboxSource {
    shared: Arc<Shared>,
    recording: Arc<Recording>,
    options: OutboxOptions,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl OutboxSource {
    /// Starts reading in the background; changes and messages go to `publisher`.
    ///
    /// Does not wait for the database, which may be down: [`OutboxSource::status`] tells. Must be
    /// called inside a Tokio runtime.
    pub fn start(target: Target, publisher: Publisher, options: OutboxOptions) -> Self {
        let shared = Arc::new(Shared::new());
        let stop = CancellationToken::new();
        let pool = Pool::writing(&target, POOL_SIZE, options.add_timeout, STATEMENT_LIMIT);
        let recording = Arc::new(Recording::new(pool, options.install));
        let ends = (Arc::clone(&shared), Arc::clone(&recording), stop.clone());
        let reader = Reader::new(target, publisher, ends, options.clone());
        let task = Mutex::new(Some(tokio::spawn(reader.run())));
        Self { shared, recording, options, stop, task }
    }

    /// Returns once every change of the table that commits from now on will be published.
    ///
    /// A table that was not followed yet is told a gap first: what happened before is unknown.
    /// Cancel safe: the table may be followed or not then, and adding it again settles it.
    ///
    /// # Errors
    /// A refusal for the client that asked: no such table, nothing installed and no right to do
    /// it, or a database that is down.
    pub async fn add(&self, table: &Topic) -> Result<(), Refusal> {
        if self.shared.want(table) {
            return Ok(());
        }
        let added = timeout(self.options.add_timeout, self.follow(table)).await;
        added.unwrap_or_else(|_| Err(self.unavailable())).map_err(|refusal| refusal.about(table))
    }

    async fn follow(&self, table: &Topic) -> Result<(), Refusal> {
        let oid = self.recording.ensure(table).await?;
        self.shared.follow(table, oid);
        while !self.shared.want(table) {
            self.shared.next_round().await;
        }
        Ok(())
    }

    /// Nobody on this node listens to the table any more. It is followed for a while, see
    /// [`OutboxOptions::linger`]; its triggers stay.
    pub fn remove(&self, table: &Topic) {
        self.shared.release(table, Instant::now() + self.options.linger);
    }

    /// Returns once every change that any query sent before this call could have seen was
    /// published.
    ///
    /// # Errors
    /// When that takes too long, or the database is down.
    pub async fn catch_up(&self) -> Result<(), Refusal> {
        let caught_up = timeout(self.options.catch_up_timeout, self.shared.next_round()).await;
        caught_up.map_err(|_| self.unavailable())
    }

    fn unavailable(&self) -> Refusal {
        let why = self.shared.last_error();
        let why = why.unwrap_or_else(|| "PostgreSQL does not answer in time".to_owned());
        let message = format!("changes of tables cannot be followed at the moment: {why}");
        Refusal::new(Code::Unavailable, message)
    }

    /// How it is.
    pub fn status(&self) -> SourceStatus {
        self.shared.status()
    }

    /// What is counted.
    pub fn metrics(&self) -> &OutboxMetrics {
        &self.shared.metrics
    }

    /// Ends reading; the triggers stay, so changes wait in the outbox.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the task that reads the outbox failed");
        }
    }
}

impl Drop for OutboxSource {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

#[async_trait]
impl ChangeSource for OutboxSource {
    async fn add(&self, table: &Topic) -> Result<(), Refusal> {
        OutboxSource::add(self, table).await
    }

    fn remove(&self, table: &Topic) {
        OutboxSource::remove(self, table);
    }

    fn let_go(&self, table: &Topic) {
        self.shared.release(table, Instant::now());
    }

    async fn catch_up(&self) -> Result<(), Refusal> {
        OutboxSource::catch_up(self).await
    }

    fn status(&self) -> SourceStatus {
        OutboxSource::status(self)
    }

    async fn shutdown(&self) {
        OutboxSource::shutdown(self).await;
    }
}
