//! The write-ahead log as a source of row changes.
//!
//! A [`WalSource`] reads PostgreSQL's log by logical replication: it makes a publication of its own,
//! puts the tables that somebody listens to into it, and reads what a slot sends. Nothing is
//! installed in the database and writers pay nothing but a somewhat larger log.
//!
//! `stream` owns the socket, [`pgoutput`] reads messages, `assembly` makes changes of them, `tables`
//! knows what flows, `reader` is the task that joins these and `keeper` the one that looks after
//! what the stream does not tell. Transactions that are sent while they run go by `running` into
//! `spool` until they commit. `docs/row-changes.md` says what a user sees.

mod admission;
mod assembly;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod error;
mod keeper;
mod metrics;
mod partitions;
pub mod pgoutput;
mod position;
mod probe;
mod publication;
mod reader;
mod resume;
mod running;
mod shared;
mod slot;
mod spool;
mod sql_text;
mod standing;
mod stream;
mod tables;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire::Publisher;
use tidewire_protocol::{Code, Refusal, Topic, TopicKind};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::changes::{ChangeSource, SourceStatus};
use crate::connect::{Pool, Target};
pub use error::{WalError, WalErrorKind};
pub use metrics::WalMetrics;
pub(crate) use partitions::misfits;
pub(crate) use publication::partial;
use reader::Reader;
use resume::Marks;
use shared::Shared;
pub use slot::{SlotKind, SlotStatus};
use stream::StreamOptions;

/// How a [`WalSource`] behaves.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Which slot is read with. A temporary one by default.
    pub slot: SlotKind,
    /// The publication's name. By default one of our own with a random name, dropped at shutdown;
    /// with a persistent slot, the slot's name.
    pub publication: Option<String>,
    /// Most connections for statements at a time. 2 by default.
    pub pool_size: usize,
    /// How long adding a table may take before it is refused. 8 s by default.
    pub add_timeout: Duration,
    /// How long making a slot may wait for transactions that run. 20 s by default.
    pub slot_timeout: Duration,
    /// How often the publication and the slot are looked at. 5 s by default.
    pub check_interval: Duration,
    /// How long a table that nobody listens to stays published. 60 s by default: longer than a
    /// page takes to reload or a deployment to roll over.
    pub linger: Duration,
    /// How often progress that brought nothing is written down, where the history outlives the
    /// process and the slot stays, and so confirmed. 1 s by default: rarely enough that an idle
    /// night writes little, often enough that PostgreSQL need not keep much.
    pub mark_interval: Duration,
    /// Silence after which the server is asked for a sign of life. 15 s by default; the server
    /// itself gives up a silent reader after 60 s (`wal_sender_timeout`).
    pub silence: Duration,
    /// How long any answer may take before the connection is given up. 10 s by default.
    pub answer_timeout: Duration,
    /// Bytes that may wait to be processed. 16 MiB by default.
    pub queue_bytes: usize,
    /// Largest row, in bytes of the log; a larger one is a gap in its table. 64 MiB by default.
    pub row_bytes: usize,
    /// How long publishing may stand still before the stream is begun anew, because a reader that
    /// does not read holds up the server's shutdown. 60 s by default.
    pub stall_limit: Duration,
    /// Bytes of log that PostgreSQL may keep for us before we let go of the slot rather than fill
    /// its disk. 8 GiB by default; `None` for no limit.
    pub max_lag_bytes: Option<u64>,
    /// Whether transactions that outgrow `logical_decoding_work_mem` are read while they still run
    /// and kept on disk until they commit, so that one of a million rows is told at once when it
    /// does. Off by default: then PostgreSQL keeps them on its own disk.
    pub streaming: bool,
    /// Where they are kept, in files without a name. `/var/tmp` by default, which is on a disk where
    /// `/tmp` may be in memory.
    pub spool_dir: PathBuf,
    /// Whether tables with row level security are told, to whoever bypasses it. Off by default: one
    /// for which it is switched on falls silent with the next row.
    pub bypass_row_security: bool,
    /// Bytes that may be kept of all of them together. 4 GiB by default; when that is not enough,
    /// the stream begins again without streaming.
    pub spool_bytes: u64,
    /// Whether messages with the prefix `tidewire` that `tidewire.publish` did not sign are published.
    /// Off by default: any role of the database can write them with `pg_logical_emit_message`.
    pub unsigned_messages: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            slot: SlotKind::Temporary,
            publication: None,
            pool_size: 2,
            add_timeout: Duration::from_secs(8),
            slot_timeout: Duration::from_secs(20),
            check_interval: Duration::from_secs(5),
            linger: Duration::from_secs(60),
            mark_interval: Duration::from_secs(1),
            silence: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(10),
            queue_bytes: 16 << 20,
            row_bytes: 64 << 20,
            stall_limit: Duration::from_secs(60),
            max_lag_bytes: Some(8 << 30),
            streaming: false,
            spool_dir: PathBuf::from("/var/tmp"),
            spool_bytes: 4 << 30,
            bypass_row_security: false,
            unsigned_messages: false,
        }
    }
}

impl WalOptions {
    fn stream(&self) -> StreamOptions {
        StreamOptions {
            queue_bytes: self.queue_bytes,
            row_bytes: self.row_bytes,
            silence: self.silence,
            answer_timeout: self.answer_timeout,
            stall_limit: self.stall_limit,
        }
    }

