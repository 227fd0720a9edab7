//! From the broker to the hub, in order and without holes.
//!
//! Events of one topic always go to the same worker's inbox, and whoever has the worker's *turn*
//! feeds what is in it to the topics' [lanes](crate::hub::Lanes), so order needs no lock. The
//! worker takes all that is ready in one go and joins it per topic. [`Progress`] tells what is
//! missing; that is read from the history ([`reading`]) before anything after it is fed, and only
//! the topic itself waits for that.
//!
//! Where a topic has few listeners and nothing is missing, whoever brought the event takes the turn
//! and hands it over on the spot: waking another thread would cost more than the writes. Where it
//! has so many that they are in several lanes, feeding them is putting a pointer into each; the
//! writing is done by the [`Carriers`]. Between the two it is the worker that writes.

mod carriers;
mod inbox;
mod progress;
mod reading;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use carriers::Carriers;
use inbox::{Due, Inbox};
use parking_lot::Mutex;
pub(crate) use progress::{Arrived, Progress};
use reading::{Found, Readings, Wanted};
use tidewire_protocol::{Audience, Body, Event, GapReason, Position, Topic};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::delivery::{BATCH_BYTES, Batch};
use crate::error::Error;
use crate::history::History;
use crate::hub::{Delivered, Entry, Fed, Hub, Portion};
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Listeners to whom whoever brought an event hands it over on the spot, at most.
///
/// A write into a socket takes about as long as waking a thread, and a publisher should not be
/// kept for longer than a few dozen of them.
const ON_THE_SPOT: usize = 32;

/// Writes after which a worker lets other tasks of its thread have their turn: one or two
/// milliseconds.
const REST_AFTER: usize = 512;

/// Hands events from the broker to the hub.
pub(crate) struct Relay {
    workers: Vec<Worker>,
    hasher: RandomState,
    carriers: Carriers,
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
        self.inbox.lock().is_empty()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What only the worker itself has.
#[derive(Default)]
struct Desk {
    readings: Readings,
    /// Writes since other tasks had their turn.
    writes: usize,
}

impl Desk {
    async fn rest_after(&mut self, writes: usize) {
        self.writes += writes;
        if self.writes >= REST_AFTER {
            self.writes = 0;
            yield_now().await;
        }
    }
}

impl Relay {
    pub(crate) fn new(
        workers: usize,
        carriers: usize,
        hub: Arc<Hub>,
        history: Arc<dyn History>,
        limits: Arc<arc_swap::ArcSwap<Limits>>,
        metrics: Metrics,
    ) -> Self {
        let workers = (0..workers.max(1)).map(|_| Worker::default()).collect();
        let (hasher, carriers) = (RandomState::new(), Carriers::new(carriers));
        Self { workers, hasher, carriers, hub, history, limits, metrics }
    }

    /// How many times [`Relay::run`] must be called, each with the next index.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// How many times [`Relay::carry`] must be called.
    pub(crate) fn carriers(&self) -> usize {
        self.carriers.count()
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
        let dropped = worker.inbox.lock().put(events);
        self.metrics.announcements_dropped.inc_by(dropped as u64);
        self.hand_over_on_the_spot(worker);
    }

    /// Hands over what has few listeners, and leaves the rest to the worker.
    fn hand_over_on_the_spot(&self, worker: &Worker) {
        // Whoever has the turn looks at the inbox again when giving it back.
        let Some(turn) = worker.turn() else { return };
        let events = worker.inbox.lock().take_events();
        let mut room = ON_THE_SPOT;
        let mut left = Vec::new();
        for (topic, events) in by_topic(events) {
            if let Err(events) = self.take_in_now(&topic, events, &mut room) {
                left.extend(events);
            }
        }
        if !left.is_empty() {
            worker.inbox.lock().put_back(left);
        }
        drop(turn);
        if !worker.is_idle() {
            worker.wake.notify_one();
        }
    }

