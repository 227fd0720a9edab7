//! What is kept of which topic, and where: heads, places in the log, and the newest events
//! themselves while there is memory for them.
//!
//! One thread writes it, the history's own; many read it. No lock is held for longer than a page of
//! pointers takes to copy.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tidewire::history::{HistoryLimits, Page};
use tidewire_protocol::{Epoch, Event, GapReason, Position, Topic, TopicKind};
use tokio::time::Instant;

use super::log::Place;

/// Locks over the map of topics.
const SHARDS: usize = 64;

/// One event that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The record it is in.
    pub(super) place: Place,
    /// Bytes it counts for, to the topic's limit.
    pub(super) cost: u32,
    pub(super) at: u64,
}

/// What is kept of one topic.
pub(super) struct Ring {
    /// Oldest first; the last is that of the head, where it is kept.
    pub(super) slots: VecDeque<Slot>,
    /// The newest of these events, as far as they are in memory.
    pub(super) recent: VecDeque<Arc<Event>>,
    pub(super) head: u64,
    pub(super) bytes: u64,
    pub(super) limits: HistoryLimits,
    pub(super) used: Instant,
    /// The newest segment that tells the head; `None` when it is told nowhere.
    pub(super) noted: Option<u32>,
}

/// A part of the map of topics.
pub(super) type Shard = HashMap<Topic, Ring>;

/// All topics.
pub(super) struct Index {
    pub(super) epoch: Epoch,
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Where topics begin of which nothing is known: no number of a topic that was forgotten is
    /// above it.
    floor: AtomicU64,
    /// Topics there are, and may be.
    count: AtomicUsize,
    pub(super) most: usize,
}

/// What a reader finds.
pub(super) enum Found {
    /// All of it.
    Page(Page),
    /// Some has to be fetched first; the rest, which is newer, is here.
    Fetch {
        /// With their numbers, oldest first.
        slots: Vec<(u64, Slot)>,
        recent: Vec<Arc<Event>>,
    },
}

impl Ring {
    pub(super) fn new(head: u64, limits: HistoryLimits) -> Self {
        Self {
            slots: VecDeque::new(),
            recent: VecDeque::new(),
            head,
            bytes: 0,
            limits,
            used: Instant::now(),
            noted: None,
        }
    }

    /// The number before the oldest event kept.
    pub(super) fn base(&self) -> u64 {
        self.head - self.slots.len() as u64
    }

    /// Lets go of the oldest event, and of its place in memory.
    pub(super) fn pop(&mut self) -> Option<(Slot, Option<Arc<Event>>)> {
        let slot = self.slots.pop_front()?;
        self.bytes -= u64::from(slot.cost);
        let in_memory = self.recent.len() > self.slots.len();
        Some((slot, in_memory.then(|| self.recent.pop_front()).flatten()))
    }

    /// Whether the oldest event is more than the limits allow.
    pub(super) fn is_over(&self, now: u64) -> bool {
        let Some(oldest) = self.slots.front() else { return false };
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        self.slots.len() > self.limits.events
            || self.bytes > self.limits.bytes as u64
            || oldest.at < now.saturating_sub(age)
    }

    /// Why events right after `seq` cannot be had, if so.
    fn lost(&self, seq: u64) -> Option<GapReason> {
        if seq > self.head {
            return Some(GapReason::PositionUnknown);
        }
        (seq < self.base()).then_some(GapReason::HistoryTrimmed)
    }

    /// Events with numbers from `first` on, `count` of them, all of which are kept.
    fn find(&self, first: u64, count: usize) -> Found {
        let from = (first - self.base() - 1) as usize;
        let fetched = (self.slots.len() - self.recent.len()).saturating_sub(from).min(count);
        let slots = self.slots.range(from..from + fetched).copied();
        let slots: Vec<_> = (first..).zip(slots).collect();
        let skipped = (from + fetched).saturating_sub(self.slots.len() - self.recent.len());
        let recent: Vec<_> =
            self.recent.iter().skip(skipped).take(count - fetched).cloned().collect();
        match slots.is_empty() {
            true => Found::Page(Page::Events(recent)),
            false => Found::Fetch { slots, recent },
        }
    }
}

impl Index {
    pub(super) fn new(epoch: Epoch, floor: u64, most: usize) -> Self {
        Self {
            epoch,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            floor: AtomicU64::new(floor),
            count: AtomicUsize::new(0),
            most,
        }
    }

