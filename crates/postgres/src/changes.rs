//! Where changes of rows come from: one interface for the write-ahead log and the outbox.
//!
//! Both give the same events for the same workload: values as `to_jsonb` gives them, transactions
//! in commit order, the publisher as the one way in.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tidewire_protocol::{Refusal, Topic};

/// A source of row changes that runs in tasks of its own.
///
/// Implementers promise: changes of an added table are published on its topic as
/// [`Draft::change`](tidewire_protocol::Draft::change), in commit order and each transaction
/// together; when some may have been missed, [`GapReason`](tidewire_protocol::GapReason) is said
/// on every added table before anything newer; nothing the source does makes a user's write fail.
#[async_trait]
pub(crate) trait ChangeSource: Send + Sync + 'static {
    /// Returns once every change of the table that commits from now on will be published.
    /// Harmless for a table that was added already.
    ///
    /// # Errors
    /// A refusal for the client that asked: no such table, no replica identity (with the exact
    /// statement that mends it), no rights, or a database that is down for longer than a few
    /// seconds.
    async fn add(&self, table: &Topic) -> Result<(), Refusal>;

    /// Nobody on this node listens to the table any more.
    fn remove(&self, table: &Topic);

    /// The table is followed no longer, although somebody may listen: its changes stop within a
    /// second, until it is added again.
    fn let_go(&self, table: &Topic);

    /// Returns once every change that any query sent before this call could have seen was
    /// published.
    ///
    /// # Errors
    /// When that takes longer than a few seconds, or the database is down.
    async fn catch_up(&self) -> Result<(), Refusal>;

    /// How it is.
    fn status(&self) -> SourceStatus;

    /// Ends the source's tasks and lets go of what it holds in the database.
    async fn shutdown(&self);
}

/// How a source of row changes is.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// `wal` or `outbox`.
    pub name: &'static str,
    /// Whether changes flow.
    pub connected: bool,
    /// Since when.
    pub since: SystemTime,
    /// Why not, if they do not; without secrets.
    pub last_error: Option<String>,
    /// The tables added.
    pub tables: usize,
}

/// A source, shared.
pub(crate) type SharedSource = Arc<dyn ChangeSource>;