    /// Feeds events that follow, if that is soon done.
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
        let work = match entry.lanes.is_direct() {
            true => entry.lanes.first_listeners(),
            false => entry.lanes.len(),
        };
        if work > *room || !entry.progress.lock().follow(&events) {
            return Err(events);
        }
        *room -= work;
        for batch in batches(events, &entry) {
            if !self.feed(&entry, &Portion::Events(batch)) {
                break;
            }
        }
        Ok(())
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
    pub(crate) async fn run(self: Arc<Self>, index: usize, stop: CancellationToken) {
        let worker = &self.workers[index];
        let mut desk = Desk::default();
        loop {
            tokio::select! {
                biased;
                // 1. The node stops.
                () = stop.cancelled() => return,
                // 2. Something came.
                () = worker.wake.notified() => self.drain(worker, &mut desk).await,
                // 3. A read is done, and another may begin.
                () = desk.readings.proceed(&self) => {}
            }
        }
    }

    /// Takes turns until nothing is left, or someone else has the turn.
    async fn drain(self: &Arc<Self>, worker: &Worker, desk: &mut Desk) {
        while !worker.is_idle()
            && let Some(turn) = worker.turn()
        {
            self.drain_in_turn(worker, desk).await;
            drop(turn);
        }
    }

    async fn drain_in_turn(self: &Arc<Self>, worker: &Worker, desk: &mut Desk) {
        while !worker.is_idle() {
            let Due { found, events, checks } = worker.inbox.lock().take();
            for (entry, found) in found {
                self.go_on_reading(&entry, found, desk).await;
            }
            for (topic, events) in by_topic(events) {
                self.take_in(&topic, events, desk).await;
            }
            for topic in checks {
                self.look_at(&topic, desk).await;
            }
            // Other tasks of this thread have their turn between two rounds.
            yield_now().await;
        }
    }

    /// Places a topic that got its first listener.
    pub(crate) fn place(&self, entry: &Entry, head: Position) {
        entry.lanes.place(head);
        let missed = entry.progress.lock().place(head);
        if missed {
            self.check(&entry.topic);
        }
    }

    async fn take_in(self: &Arc<Self>, topic: &Topic, events: Vec<Arc<Event>>, desk: &mut Desk) {
        let Some(entry) = self.hub.get(topic) else { return };
        if entry.lanes.are_held() {
            // Whoever makes room has it looked at; until then it would be read in vain.
            return;
        }
        let Arrived { ready, missing } = entry.progress.lock().arrive(events);
        if self.feed_all(&entry, ready, desk).await && missing {
            self.metrics.backfills.inc();
            self.read(&entry, desk).await;
        }
    }

    /// Compares a topic with the history's head.
    async fn look_at(self: &Arc<Self>, topic: &Topic, desk: &mut Desk) {
        let Some(entry) = self.hub.get(topic) else { return };
        let Some(after) = entry.progress.lock().look() else { return };
        let wanted = Wanted { entry: Arc::clone(&entry), after, look: true };
        if let Some(found) = desk.readings.begin(self, wanted).await {
            self.go_on_reading(&entry, found, desk).await;
        }
    }

    /// Reads everything that the topic has not had, and feeds it.
    async fn read(self: &Arc<Self>, entry: &Arc<Entry>, desk: &mut Desk) {
        if let Some(found) = self.begin_reading(entry, desk).await {
            self.go_on_reading(entry, found, desk).await;
        }
    }

    /// Feeds what was found, and reads on until there is nothing more.
    async fn go_on_reading(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        mut found: Result<Found, Error>,
        desk: &mut Desk,
    ) {
        while self.feed_found(entry, found, desk).await {
            let Some(next) = self.begin_reading(entry, desk).await else { return };
            found = next;
        }
    }

