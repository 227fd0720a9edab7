//! What is kept, counted: events in each segment, events in memory; and what has to go for it.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_protocol::{Event, Topic};

use super::index::{Index, Ring, Slot};
use super::log::Log;

/// Bytes that the index takes for an event.
const SLOT_BYTES: usize = size_of::<Slot>();

/// Bytes that the index takes for a topic: its rings, its name, its place in the map.
const TOPIC_BYTES: usize = 450;

/// Bytes that the places of events may take however little memory is allowed: some 40,000 events,
/// without which there would be nothing to keep on the disk.
const SMALLEST_INDEX: usize = 1 << 20;

/// Counts of what is kept; only the writing thread has them.
#[derive(Default)]
pub(super) struct Books {
    /// Bytes of memory for all.
    pub(super) limit: usize,
    slots: usize,
    /// Events in memory, and their bytes.
    cached: usize,
    cached_bytes: usize,
    /// Topic and number of each event in memory, oldest first, and of some that are not any more.
    order: VecDeque<(Topic, u64)>,
}

impl Books {
    pub(super) fn new(limit: usize, index: &Index) -> Self {
        let mut slots = 0;
        for shard in index.shards() {
            slots += shard.values().map(|ring| ring.slots.len()).sum::<usize>();
        }
        Self { limit, slots, ..Self::default() }
    }

    /// Events that are kept.
    pub(super) fn events(&self) -> usize {
        self.slots
    }

    /// Bytes of memory in use.
    pub(super) fn memory(&self, index: &Index) -> usize {
        self.cached_bytes + self.slots * SLOT_BYTES + index.topics() * TOPIC_BYTES
    }

    /// Whether places of events alone take more than half of the memory.
    pub(super) fn is_index_large(&self) -> bool {
        self.slots * SLOT_BYTES > (self.limit / 2).max(SMALLEST_INDEX)
    }

    /// An event was put into a ring.
    pub(super) fn add(&mut self, log: &mut Log, event: &Arc<Event>, slot: Slot) {
        let segment = log.newest_mut();
        segment.events += 1;
        segment.live += 1;
        self.slots += 1;
        self.cached += 1;
        self.cached_bytes += slot.cost as usize;
        self.order.push_back((event.topic.clone(), event.position.seq));
    }

    /// Lets go of what is more than a ring's limits allow.
    pub(super) fn trim(&mut self, log: &mut Log, ring: &mut Ring, now: u64) {
        while ring.is_over(now) {
            self.pop(log, ring);
        }
    }

    /// Lets go of a ring's oldest event.
    pub(super) fn pop(&mut self, log: &mut Log, ring: &mut Ring) {
        let Some((slot, event)) = ring.pop() else { return };
        if let Some(segment) = log.segments.get_mut(&slot.place.segment) {
            segment.live -= 1;
        }
        self.slots -= 1;
        if event.is_some() {
            self.uncache(&slot);
        }
    }

    fn uncache(&mut self, slot: &Slot) {
        self.cached -= 1;
        self.cached_bytes -= slot.cost as usize;
    }

    /// Lets go of the oldest events in memory until they fit; they stay on disk.
    pub(super) fn evict(&mut self, index: &Index) {
        while self.cached > 0 && self.memory(index) > self.limit {
            let Some((topic, seq)) = self.order.pop_front() else { break };
            let mut shard = index.shard(&topic);
            let Some(ring) = shard.get_mut(&topic) else { continue };
            if ring.recent.front().is_some_and(|event| event.position.seq == seq) {
                let slot = ring.slots[ring.slots.len() - ring.recent.len()];
                ring.recent.pop_front();
                self.uncache(&slot);
            }
        }
        self.tidy(index);
    }

    /// Forgets the order of events that are not in memory any more, once they are most of it.
    fn tidy(&mut self, index: &Index) {
        if self.order.len() / 2 <= self.cached.max(1_000) {
            return;
        }
        self.order.retain(|(topic, seq)| {
            let shard = index.shard(topic);
            let oldest = shard.get(topic).and_then(|ring| ring.recent.front());
            oldest.is_some_and(|oldest| oldest.position.seq <= *seq)
        });
    }
}
