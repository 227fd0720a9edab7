//! Who works the lanes of topics with many listeners.
//!
//! A queue of lanes in which something waits, each once, and some tasks that take the next one:
//! one batch to one lane, then the next lane, of whichever topic. So a topic with very many
//! listeners is written to by several threads, and one with fewer waits for a part of it at most.
//! Between two lanes a carrier lets other tasks of its thread have their turn.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::hub::{Entry, Lane};

/// Lanes to be worked, and whoever waits for some.
#[derive(Default)]
pub(crate) struct Carriers {
    queue: Mutex<VecDeque<(Arc<Entry>, Arc<Lane>)>>,
    wake: Notify,
}

impl Carriers {
    /// Has lanes worked that were not in the queue.
    pub(super) fn summon(&self, entry: &Arc<Entry>, lanes: Vec<Arc<Lane>>) {
        if lanes.is_empty() {
            return;
        }
        self.queue.lock().extend(lanes.into_iter().map(|lane| (Arc::clone(entry), lane)));
        self.wake.notify_one();
    }

    /// The next lane. Wakes another carrier if there are more, so that all come who have time.
    fn next(&self) -> Option<(Arc<Entry>, Arc<Lane>)> {
        let mut queue = self.queue.lock();
        let next = queue.pop_front()?;
        let more = !queue.is_empty();
        drop(queue);
        if more {
            self.wake.notify_one();
        }
        Some(next)
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
                // 2. Lanes must be worked.
                () = self.carriers.wake.notified() => self.work_lanes().await,
            }
        }
    }

    async fn work_lanes(&self) {
        while let Some((entry, lane)) = self.carriers.next() {
            let (delivered, again) = lane.work(self.limits.load().mailbox_bytes);
            self.count(delivered);
            if entry.lanes.is_released() {
                self.check(&entry.topic);
            }
            if again {
                // At the end, so that no topic is served before the others.
                self.carriers.summon(&entry, vec![lane]);
            }
            yield_now().await;
        }
    }
}
