//! A ring of events per topic, in this process's memory.
//!
//! All topics share one epoch, drawn when the process starts. A topic that was idle for long is
//! dropped; so that its numbers never begin again, dropped topics leave behind one number, the
//! *floor*, and every new topic begins there. A client that comes back to a dropped topic is
//! therefore told *gap* at worst, never *resumed* wrongly.

mod crowding;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::{Body, Draft, Epoch, Event, GapReason, Position, Topic};
use tokio::time::Instant;

use super::{History, HistoryLimits, Page};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::namespace::Namespaces;
use crate::topic_map::{Key, PARTS, Part, TopicMap};

/// Bytes an event costs beside its content: the event itself, its place in the ring, and the
/// allocator's own.
const EVENT_OVERHEAD: usize = 200;

/// Bytes a topic costs beside its events and its name: its ring, its lock, and its place in the
/// map, which grows by doubling.
const TOPIC_OVERHEAD: usize = 400;

/// A topic that is listened to is read four times a minute, so one that nobody read for so long
/// has no listeners.
const UNHEARD: Duration = Duration::from_secs(60);

/// Topics that an append looks at, at most, to make room for its own event: more would be slow,
/// and one of so many almost always has something to give.
const TOPICS_TO_CLEAR: usize = 1_000;

/// How much memory all topics together may use, and when an idle topic is forgotten.
#[derive(Clone, Copy, Debug)]
pub struct MemorySettings {
    /// Bytes over all topics; 256 MiB by default. Events are let go of before they pass it. What
    /// topics take themselves, some 400 bytes and the name for each, comes beside it: while the
    /// sum is above the limit, topics that have no events and nobody listens to are dropped.
    pub total_bytes: usize,
    /// Topics at the same time; 500,000 by default, which take some 250 MiB beside their events.
    ///
    /// For another, some are dropped that nobody listens to and that have no events or were idle
    /// for a minute, of some part of all topics those that were idle for the longest time. Where
    /// there are none, the new one is refused; but not a table or the presence of a topic, of
    /// which there are no more than the database or the open connections make.
    pub topics: usize,
    /// A topic that was neither written nor read for so long is dropped; an hour by default, at
    /// least ten minutes, except where topics without events fill the memory.
    pub idle: Duration,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { total_bytes: 256 << 20, topics: 500_000, idle: Duration::from_secs(3_600) }
    }
}

/// Keeps the newest events of each topic in memory; lost when the process ends.
pub struct MemoryHistory {
    epoch: Epoch,
    settings: MemorySettings,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    /// The namespaces that the rings' limits are of.
    applied: Mutex<Arc<Namespaces>>,
    topics: TopicMap<Arc<Mutex<Ring>>>,
    /// The part of the map that is cleared next.
    turn: AtomicUsize,
    /// Highest number of any dropped topic.
    floor: AtomicU64,
    /// Of events.
    bytes: AtomicUsize,
    /// Of topics themselves.
    topic_bytes: AtomicUsize,
    /// How many topics there are.
    count: AtomicUsize,
    /// No topic could be dropped for another when all were last looked at; until the next tick.
    crowded: AtomicBool,
    metrics: Metrics,
}

type Shard = RwLock<Part<Arc<Mutex<Ring>>>>;

/// A topic and its ring.
type Found = (Topic, Arc<Mutex<Ring>>);

struct Ring {
    events: VecDeque<Arc<Event>>,
    head: u64,
    bytes: usize,
    limits: HistoryLimits,
    used: Instant,
    /// When somebody last asked about it; never, where it was only spoken on.
    read: Option<Instant>,
}

impl MemoryHistory {
    /// An empty history with limits per topic from `namespaces`.
    pub fn new(settings: MemorySettings, namespaces: Arc<RwLock<Arc<Namespaces>>>) -> Self {
        let applied = Mutex::new(Arc::clone(&namespaces.read()));
        Self {
            epoch: Epoch(getrandom::u64().expect("the system has randomness")),
            settings,
            namespaces,
            applied,
            topics: TopicMap::default(),
            turn: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            topic_bytes: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            metrics: Metrics::default(),
        }
    }

