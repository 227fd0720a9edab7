//! When to say something that is said at a rate.

use crate::clock::{self, SECOND};
use crate::scenario::Load;
use crate::swarm::Swarm;

/// When the next publication is due, and whose it is.
pub(super) struct Pace {
    interval: f64,
    /// Topics that are spoken on, in turns.
    topics: u64,
    start: u64,
    count: u64,
    pub(super) next: u64,
}

impl Pace {
    pub(super) fn new(load: Load, topics: usize) -> Self {
        let interval = match load {
            Load::Paced(rate) => SECOND as f64 / rate,
            Load::Silence | Load::Outstanding(_) => f64::INFINITY,
        };
        let start = clock::now();
        let next = if interval.is_finite() { start } else { u64::MAX };
        Self { interval, topics: topics as u64, start, count: 0, next }
    }

    pub(super) fn schedule(&mut self, swarm: &mut Swarm, now: u64) {
        while self.next <= now {
            let topic = self.count % self.topics;
            // A topic is always published to by the same lane, for its order's sake.
            let turn = if self.topics > 1 { topic } else { self.count };
            let lane = usize::try_from(turn).unwrap_or(0) % swarm.lane_count();
            swarm.schedule(lane, u32::try_from(topic).expect("topics are few"), self.next);
            self.count += 1;
            self.next = self.start + (self.count as f64 * self.interval) as u64;
        }
    }
}
