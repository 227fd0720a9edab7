//! What happens when there are as many topics as there may be.
//!
//! Whoever may publish or listen on names of its own choice can make very many of them. Those that
//! nobody listens to make place for others; where everything is listened to or was just spoken on,
//! the new one is refused, which costs next to nothing until the next tick.

use std::sync::atomic::Ordering;

use tidewire_protocol::{Topic, TopicKind};
use tokio::time::Instant;

use super::{MemoryHistory, Ring, Shard, UNHEARD};
use crate::error::{Error, Kind};
use crate::topic_map::PARTS;

/// Of the topics of a part of the map that have events and may go, one of so many is dropped at
/// once: finding the oldest takes a look at all of them, and the next newcomers find a place
/// without.
const ONE_OF: usize = 16;

impl MemoryHistory {
    pub(super) fn is_full(&self) -> bool {
        self.topics() >= self.settings.topics
    }

    /// Drops a topic or some for a new one.
    ///
    /// # Errors
    /// When none may go and the new one must be refused.
    pub(super) fn make_place_for(&self, topic: &Topic) -> Result<(), Error> {
        if !is_named_by_clients(topic) {
            return Ok(());
        }
        if !self.crowded.load(Ordering::Relaxed) && self.displace() {
            return Ok(());
        }
        self.crowded.store(true, Ordering::Relaxed);
        self.metrics.topics_refused.inc();
        let most = self.settings.topics;
        Err(Error::new(Kind::Full, format!("all {most} topics that may be kept are in use")))
    }

    /// Drops some topics of the next part of the map that has any to drop; whether there were any.
    fn displace(&self) -> bool {
        (0..PARTS).any(|_| {
            let part = self.turn.fetch_add(1, Ordering::Relaxed) % PARTS;
            let dropped = self.displace_from(&self.topics.parts()[part]);
            self.metrics.topics_displaced.inc_by(dropped as u64);
            dropped > 0
        })
    }

    fn displace_from(&self, shard: &Shard) -> usize {
        let now = Instant::now();
        let (mut going, mut idle) = (Vec::new(), Vec::new());
        for (key, ring) in shard.read().iter() {
            let ring = ring.lock();
            if !may_go(&ring, now) {
                continue;
            }
            if ring.events.is_empty() {
                going.push(key.clone());
            } else {
                idle.push((ring.used, key.clone()));
            }
        }
        if going.is_empty() && !idle.is_empty() {
            let some = idle.len().div_ceil(ONE_OF);
            idle.select_nth_unstable_by_key(some - 1, |(used, _)| *used);
            going.extend(idle.drain(..some).map(|(_, key)| key));
        }
        going.iter().filter(|key| self.forget(shard, key, |ring| may_go(ring, now))).count()
    }
}

/// Whether a topic may make place for another.
fn may_go(ring: &Ring, now: Instant) -> bool {
    let silent = now.duration_since(ring.used) > UNHEARD;
    ring.is_unheard(now) && (ring.events.is_empty() || silent)
}

/// Tables are as many as the database has, and presence is of topics that somebody is on.
fn is_named_by_clients(topic: &Topic) -> bool {
    matches!(topic.kind(), TopicKind::Application | TopicKind::Notify)
}