    /// The same, with its sizes in `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Bytes in use over all topics: their events, and beside them the topics themselves.
    pub fn bytes(&self) -> (usize, usize) {
        (self.event_bytes(), self.topic_bytes.load(Ordering::Relaxed))
    }

    fn event_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Topics in memory.
    pub fn topics(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets go of events that are too old and of topics that were idle for too long, and of the
    /// older half of each topic's events while the total is above nine tenths of its limit.
    ///
    /// Called about once a second by the node.
    pub fn sweep(&self) {
        self.apply_namespaces();
        let target = self.settings.total_bytes / 10 * 9;
        let (events, topics) = self.bytes();
        let keep = Keep {
            short: events + topics > target,
            idle: self.settings.idle.max(Duration::from_secs(600)),
        };
        let (now, wall) = (Instant::now(), now_ms());
        for shard in self.topics.parts() {
            self.sweep_shard(shard, now, wall, keep);
        }
        self.crowded.store(false, Ordering::Relaxed);
        let topics = self.topic_bytes.load(Ordering::Relaxed);
        self.clear(usize::MAX, target.saturating_sub(topics), None);
    }

    /// Other rules than last time hold for topics that are here already, too.
    fn apply_namespaces(&self) {
        let namespaces = Arc::clone(&self.namespaces.read());
        let mut applied = self.applied.lock();
        if Arc::ptr_eq(&applied, &namespaces) {
            return;
        }
        for shard in self.topics.parts() {
            for (key, ring) in shard.read().iter() {
                let mut ring = ring.lock();
                ring.limits = namespaces.history(&key.topic);
                let freed = ring.trim(now_ms());
                self.bytes.fetch_sub(freed, Ordering::Relaxed);
            }
        }
        *applied = namespaces;
    }

    fn sweep_shard(&self, shard: &Shard, now: Instant, wall: u64, keep: Keep) {
        let mut dead = Vec::new();
        for (key, ring) in shard.read().iter() {
            let mut ring = ring.lock();
            let freed = ring.expire(wall);
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
            if keep.lets_go_of(&ring, now) {
                dead.push(key.clone());
            }
        }
        for key in dead {
            self.forget(shard, &key, |ring| keep.lets_go_of(ring, now));
        }
    }

    /// Drops a topic if it still may go; whether it went.
    fn forget(&self, shard: &Shard, key: &Key, may_go: impl FnOnce(&Ring) -> bool) -> bool {
        let mut topics = shard.write();
        let Some(ring) = topics.get(key) else { return false };
        // Whoever holds the ring outside the map's lock may be about to append to it.
        if Arc::strong_count(ring) > 1 {
            return false;
        }
        let (head, freed) = {
            let ring = ring.lock();
            if !may_go(&ring) {
                return false;
            }
            (ring.head, ring.bytes)
        };
        self.floor.fetch_max(head, Ordering::AcqRel);
        topics.remove(key);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.topic_bytes.fetch_sub(topic_cost(&key.topic), Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Halves topic after topic, about `topics` of them, until their events are not above
    /// `target`; another call goes on where this one ended. One may be spared.
    fn clear(&self, topics: usize, target: usize, spared: Option<&Arc<Mutex<Ring>>>) {
        let mut cleared = 0;
        for _ in 0..PARTS {
            if self.event_bytes() <= target || cleared >= topics {
                return;
            }
            let part = self.turn.fetch_add(1, Ordering::Relaxed) % PARTS;
            let rings = self.topics.parts()[part].read();
            cleared += rings.len();
            let others =
                rings.values().filter(|ring| !spared.is_some_and(|it| Arc::ptr_eq(it, ring)));
            for ring in others {
                let mut ring = ring.lock();
                let keep = ring.events.len() / 2;
                let freed = ring.shrink_to(keep);
                self.bytes.fetch_sub(freed, Ordering::Relaxed);
            }
        }
    }

    /// The topic's ring, made if there is none.
    ///
    /// # Errors
    /// When there are as many topics as there may be.
    fn ring(&self, topic: &Topic) -> Result<Arc<Mutex<Ring>>, Error> {
        if self.is_full() {
            if let Some(ring) = self.topics.get(topic) {
                return Ok(ring);
            }
            self.make_place_for(topic)?;
        }
        Ok(self.topics.get_or_insert_with(topic, || {
            self.topic_bytes.fetch_add(topic_cost(topic), Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
            let head = self.floor.load(Ordering::Acquire);
            let limits = self.namespaces.read().history(topic);
            Arc::new(Mutex::new(Ring::new(head, limits)))
        }))
    }

    /// The topic's ring, or what it would be: to ask about a topic does not make one.
    fn ring_to_read(&self, topic: &Topic) -> Arc<Mutex<Ring>> {
        self.topics.get(topic).unwrap_or_else(|| {
            let head = self.floor.load(Ordering::Acquire);
            Arc::new(Mutex::new(Ring::new(head, HistoryLimits::default())))
        })
    }

    fn append_one(
        &self,
        draft: Draft,
        now: (u64, Instant),
        last: &mut Option<Found>,
    ) -> Result<Arc<Event>, Error> {
        let found = match last.take().filter(|(topic, _)| *topic == draft.topic) {
            Some(found) => found,
            None => (draft.topic.clone(), self.ring(&draft.topic)?),
        };
        let (_, ring) = last.insert(found);
        let event = self.push(&mut ring.lock(), draft, now);
        if self.excess() > 0 {
            self.make_room(ring);
        }
        Ok(event)
    }

    fn push(&self, ring: &mut Ring, draft: Draft, (at, now): (u64, Instant)) -> Arc<Event> {
        ring.used = now;
        let position = Position { epoch: self.epoch, seq: ring.head + 1 };
        let event = Arc::new(Event::new(draft, position, at));
        ring.head = position.seq;
        self.bytes.fetch_add(cost(&event), Ordering::Relaxed);
        ring.push(Arc::clone(&event));
        let mut freed = ring.trim(at);
        // A large topic pays for its own events; its newest is kept if others can make room.
        let newest = ring.events.len().min(1);
        freed += ring.free(self.excess().saturating_sub(freed), newest);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        event
    }

    fn excess(&self) -> usize {
        self.event_bytes().saturating_sub(self.settings.total_bytes)
    }

    /// Others make room for a small topic's event; when they cannot, it is not kept.
    fn make_room(&self, ring: &Arc<Mutex<Ring>>) {
        self.clear(TOPICS_TO_CLEAR, self.settings.total_bytes, Some(ring));
        let excess = self.excess();
        if excess > 0 {
            let freed = ring.lock().free(excess, 0);
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    fn at(&self, seq: u64) -> Position {
        Position { epoch: self.epoch, seq }
    }
}

/// Which topics without events are kept.
#[derive(Clone, Copy)]
struct Keep {
    /// Memory is short.
    short: bool,
    /// How long an idle topic is kept.
    idle: Duration,
}

impl Keep {
    fn lets_go_of(self, ring: &Ring, now: Instant) -> bool {
        let idle = now.duration_since(ring.used) > self.idle;
        ring.events.is_empty() && (idle || self.short && ring.is_unheard(now))
    }
}

impl Ring {
    fn new(head: u64, limits: HistoryLimits) -> Self {
        Self { events: VecDeque::new(), head, bytes: 0, limits, used: Instant::now(), read: None }
    }

    /// Somebody asks about the topic.
    fn hear(&mut self) {
        self.used = Instant::now();
        self.read = Some(self.used);
    }

    /// Whether nobody listens.
    fn is_unheard(&self, now: Instant) -> bool {
        self.read.is_none_or(|read| now.duration_since(read) > UNHEARD)
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.events.push_back(event);
    }

    /// Lets go of the oldest event; returns the bytes freed.
    fn pop(&mut self) -> usize {
        let Some(event) = self.events.pop_front() else { return 0 };
        let freed = cost(&event);
        self.bytes -= freed;
        freed
    }

    fn trim(&mut self, wall: u64) -> usize {
        let mut freed = self.expire(wall);
        while self.events.len() > self.limits.events || self.bytes > self.limits.bytes {
            freed += self.pop();
        }
        freed
    }

    fn expire(&mut self, wall: u64) -> usize {
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let oldest = wall.saturating_sub(age);
        let mut freed = 0;
        while self.events.front().is_some_and(|event| event.at < oldest) {
            freed += self.pop();
        }
        freed
    }

    /// Lets go of at least so many bytes, if there are that many before the last `keep` events.
    fn free(&mut self, bytes: usize, keep: usize) -> usize {
        let mut freed = 0;
        while freed < bytes && self.events.len() > keep {
            freed += self.pop();
        }
        freed
    }

    fn shrink_to(&mut self, keep: usize) -> usize {
        let mut freed = 0;
        while self.events.len() > keep {
            freed += self.pop();
        }
        freed
    }

    /// The number before the oldest event kept.
    fn base(&self) -> u64 {
        self.head - self.events.len() as u64
    }

    /// Why events right after `seq` cannot be had, if so.
    fn lost(&self, seq: u64) -> Option<GapReason> {
        if seq > self.head {
            return Some(GapReason::PositionUnknown);
        }
        (seq < self.base()).then_some(GapReason::HistoryTrimmed)
    }
}

/// What an event counts of a topic's limit of bytes.
pub(crate) fn cost(event: &Event) -> usize {
    // A presence diff is shared with the roster's flush, but counted whole: better too much.
    let content = match &event.body {
        Body::Gap(_) => 0,
        Body::Message(_) | Body::Presence(_) | Body::Change(_) => event.content_bytes(),
    };
    content + overhead(&event.topic)
}

/// What each event of a topic counts beside its content.
pub(crate) fn overhead(topic: &Topic) -> usize {
    topic.name().len() + EVENT_OVERHEAD
}

fn topic_cost(topic: &Topic) -> usize {
    topic.name().len() + TOPIC_OVERHEAD
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl History for MemoryHistory {
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>> {
        let (at, now) = (now_ms(), Instant::now());
        // Most drafts that come together are of one topic, which is then looked for once.
        let mut last = None;
        drafts.into_iter().map(|draft| self.append_one(draft, (at, now), &mut last)).collect()
    }

    async fn read(&self, topic: &Topic, after: Position, limit: usize) -> Result<Page, Error> {
        let ring = self.ring_to_read(topic);
        let mut ring = ring.lock();
        ring.hear();
        let head = self.at(ring.head);
        if after.epoch != self.epoch {
            return Ok(Page::Lost { head, reason: GapReason::EpochChanged });
        }
        if let Some(reason) = ring.lost(after.seq) {
            return Ok(Page::Lost { head, reason });
        }
        let from = (after.seq - ring.base()) as usize;
        Ok(Page::Events(ring.events.iter().skip(from).take(limit).cloned().collect()))
    }

    async fn read_back(
        &self,
        topic: &Topic,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error> {
        let ring = self.ring_to_read(topic);
        let mut ring = ring.lock();
        ring.hear();
        let head = self.at(ring.head);
        let before = before.unwrap_or(head.next());
        if before.epoch != self.epoch {
            return Ok(Page::Lost { head, reason: GapReason::EpochChanged });
        }
        if before.seq > ring.head + 1 {
            return Ok(Page::Lost { head, reason: GapReason::PositionUnknown });
        }
        let end = before.seq.saturating_sub(1).saturating_sub(ring.base()) as usize;
        let newest_first = ring.events.iter().take(end).rev().take(limit).cloned();
        Ok(Page::Events(newest_first.collect()))
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Error> {
        let ring = self.ring(topic)?;
        let mut ring = ring.lock();
        ring.hear();
        Ok(self.at(ring.head))
    }

    fn tick(&self) {
        self.sweep();
        let (events, topics) = self.bytes();
        self.metrics.history_bytes.set((events + topics) as i64);
        self.metrics.history_topics.set(self.topics() as i64);
    }

    async fn earliest(&self, topic: &Topic) -> Result<Position, Error> {
        let ring = self.ring_to_read(topic);
        let mut ring = ring.lock();
        ring.hear();
        Ok(self.at(ring.base()))
    }
}
