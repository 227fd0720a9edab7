//! Who works the lanes of topics with many listeners.
//!
//! A queue of lanes in which something waits, each once, and some tasks that take the next one:
//! one batch to one lane, then the next lane, of whichever topic. So a topic with very many
//! listeners is written to by several threads, and one with fewer waits for a part of it at most.
//! Between two lanes a carrier lets other tasks of its thread have their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::hub::{Entry, Lane};

/// Lanes to be worked, and whoever waits for some.
pub(crate) struct Carriers {
    queue: Mutex<VecDeque<(Arc<Entry>, Arc<Lane>)>>,
    /// A permit for each lane in the queue.
    ///
    /// So that as many carriers are woken as find work, and by whoever brings it: a task that is
    /// woken by a busy one waits in a place of its thread from where no other thread takes it.
    queued: Semaphore,
    count: usize,
}

impl Carriers {
    /// So many of them; each must be run.
    pub(super) fn new(count: usize) -> Self {
        Self { queue: Mutex::default(), queued: Semaphore::new(0), count }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Has lanes worked that are not in the queue, after those that are.
    pub(super) fn summon(&self, entry: &Arc<Entry>, lanes: impl IntoIterator<Item = Arc<Lane>>) {
        let mut queue = self.queue.lock();
        let before = queue.len();
        queue.extend(lanes.into_iter().map(|lane| (Arc::clone(entry), lane)));
        let more = queue.len() - before;
        drop(queue);
        self.queued.add_permits(more);
    }

    /// Waits for the next lane. Cancel safe.
    async fn next(&self) -> Option<(Arc<Entry>, Arc<Lane>)> {
        self.queued.acquire().await.ok()?.forget();
        self.queue.lock().pop_front()
    }
}

impl Relay {
    /// One carrier's life; ends when `stop` is cancelled.
    pub(crate) async fn carry(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                // 1. The node stops.
                () = stop.cancelled() => return,
                // 2. A lane must be worked.
                next = self.carriers.next() => {
                    let Some((entry, lane)) = next else { return };
                    self.work(&entry, lane);
                }
            }
            yield_now().await;
        }
    }

    fn work(&self, entry: &Arc<Entry>, lane: Arc<Lane>) {
        let (delivered, again) = lane.work(self.limits.load().mailbox_bytes);
        self.count(delivered);
        if entry.lanes.is_released() {
            self.check(&entry.topic);
        }
        if again {
            self.carriers.summon(entry, [lane]);
        }
    }
}
