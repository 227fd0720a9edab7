//! The thread that writes: gives events their places in the order in which they are asked for,
//! appends them to the log, and keeps what is kept within its limits.
//!
//! Calls that wait at the same time are written together. An event is in the index, and so readable,
//! before its call is answered.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tidewire::Namespaces;
use tidewire::history::Mark;
use tidewire::sparing::Sparing;
use tidewire_protocol::{Draft, Event, Topic};
use tokio::sync::{mpsc, oneshot};

use super::books::Books;
use super::error::DiskError;
use super::index::{Index, Ring, Slot};
use super::log::{Log, Place};
use super::metrics::DiskMetrics;
use super::record::{First, put_batch};
use super::replay::set_mark;
use super::{DiskSettings, Marks, is_key, now_ms};

/// Bytes of records after which no further call is added to a write: beyond it a write takes as
/// long as what is in it, and joining saves nothing.
const WRITE_BYTES: usize = 1 << 20;

/// Most bytes that one call may append, whatever the limit on disk: they are in memory many times.
const CALL_BYTES: u64 = 256 << 20;

/// Bytes on disk for each mark that is allowed beyond the first [`MARKS`]: a mark takes some hundred
/// bytes, and each of some thirty to sixty segments repeats all of them.
const MARK_SHARE: u64 = 64 << 10;

/// Marks that are always allowed.
const MARKS: u64 = 4_096;

/// Sweeps in which topics are looked at one by one: with a tick a second, every five seconds.
const FULL_SWEEP: u32 = 5;

/// What the thread is asked.
pub(super) enum Job {
    Append(Append),
    Sweep,
    /// Writes everything down and takes no more.
    Close(oneshot::Sender<Result<(), DiskError>>),
}

/// A call of `append`.
pub(super) struct Append {
    pub(super) drafts: Vec<Draft>,
    pub(super) marks: Vec<Mark>,
    pub(super) reply: oneshot::Sender<Result<Vec<Arc<Event>>, DiskError>>,
}

/// The thread and what it alone writes.
pub(super) struct Writer {
    pub(super) index: Arc<Index>,
    pub(super) log: Log,
    pub(super) marks: Arc<Mutex<Marks>>,
    pub(super) books: Books,
    pub(super) settings: DiskSettings,
    pub(super) namespaces: Arc<RwLock<Arc<Namespaces>>>,
    /// The namespaces that the rings' limits are of.
    pub(super) applied: Arc<Namespaces>,
    pub(super) metrics: DiskMetrics,
    pub(super) complaints: Sparing,
    pub(super) closed: bool,
    pub(super) sweeps: u32,
    /// A sweep is asked for; taken back when it begins.
    pub(super) sweeping: Arc<AtomicBool>,
    /// Why nothing can be written, while that is so.
    pub(super) trouble: Arc<Mutex<Option<DiskError>>>,
    /// The lock on the folder, until there is nothing more to write.
    pub(super) lock: Option<File>,
    /// For records; kept so that each write need not grow one anew.
    pub(super) buffer: Vec<u8>,
}

/// A call that is being written.
struct Written {
    reply: oneshot::Sender<Result<Vec<Arc<Event>>, DiskError>>,
    events: Vec<Arc<Event>>,
    costs: Vec<u32>,
    marks: Vec<Mark>,
    /// Where its record begins in the write.
    start: usize,
}

