//! From the broker to the hub, in order and without holes.
//!
//! Events of one topic always go to the same worker's inbox, and whoever has the worker's *turn*
//! hands over what is in it, so order needs no lock. The worker takes all that is ready in one go
//! and joins it per topic. A [`Cursor`] tells what is missing; that is read from the history before
//! anything after it is handed over.
//!
//! Where an event has few listeners and nothing is missing, whoever brought it takes the turn and
//! hands it over on the spot: waking another thread would cost more than the writes.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tidewire_protocol::{Audience, Body, Event, GapReason, Position, Topic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cursor::{Cursor, Step};
use crate::delivery::{BATCH_BYTES, Batch};
use crate::history::{History, Page};
use crate::hub::{Entry, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Events waiting for one worker at most; what comes beyond is dropped and found again in the
/// history. About a tenth of a second of a very busy node.
const INBOX: usize = 16_384;

/// Events read from history at a time.
const PAGE: usize = 512;

/// Listeners to whom whoever brought an event hands it over on the spot, at most.
///
/// A write into a socket takes about as long as waking a thread, and a publisher should not be
/// kept for longer than a few dozen of them.
const ON_THE_SPOT: usize = 32;

/// Hands events from the broker to the hub.
pub(crate) struct Relay {
    workers: Vec<Worker>,
    hasher: RandomState,
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    limits: Arc<arc_swap::ArcSwap<Limits>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Worker {
    inbox: Mutex<Inbox>,
    wake: Notify,
    /// Someone has the turn.
    taken: AtomicBool,
}

/// The right to hand over what is in a worker's inbox; one at a time has it. Whoever gives it back
/// looks at the inbox once more, so that nobody who found it taken need wait.
struct Turn<'a>(&'a AtomicBool);

impl Worker {
    fn turn(&self) -> Option<Turn<'_>> {
        (!self.taken.swap(true, Ordering::Acquire)).then(|| Turn(&self.taken))
    }

    fn is_idle(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.events.is_empty() && inbox.checks.is_empty()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Inbox {
    events: Vec<Arc<Event>>,
    /// Topics to compare with the history's head.
    checks: HashSet<Topic>,
    /// Topics whose history could not be read, to be tried again at the next tick.
    failed: HashSet<Topic>,
}

impl Inbox {
    /// What can be done now.
    fn take(&mut self) -> (Vec<Arc<Event>>, HashSet<Topic>) {
        (std::mem::take(&mut self.events), std::mem::take(&mut self.checks))
    }
}

impl Relay {
    pub(crate) fn new(
        workers: usize,
        hub: Arc<Hub>,
        history: Arc<dyn History>,
        limits: Arc<arc_swap::ArcSwap<Limits>>,
        metrics: Metrics,
    ) -> Self {
        let workers = (0..workers.max(1)).map(|_| Worker::default()).collect();
        Self { workers, hasher: RandomState::new(), hub, history, limits, metrics }
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    fn worker(&self, topic: &Topic) -> &Worker {
        &self.workers[self.hasher.hash_one(topic) as usize % self.workers.len()]
    }

    /// Takes what the broker brought. Never waits.
    pub(crate) fn receive(&self, events: Vec<Arc<Event>>) {
        if self.workers.len() == 1 {
            return self.receive_at(&self.workers[0], events);
        }
        let mut parts: HashMap<usize, Vec<Arc<Event>>> = HashMap::new();
        for event in events {
            let index = self.hasher.hash_one(&event.topic) as usize % self.workers.len();
            parts.entry(index).or_default().push(event);
        }
        for (index, part) in parts {
            self.receive_at(&self.workers[index], part);
        }
    }

    fn receive_at(&self, worker: &Worker, events: Vec<Arc<Event>>) {
        let mut inbox = worker.inbox.lock();
        let room = INBOX.saturating_sub(inbox.events.len());
        if events.len() > room {
            self.drop_announcements(&mut inbox, events, room);
        } else {
            inbox.events.extend(events);
        }
        drop(inbox);
        self.hand_over_on_the_spot(worker);
    }

    /// Hands over what has few listeners, and leaves the rest to the worker.
    fn hand_over_on_the_spot(&self, worker: &Worker) {
        // Whoever has the turn looks at the inbox again when giving it back.
        let Some(turn) = worker.turn() else { return };
        let events = std::mem::take(&mut worker.inbox.lock().events);
        let mut room = ON_THE_SPOT;
        let mut left = Vec::new();
        for (topic, events) in by_topic(events) {
            if let Err(events) = self.take_in_now(&topic, events, &mut room) {
                left.extend(events);
            }
        }
        if !left.is_empty() {
            worker.inbox.lock().events.splice(0..0, left);
        }
        drop(turn);
        if !worker.is_idle() {
            worker.wake.notify_one();
        }
    }

    /// Hands over events that follow, if that is soon done.
    ///
    /// # Errors
    /// The events, when something is missing before them or there are too many listeners.
    fn take_in_now(
        &self,
        topic: &Topic,
        events: Vec<Arc<Event>>,
        room: &mut usize,
    ) -> Result<(), Vec<Arc<Event>>> {
        let Some(entry) = self.hub.get(topic) else { return Ok(()) };
        let Some(mut cursor) = cursor_of(&entry) else { return Ok(()) };
        let listeners = entry.live.lock().len();
        let follows = events.iter().all(|event| cursor.step(event.position) == Step::Next);
        if !follows || listeners > *room {
            return Err(events);
        }
        *room -= listeners;
        let mut ready = Ready::new(self, &entry);
        events.into_iter().for_each(|event| ready.push(event));
        ready.hand_over();
        entry.relay.lock().cursor = Some(cursor);
        Ok(())
    }

    /// Keeps what fits; the topics of the rest are checked against the history.
    fn drop_announcements(&self, inbox: &mut Inbox, mut events: Vec<Arc<Event>>, room: usize) {
        let dropped = events.split_off(room);
        self.metrics.announcements_dropped.inc_by(dropped.len() as u64);
        inbox.events.extend(events);
        for event in dropped {
            if !inbox.checks.contains(&event.topic) {
                inbox.checks.insert(event.topic.clone());
            }
        }
    }

    /// Compares a topic with its history soon, in case an announcement was lost.
    pub(crate) fn check(&self, topic: &Topic) {
        let worker = self.worker(topic);
        worker.inbox.lock().checks.insert(topic.clone());
        worker.wake.notify_one();
    }

    /// Tries again what could not be read; called about once a second.
    pub(crate) fn tick(&self) {
        for worker in &self.workers {
            let mut inbox = worker.inbox.lock();
            let failed = std::mem::take(&mut inbox.failed);
            if !failed.is_empty() {
                inbox.checks.extend(failed);
                worker.wake.notify_one();
            }
        }
    }

    /// One worker's life; ends when `stop` is cancelled.
    pub(crate) async fn run(&self, index: usize, stop: CancellationToken) {
        let worker = &self.workers[index];
        loop {
            tokio::select! {
                biased;
                // 1. The node stops.
                () = stop.cancelled() => return,
                // 2. Something came.
                () = worker.wake.notified() => self.drain(worker).await,
            }
        }
    }

    /// Takes turns until nothing is left, or someone else has the turn.
    async fn drain(&self, worker: &Worker) {
        while !worker.is_idle()
            && let Some(turn) = worker.turn()
        {
            self.drain_in_turn(worker).await;
            drop(turn);
        }
    }

    async fn drain_in_turn(&self, worker: &Worker) {
        loop {
            let (events, checks) = worker.inbox.lock().take();
            if events.is_empty() && checks.is_empty() {
                return;
            }
            for (topic, events) in by_topic(events) {
                self.take_in(&topic, events).await;
            }
            for topic in checks {
                self.compare(&topic).await;
            }
            // Other tasks of this thread have their turn between two rounds.
            tokio::task::yield_now().await;
        }
    }

    /// Places a topic that got its first listener.
    pub(crate) fn place(&self, entry: &Entry, head: Position) {
        entry.live.lock().place(head);
        let mut state = entry.relay.lock();
        state.cursor = Some(Cursor::at(head));
        let missed = state.missed;
        drop(state);
        if missed {
            self.check(&entry.topic);
        }
    }

    async fn take_in(&self, topic: &Topic, events: Vec<Arc<Event>>) {
        let Some(entry) = self.hub.get(topic) else { return };
        let Some(mut cursor) = cursor_of(&entry) else { return };
        let mut ready = Ready::new(self, &entry);
        for event in events {
            match cursor.step(event.position) {
                Step::Next => ready.push(event),
                Step::Stale => {}
                Step::Gap | Step::NewEpoch => {
                    // What cannot be read now need not be tried for every event that waits.
                    if !self.backfill(&mut cursor, &mut ready).await {
                        break;
                    }
                }
            }
        }
        ready.hand_over();
        entry.relay.lock().cursor = Some(cursor);
    }

    async fn compare(&self, topic: &Topic) {
        let Some(entry) = self.hub.get(topic) else { return };
        let Some(mut cursor) = cursor_of(&entry) else { return };
        match self.history.head(topic).await {
            Ok(head) if head == cursor.position() => return,
            Ok(_) => {}
            Err(error) => return self.failed(topic, &error),
        }
        let mut ready = Ready::new(self, &entry);
        self.backfill(&mut cursor, &mut ready).await;
        ready.hand_over();
        entry.relay.lock().cursor = Some(cursor);
    }

    /// Reads everything after the cursor from history; `false` when it cannot be read now.
    async fn backfill(&self, cursor: &mut Cursor, ready: &mut Ready<'_>) -> bool {
        self.metrics.backfills.inc();
        loop {
            let topic = &ready.entry.topic;
            match self.history.read(topic, cursor.position(), PAGE).await {
                Ok(Page::Events(events)) if events.is_empty() => return true,
                Ok(Page::Events(events)) => {
                    for event in events {
                        cursor.jump(event.position);
                        ready.push(event);
                    }
                }
                Ok(Page::Lost { head, reason }) => {
                    let Some(from) = self.restart_from(topic, head, reason).await else {
                        return false;
                    };
                    ready.tell_gap(from, reason);
                    cursor.jump(from);
                }
                Err(error) => {
                    self.failed(topic, &error);
                    return false;
                }
            }
        }
    }

    /// Where live listeners go on after a gap: as early as the history allows.
    async fn restart_from(
        &self,
        topic: &Topic,
        head: Position,
        reason: GapReason,
    ) -> Option<Position> {
        // A history that went back has nothing newer than what listeners have.
        if reason == GapReason::PositionUnknown {
            return Some(head);
        }
        match self.history.earliest(topic).await {
            Ok(earliest) => Some(earliest),
            Err(error) => {
                self.failed(topic, &error);
                None
            }
        }
    }

    fn failed(&self, topic: &Topic, error: &crate::Error) {
        self.metrics.failures.inc();
        self.worker(topic).inbox.lock().failed.insert(topic.clone());
        tracing::warn!(%topic, error = error as &dyn std::error::Error, "reading missed events");
    }
}

/// The cursor of a placed topic; notes otherwise that something was missed.
fn cursor_of(entry: &Entry) -> Option<Cursor> {
    let mut state = entry.relay.lock();
    if state.cursor.is_none() {
        state.missed = true;
    }
    state.cursor
}

/// Events per topic, topics in order of first appearance.
fn by_topic(events: Vec<Arc<Event>>) -> Vec<(Topic, Vec<Arc<Event>>)> {
    let mut list: Vec<(Topic, Vec<Arc<Event>>)> = Vec::new();
    if let [only] = &events[..] {
        return vec![(only.topic.clone(), events)];
    }
    let mut places: HashMap<Topic, usize> = HashMap::new();
    for event in events {
        // A burst is usually on one topic.
        if let Some((topic, run)) = list.last_mut()
            && *topic == event.topic
        {
            run.push(event);
            continue;
        }
        match places.get(&event.topic) {
            Some(&place) => list[place].1.push(event),
            None => {
                places.insert(event.topic.clone(), list.len());
                list.push((event.topic.clone(), vec![event]));
            }
        }
    }
    list
}

/// Events in order, to be handed over in batches of bounded size.
struct Ready<'a> {
    relay: &'a Relay,
    entry: &'a Entry,
    events: Vec<Arc<Event>>,
    bytes: usize,
}

impl<'a> Ready<'a> {
    fn new(relay: &'a Relay, entry: &'a Entry) -> Self {
        Self { relay, entry, events: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.content_bytes();
        self.events.push(event);
        if self.bytes >= BATCH_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        if self.events.is_empty() {
            return;
        }
        let batch = Batch::new(std::mem::take(&mut self.events));
        let limit = self.relay.limits.load().mailbox_bytes;
        let delivered = self.entry.live.lock().deliver(&batch, limit);
        self.count(delivered);
    }

    fn tell_gap(&mut self, position: Position, reason: GapReason) {
        self.hand_over();
        self.relay.metrics.gap(reason);
        let gap = gap_event(&self.entry.topic, position, reason);
        let limit = self.relay.limits.load().mailbox_bytes;
        let delivered = self.entry.live.lock().tell_gap(gap, limit);
        self.count(delivered);
    }

    fn count(&self, delivered: crate::hub::Delivered) {
        self.relay.metrics.deliveries.inc_by(delivered.events);
        self.relay.metrics.fell_behind.inc_by(delivered.fallen);
    }
}

/// The news that events before `position` are missing; it is not in the history.
pub(crate) fn gap_event(topic: &Topic, position: Position, reason: GapReason) -> Event {
    Event {
        topic: topic.clone(),
        position,
        at: 0,
        name: None,
        body: Body::Gap(reason),
        audience: Audience::Everyone,
    }
}
