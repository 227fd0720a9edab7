//! The stream of the write-ahead log: a task that owns the socket, and a queue of bounded size.
//!
//! The task reads as long as there is room, and tells the server how far we are: at once when the
//! server asks, soon after a batch was kept, and every ten seconds. That does not stop while the
//! queue is full, because a server that hears nothing ends the stream, and one that shuts down
//! waits for us. What came is handed out in the order it came.

mod copier;
mod pace;
mod pause;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use copier::Copier;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::{WalError, WalErrorKind};
use super::pgoutput::Lsn;
use crate::connect::replication::Line;

/// Room in the queue is counted in units of this many bytes.
const UNIT: usize = 1024;

/// How a stream behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamOptions {
    /// Bytes that may wait to be processed.
    pub(super) queue_bytes: usize,
    /// Largest message that is kept.
    pub(super) row_bytes: usize,
    /// Silence after which the server is asked for a sign of life.
    pub(super) silence: Duration,
    /// How long its answer, or any write, may take.
    pub(super) answer_timeout: Duration,
    /// How long the queue may be full.
    pub(super) stall_limit: Duration,
}

/// One thing that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A message of pgoutput.
    Data(Bytes),
    /// A message that was too large: its beginning, and how many bytes are missing.
    Oversized(Bytes, usize),
    /// Everything that committed before this place was sent.
    Sent(Lsn),
}

impl Item {
    /// Bytes that came of the log's message.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Data(bytes) | Self::Oversized(bytes, _) => bytes.len() as u64,
            Self::Sent(_) => 0,
        }
    }
}

/// Things that came, in order; their room in the queue is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Batch {
    items: Vec<Item>,
    _room: OwnedSemaphorePermit,
}

impl Batch {
    /// What came; its room stays taken.
    pub(super) fn take(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.items)
    }
}

/// What is told to the server.
#[derive(Debug, Default)]
struct Feedback {
    confirmed: AtomicU64,
    /// Whether the server should say how far it is.
    ask: AtomicBool,
    changed: Notify,
    /// Rises while what was read is worked on, however long that takes.
    moved: AtomicU64,
}

/// Tells a stream that what it read is being worked on, so that it is not given up for standing
/// still.
#[derive(Debug, Default)]
pub(super) struct Pulse(Arc<Feedback>);

impl Pulse {
    pub(super) fn moved(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running stream; it ends when dropped.
pub(super) struct Stream {
    batches: mpsc::Receiver<Result<Batch, WalError>>,
    feedback: Arc<Feedback>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Stream {
    /// Takes over a line on which copying has begun; `from` is what was confirmed already.
    pub(super) fn start(line: Line, from: Lsn, options: StreamOptions) -> Self {
        let feedback = Arc::new(Feedback::default());
        feedback.confirmed.store(from.0, Ordering::Release);
        // The smallest batch takes one unit of room, so who has room has a place in the queue.
        let capacity = units(options.queue_bytes);
        let (sender, batches) = mpsc::channel(capacity);
        let stop = CancellationToken::new();
        let room = Arc::new(Semaphore::new(capacity));
        let copier = Copier::new(line, Arc::clone(&feedback), sender, room, stop.clone(), options);
        let task = tokio::spawn(copier.run());
        Self { batches, feedback, stop, task }
    }

    /// Waits for what comes next. Cancel safe.
    ///
    /// # Errors
    /// When the stream has ended, why.
    pub(super) async fn next(&mut self) -> Result<Batch, WalError> {
        self.batches.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// What is there already.
    pub(super) fn try_next(&mut self) -> Option<Result<Batch, WalError>> {
        self.batches.try_recv().ok()
    }

    /// For those who work on what it reads.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.feedback))
    }

    /// Everything before this place is kept, so the server need not keep it for us.
    pub(super) fn confirm(&self, lsn: Lsn) {
        if self.feedback.confirmed.fetch_max(lsn.0, Ordering::AcqRel) < lsn.0 {
            self.feedback.changed.notify_one();
        }
    }

    /// Asks the server how far it is; the answer is an [`Item::Sent`].
    pub(super) fn ask(&self) {
        self.feedback.ask.store(true, Ordering::Release);
        self.feedback.changed.notify_one();
    }

    /// Ends the stream politely: the server is told how far we are and drops a temporary slot.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        self.batches.close();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the task that reads the log failed");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ended() -> WalError {
    WalError::new(WalErrorKind::Protocol, "the stream of the write-ahead log has ended")
}

/// Bytes in units, at least one.
fn units(bytes: usize) -> usize {
    (bytes / UNIT).max(1)
}