    async fn begin_reading(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        desk: &mut Desk,
    ) -> Option<Result<Found, Error>> {
        let after = entry.progress.lock().begin_reading()?;
        desk.readings.begin(self, Wanted { entry: Arc::clone(entry), after, look: false }).await
    }

    /// Whether to read on.
    async fn feed_found(
        &self,
        entry: &Arc<Entry>,
        found: Result<Found, Error>,
        desk: &mut Desk,
    ) -> bool {
        let fed = match found {
            Ok(Found::Nothing) => {
                let Arrived { ready, missing } = entry.progress.lock().end_reading();
                return self.feed_all(entry, ready, desk).await && missing;
            }
            Ok(Found::Events(events)) => self.feed_all(entry, events, desk).await,
            Ok(Found::Lost { up_to, reason }) => self.tell_gap(entry, up_to, reason),
            Err(error) => {
                self.failed(&entry.topic, &error);
                false
            }
        };
        if !fed {
            entry.progress.lock().give_up();
        }
        fed
    }

    /// What was read for a topic that waits for it.
    fn found(&self, entry: Arc<Entry>, found: Result<Found, Error>) {
        let worker = self.worker(&entry.topic);
        worker.inbox.lock().found.push((entry, found));
        worker.wake.notify_one();
    }

    fn failed(&self, topic: &Topic, error: &Error) {
        self.metrics.failures.inc();
        self.worker(topic).inbox.lock().failed.insert(topic.clone());
        tracing::warn!(%topic, error = error as &dyn std::error::Error, "reading missed events");
    }

    /// Whether all were fed.
    async fn feed_all(&self, entry: &Arc<Entry>, events: Vec<Arc<Event>>, desk: &mut Desk) -> bool {
        for batch in batches(events, entry) {
            if !self.feed(entry, &Portion::Events(batch)) {
                return false;
            }
            if entry.lanes.is_direct() {
                desk.rest_after(entry.lanes.first_listeners()).await;
            }
        }
        true
    }

    fn tell_gap(&self, entry: &Arc<Entry>, position: Position, reason: GapReason) -> bool {
        let gap = Arc::new(gap_event(&entry.topic, position, reason));
        self.feed(entry, &Portion::Gap(Arc::new(Batch::shared(vec![gap]))))
    }

    /// Whether it was fed. When it was not, a lane has no room; whoever makes some has the topic
    /// compared with its history, which has what was not fed.
    fn feed(&self, entry: &Arc<Entry>, portion: &Portion) -> bool {
        match entry.lanes.feed(portion, self.limits.load().mailbox_bytes) {
            Fed::Delivered(delivered) => {
                self.count(delivered);
                if delivered.events > 0 {
                    self.metrics.gaps_in(portion.events());
                }
            }
            Fed::Waits(lanes) => {
                self.metrics.gaps_in(portion.events());
                self.carriers.summon(entry, lanes);
            }
            Fed::Full => {
                self.metrics.lanes_full.inc();
                return false;
            }
        }
        entry.progress.lock().advance(portion.last());
        true
    }

    fn count(&self, delivered: Delivered) {
        self.metrics.deliveries.inc_by(delivered.events);
        self.metrics.fell_behind.inc_by(delivered.fallen);
    }
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

/// Events in order, in batches of bounded size.
fn batches(events: Vec<Arc<Event>>, entry: &Entry) -> impl Iterator<Item = Arc<Batch>> {
    let batch = if entry.lanes.is_direct() { Batch::new } else { Batch::shared };
    let mut events = VecDeque::from(events);
    std::iter::from_fn(move || {
        let count = fitting(&events);
        let rest = events.split_off(count);
        let next = Vec::from(std::mem::replace(&mut events, rest));
        (count > 0).then(|| Arc::new(batch(next)))
    })
}

/// How many of the first events make a batch.
fn fitting(events: &VecDeque<Arc<Event>>) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take_while(|event| {
        let before = bytes;
        bytes += event.content_bytes();
        before < BATCH_BYTES
    });
    fits.count()
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