    /// The publication's name, and whether it is ours alone and goes with us.
    pub(crate) fn publication_name(&self) -> (String, bool) {
        match (&self.publication, &self.slot) {
            (Some(name), _) => (name.clone(), false),
            (None, SlotKind::Persistent { name, .. }) => (name.clone(), false),
            (None, SlotKind::Temporary) => (keeper::fresh_name(), true),
        }
    }
}

/// How long to wait for a free connection for statements.
const POOL_PATIENCE: Duration = Duration::from_secs(5);

/// How long a statement of ours may take; altering a publication waits for locks on its tables.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// How long letting go of what we have in the database may take at the end.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// Reads a database's write-ahead log and publishes the changes of tables that were added.
///
/// Its tasks end with it; [`WalSource::shutdown`] ends them politely.
pub struct WalSource {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    add_timeout: Duration,
    linger: Duration,
    /// Whether the publication goes with us.
    drops_publication: bool,
}

impl WalSource {
    /// Starts reading in the background; changes go to `publisher`.
    ///
    /// Does not wait for the database, which may be down: [`WalSource::status`] tells. Must be
    /// called inside a Tokio runtime.
    pub fn start(target: Target, publisher: Publisher, options: WalOptions) -> Self {
        let (name, drops_publication) = options.publication_name();
        let pool = Pool::writing(&target, options.pool_size, POOL_PATIENCE, STATEMENT_LIMIT);
        let marks = Marks::new(&options, &publisher);
        let shared = Arc::new(Shared::new(pool, publisher, name, marks.slot().cloned()));
        let stop = CancellationToken::new();
        let (add_timeout, linger) = (options.add_timeout, options.linger);
        let keeper = options.keeper(&shared, &stop);
        let reader = Reader::new(target, Arc::clone(&shared), options, stop.clone());
        let tasks = vec![tokio::spawn(reader.run()), tokio::spawn(keeper.run())];
        let tasks = Mutex::new(tasks);
        Self { shared, stop, tasks, add_timeout, linger, drops_publication }
    }

    /// Whether the log of a database can be read: its version, `wal_level`, the role's rights, and
    /// whether a slot is free. Nothing is made or changed.
    ///
    /// # Errors
    /// Why not; [`WalError::is_unsupported`] tells whether that is for good.
    pub async fn probe(target: &Target, options: &WalOptions) -> Result<(), WalError> {
        probe::probe(target, options).await
    }

    /// Returns once every change of the table that commits from now on will be published.
    /// Harmless for a table that was added already. Cancel safe.
    ///
    /// # Errors
    /// A refusal for the client that asked: no such table, no replica identity (with the statement
    /// that mends it), no rights, a transaction that wrote to the table and does not end, or a
    /// database that is down for longer than the options allow.
    pub async fn add(&self, table: &Topic) -> Result<(), Refusal> {
        if table.kind() != TopicKind::Table {
            return Err(Refusal::new(Code::BadTopic, "only tables have rows").about(table));
        }
        // In a task of its own, so that it is finished even if the one who asked goes away.
        let admission = admission::admit(Arc::clone(&self.shared), table.clone(), self.add_timeout);
        let outcome = tokio::spawn(admission).await;
        outcome.unwrap_or_else(|_| Err(self.shared.unavailable().about(table)))
    }

    /// Nobody on this node listens to the table any more; it stays published for a while.
    pub fn remove(&self, table: &Topic) {
        self.shared.tables().release(table, Instant::now() + self.linger);
    }

    /// Returns once every change that any query sent before this call could have seen was
    /// published. Cancel safe.
    ///
    /// # Errors
    /// When that takes longer than five seconds, or the database is down.
    pub async fn catch_up(&self) -> Result<(), Refusal> {
        position::catch_up(&self.shared).await
    }

    /// How reading goes.
    pub fn status(&self) -> SourceStatus {
        self.shared.status()
    }

    /// How the slot was when last looked at.
    pub fn slot(&self) -> SlotStatus {
        self.shared.slot()
    }

    /// What is counted.
    pub fn metrics(&self) -> &WalMetrics {
        &self.shared.metrics
    }

    /// Ends the tasks, the stream with its temporary slot, and a publication of our own. A
    /// persistent slot stays, and PostgreSQL keeps its log for it.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for mut task in tasks {
            match timeout(GOODBYE_PATIENCE, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a task that reads the log failed"),
                // It waits for a history that does not answer.
                Err(_) => task.abort(),
            }
        }
        if self.drops_publication
            && timeout(GOODBYE_PATIENCE, self.drop_publication()).await.is_err()
        {
            tracing::warn!(
                publication = self.shared.publication,
                "the publication was left behind"
            );
        }
    }

    async fn drop_publication(&self) {
        let Ok(pooled) = self.shared.pool.get().await else { return };
        let name = self.shared.publication.as_str();
        let dropped = pooled.run(|client| keeper::drop_publication(client, name)).await;
        if let Some(Err(error)) = dropped {
            tracing::warn!(publication = name, %error, "the publication could not be dropped");
        }
    }
}

impl Drop for WalSource {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

#[async_trait]
impl ChangeSource for WalSource {
    async fn add(&self, table: &Topic) -> Result<(), Refusal> {
        self.add(table).await
    }

    fn remove(&self, table: &Topic) {
        self.remove(table);
    }

    fn let_go(&self, table: &Topic) {
        self.shared.tables().let_go(table, Instant::now());
    }

    async fn catch_up(&self) -> Result<(), Refusal> {
        self.catch_up().await
    }

    fn status(&self) -> SourceStatus {
        self.status()
    }

    async fn shutdown(&self) {
        self.shutdown().await;
    }
}