    /// Topics that are remembered.
    pub(super) fn topics(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether another topic would be one too many. Tables are no more than the database has.
    pub(super) fn is_crowded(&self, another: &Topic) -> bool {
        another.kind() != TopicKind::Table && self.topics() >= self.most
    }

    /// Puts a ring into its part of the map.
    pub(super) fn insert<'s>(
        &self,
        shard: &'s mut Shard,
        topic: &Topic,
        ring: Ring,
    ) -> &'s mut Ring {
        self.count.fetch_add(1, Ordering::Relaxed);
        shard.entry(topic.clone()).insert_entry(ring).into_mut()
    }

    /// Takes a ring out of its part of the map.
    pub(super) fn remove(&self, shard: &mut Shard, topic: &Topic) {
        if shard.remove(topic).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The part of the map that a topic is in.
    pub(super) fn shard(&self, topic: &Topic) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(topic) as usize % SHARDS].lock()
    }

    /// All parts, one after another.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock())
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Raises the floor; it must have been written down before.
    pub(super) fn raise_floor(&self, floor: u64) {
        self.floor.fetch_max(floor, Ordering::AcqRel);
    }

    pub(super) fn at(&self, seq: u64) -> Position {
        Position { epoch: self.epoch, seq }
    }

    /// The place after the newest event; from now on the topic is remembered for a while. `None`
    /// when it is a new one, and there are as many as may be.
    pub(super) fn head(
        &self,
        topic: &Topic,
        limits: impl FnOnce() -> HistoryLimits,
    ) -> Option<Position> {
        let mut shard = self.shard(topic);
        if let Some(ring) = shard.get_mut(topic) {
            ring.used = Instant::now();
            return Some(self.at(ring.head));
        }
        if self.is_crowded(topic) {
            return None;
        }
        let ring = self.insert(&mut shard, topic, Ring::new(self.floor(), limits()));
        Some(self.at(ring.head))
    }

    /// The place after the newest event, of a topic that need not be remembered.
    pub(super) fn head_now(&self, topic: &Topic) -> Position {
        self.at(self.shard(topic).get(topic).map_or(self.floor(), |ring| ring.head))
    }

    /// The place before the oldest event.
    pub(super) fn earliest(&self, topic: &Topic) -> Position {
        let mut shard = self.shard(topic);
        let Some(ring) = shard.get_mut(topic) else { return self.at(self.floor()) };
        ring.used = Instant::now();
        self.at(ring.base())
    }

    /// At most `limit` events after a place.
    pub(super) fn find(&self, topic: &Topic, after: Position, limit: usize) -> Found {
        self.look(topic, |ring| {
            if let Some(lost) = self.lost(ring, after, ring.lost(after.seq)) {
                return lost;
            }
            let count = usize::try_from(ring.head - after.seq).unwrap_or(usize::MAX).min(limit);
            ring.find(after.seq + 1, count)
        })
    }

    /// At most `limit` events before a place, oldest first all the same.
    pub(super) fn find_back(&self, topic: &Topic, before: Option<Position>, limit: usize) -> Found {
        self.look(topic, |ring| {
            let before = before.unwrap_or(self.at(ring.head).next());
            let unknown = (before.seq > ring.head + 1).then_some(GapReason::PositionUnknown);
            if let Some(lost) = self.lost(ring, before, unknown) {
                return lost;
            }
            let end = before.seq.saturating_sub(1).max(ring.base());
            let count = usize::try_from(end - ring.base()).unwrap_or(usize::MAX).min(limit);
            ring.find(end - count as u64 + 1, count)
        })
    }

    /// Looks at a topic's ring, or at what it would be: to ask about a topic does not make one.
    fn look(&self, topic: &Topic, look: impl FnOnce(&Ring) -> Found) -> Found {
        let mut shard = self.shard(topic);
        match shard.get_mut(topic) {
            Some(ring) => {
                ring.used = Instant::now();
                look(ring)
            }
            None => look(&Ring::new(self.floor(), HistoryLimits::default())),
        }
    }

    fn lost(&self, ring: &Ring, place: Position, reason: Option<GapReason>) -> Option<Found> {
        let reason = match place.epoch == self.epoch {
            true => reason,
            false => Some(GapReason::EpochChanged),
        };
        let head = self.at(ring.head);
        reason.map(|reason| Found::Page(Page::Lost { head, reason }))
    }
}