impl Writer {
    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Append(append) => next = self.append_all(append, &mut jobs),
                Job::Sweep => self.sweep(),
                Job::Close(reply) => {
                    let _ = reply.send(self.close());
                }
            }
            next = next.or_else(|| jobs.blocking_recv());
        }
        if let Err(error) = self.close() {
            self.complain(&error);
        }
    }

    /// Appends for one call and all that wait; gives the job that is no append, if one was met.
    fn append_all(&mut self, first: Append, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        self.buffer.clear();
        self.buffer.shrink_to(2 * WRITE_BYTES);
        let (mut calls, mut heads) = (Vec::new(), HashMap::new());
        let mut job = Some(Job::Append(first));
        while let Some(Job::Append(append)) = job {
            calls.extend(self.put(append, &mut heads));
            let enough = (WRITE_BYTES as u64).min(self.settings.total_bytes / 8);
            job = match (self.buffer.len() as u64) < enough {
                true => jobs.try_recv().ok(),
                false => None,
            };
        }
        let written = self.write();
        *self.trouble.lock() = written.as_ref().err().cloned();
        match written {
            Ok(place) => self.keep(calls, place),
            Err(error) => self.refuse(calls, &error),
        }
        job
    }

    /// Makes a call's record. One that cannot be written is answered at once.
    fn put(&mut self, append: Append, heads: &mut HashMap<Topic, u64>) -> Option<Written> {
        let Append { drafts, marks, reply } = append;
        if self.closed {
            let _ = reply.send(Err(DiskError::Closed(self.settings.path.clone())));
            return None;
        }
        if self.is_too_many_topics(&drafts) {
            self.metrics.topics_refused.inc();
            let _ = reply.send(Err(DiskError::Topics(self.index.most)));
            return None;
        }
        let at = now_ms();
        let events: Vec<Arc<Event>> =
            drafts.into_iter().map(|draft| self.place(draft, at, heads)).collect();
        let start = self.buffer.len();
        let most = CALL_BYTES.min(self.settings.total_bytes / 4);
        let content = events.iter().map(|event| event.content_bytes()).sum::<usize>();
        let path = || self.settings.path.clone();
        let refused = match content as u64 > most {
            true => Some(DiskError::TooLarge { path: path(), bytes: content }),
            false => self.are_too_many(&marks).then(|| DiskError::Marks(path())),
        };
        if let Some(refused) = refused {
            for event in &events {
                *heads.get_mut(&event.topic).expect("it was given a place") -= 1;
            }
            let _ = reply.send(Err(refused));
            return None;
        }
        let costs = put_batch(&mut self.buffer, &events, &marks);
        Some(Written { reply, events, costs, marks, start })
    }

    /// Whether a draft is of a new topic for which there is no place, and none can be made.
    fn is_too_many_topics(&mut self, drafts: &[Draft]) -> bool {
        let index = Arc::clone(&self.index);
        let is_new = |draft: &Draft| {
            index.is_crowded(&draft.topic) && !index.shard(&draft.topic).contains_key(&draft.topic)
        };
        if !drafts.iter().any(is_new) {
            return false;
        }
        self.forget_some();
        drafts.iter().any(is_new)
    }

    /// Whether with these there are more marks than each segment can repeat.
    fn are_too_many(&self, marks: &[Mark]) -> bool {
        let known = self.marks.lock();
        let is_new = |mark: &&Mark| {
            !is_key(mark) && !mark.place.is_empty() && !known.contains_key(&mark.source)
        };
        let new = marks.iter().filter(is_new).count();
        new > 0 && (known.len() + new) as u64 > (self.settings.total_bytes / MARK_SHARE).max(MARKS)
    }

    fn place(&self, draft: Draft, at: u64, heads: &mut HashMap<Topic, u64>) -> Arc<Event> {
        let seq = match heads.get_mut(&draft.topic) {
            Some(head) => {
                *head += 1;
                *head
            }
            None => {
                let ring = self.index.shard(&draft.topic);
                let head = ring.get(&draft.topic).map_or(self.index.floor(), |ring| ring.head);
                heads.insert(draft.topic.clone(), head + 1);
                head + 1
            }
        };
        Arc::new(Event::new(draft, self.index.at(seq), at))
    }

    fn write(&mut self) -> Result<Place, DiskError> {
        if self.log.is_full(self.settings.total_bytes) {
            self.begin_segment()?;
            self.make_room();
        }
        if !self.has_room() {
            self.make_room();
        }
        self.log.append(&self.buffer)
    }

    fn keep(&mut self, calls: Vec<Written>, place: Place) {
        for call in calls {
            let offset = place.offset + call.start as u32;
            let place = Place { offset, ..place };
            for (event, cost) in call.events.iter().zip(call.costs) {
                let slot = Slot { place, cost, at: event.at };
                self.keep_event(event, slot);
            }
            self.keep_marks(&call.marks);
            // Nobody waits any more: it was appended all the same.
            let _ = call.reply.send(Ok(call.events));
        }
        self.books.evict(&self.index);
    }

    fn keep_marks(&mut self, marks: &[Mark]) {
        for mark in marks.iter().filter(|mark| !is_key(mark)) {
            set_mark(&mut self.marks.lock(), &mark.source, &mark.place);
        }
        if marks.iter().any(is_key) {
            let until = now_ms() + self.settings.key_time.as_millis() as u64;
            self.log.newest_mut().keeps_keys(until);
        }
    }

    fn keep_event(&mut self, event: &Arc<Event>, slot: Slot) {
        let mut shard = self.index.shard(&event.topic);
        let ring = match shard.get_mut(&event.topic) {
            Some(ring) => ring,
            None => {
                let limits = self.applied.history(&event.topic);
                let ring = Ring::new(self.index.floor(), limits);
                self.index.insert(&mut shard, &event.topic, ring)
            }
        };
        ring.used = tokio::time::Instant::now();
        ring.head = event.position.seq;
        ring.noted = Some(slot.place.segment);
        ring.bytes += u64::from(slot.cost);
        ring.slots.push_back(slot);
        ring.recent.push_back(Arc::clone(event));
        self.books.add(&mut self.log, event, slot);
        self.books.trim(&mut self.log, ring, event.at);
    }

    fn refuse(&self, calls: Vec<Written>, error: &DiskError) {
        self.complain(error);
        for call in calls {
            let _ = call.reply.send(Err(error.clone()));
        }
    }

    pub(super) fn complain(&self, error: &DiskError) {
        self.metrics.failures.inc();
        if let Some(unsaid) = self.complaints.due() {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, unsaid, "the history on disk failed");
        }
    }

    /// Begins another segment, which repeats what older ones say of all topics.
    pub(super) fn begin_segment(&mut self) -> Result<(), DiskError> {
        let marks = self.marks.lock().clone().into_iter();
        let marks = marks.map(|(source, place)| Mark { source, place }).collect();
        let segment = self.log.newest() + 1;
        let first = First { segment, epoch: self.log.epoch, floor: self.index.floor(), marks };
        let mut bytes = Vec::new();
        first.put(&mut bytes);
        self.log.begin_segment(segment, &bytes)
    }

    fn sweep(&mut self) {
        self.sweeping.store(false, Ordering::Release);
        self.sweeps = self.sweeps.wrapping_add(1);
        if self.sweeps.is_multiple_of(FULL_SWEEP) && !self.closed {
            self.look_at_topics();
            self.make_room();
        }
        if self.index.topics() >= self.index.most && !self.closed {
            self.forget_some();
        }
        self.books.evict(&self.index);
        if !self.closed {
            self.look_at_disk();
        }
        self.count();
    }

    /// Whether the files are still there; and where writing failed, whether it works again.
    fn look_at_disk(&mut self) {
        let is_in_trouble = self.trouble.lock().is_some();
        let found = match is_in_trouble {
            true => self.try_to_write(),
            false => self.log.check_place(),
        };
        *self.trouble.lock() = found.err();
    }

    fn count(&self) {
        self.metrics.bytes.set(self.log.bytes() as i64);
        self.metrics.segments.set(self.log.segments.len() as i64);
        self.metrics.events.set(self.books.events() as i64);
        self.metrics.memory_bytes.set(self.books.memory(&self.index) as i64);
        self.metrics.topics.set(self.index.topics() as i64);
    }

    fn close(&mut self) -> Result<(), DiskError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let closed = self.log.close();
        self.lock = None;
        closed
    }
}
