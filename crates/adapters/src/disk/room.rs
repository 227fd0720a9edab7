//! Making room: on the disk, by letting go of the oldest segment, and of topics nobody asks for.
//!
//! Events of quiet topics lie in old segments among those of busy ones that are long gone. So while
//! what is kept is at most half of what the disk may hold, the events of the oldest segment that
//! are still wanted are moved to the newest one. Only when there is truly too much is the oldest
//! let go of, whatever its topic.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::{Event, Topic, TopicKind};
use tokio::time::Instant;

use super::error::DiskError;
use super::index::Slot;
use super::log::{Place, Segment, segment_bytes, segment_path};
use super::now_ms;
use super::record::{Notes, Record, put_batch, unframe};
use super::writer::Writer;

/// Segments of which the events are moved in one go, so that appends need not wait for long.
const AT_ONCE: usize = 8;

/// Events that are moved in one record.
const MOVED_AT_ONCE: usize = 512;

/// Of all topics this part is forgotten at once where there are too many, since finding the ones
/// that were idle for the longest time means looking at all.
const PART_FORGOTTEN: usize = 100;

/// A topic that is listened to is read four times a minute, so one that was idle for so long may
/// be forgotten when memory is short.
const SHORTEST_IDLE: Duration = Duration::from_secs(60);

impl Writer {
    /// Lets go of segments until there is room for what is to be written, and then some.
    pub(super) fn make_room(&mut self) {
        for round in 0..self.log.segments.len() {
            let Some((no, segment)) = self.log.oldest() else { return };
            let freed = match self.verdict(&segment, round < AT_ONCE) {
                Verdict::Stays => return,
                Verdict::IsEmpty => Ok(()),
                Verdict::Moves => self.carry(no),
                Verdict::Goes => {
                    self.discard(no);
                    Ok(())
                }
            };
            if let Err(error) = freed.and_then(|()| self.drop_segment(no)) {
                return self.complain(&error);
            }
        }
    }

    /// Whether what is to be written fits.
    pub(super) fn has_room(&self) -> bool {
        self.log.bytes() + self.buffer.len() as u64 <= self.settings.total_bytes
    }

    fn verdict(&self, oldest: &Segment, may_move: bool) -> Verdict {
        let total = self.settings.total_bytes;
        // Free are kept a segment for what comes next and one for what is moved meanwhile.
        let spare = 2 * segment_bytes(total) + self.buffer.len() as u64;
        let room = total.saturating_sub(spare);
        let bytes = self.log.bytes();
        let fits = bytes <= room && !self.books.is_index_large();
        let live = self.log.segments.values().map(Segment::live_bytes).sum::<u64>();
        let movable = may_move && live <= room / 2 && bytes + oldest.live_bytes() <= total;
        match oldest.live {
            0 if fits && oldest.keys_until > now_ms() => Verdict::Stays,
            0 => Verdict::IsEmpty,
            _ if fits => Verdict::Stays,
            _ if movable && !self.books.is_index_large() => Verdict::Moves,
            _ => Verdict::Goes,
        }
    }

    /// Lets go of all events up to the last one in a segment, of each topic.
    fn discard(&mut self, no: u32) {
        let index = Arc::clone(&self.index);
        for mut shard in index.shards() {
            for ring in shard.values_mut() {
                let is_in = |slot: &Slot| slot.place.segment == no;
                let count = ring.slots.iter().rposition(is_in).map_or(0, |last| last + 1);
                for _ in 0..count {
                    self.books.pop(&mut self.log, ring);
                }
                self.metrics.discarded.inc_by(count as u64);
            }
        }
    }

    /// Deletes a segment in which nothing is kept, once the heads that it tells are told anew.
    fn drop_segment(&mut self, no: u32) -> Result<(), DiskError> {
        let mut heads = Vec::new();
        for shard in self.index.shards() {
            let here = shard.iter().filter(|(_, ring)| ring.noted == Some(no));
            heads.extend(here.map(|(topic, ring)| (topic.clone(), ring.head)));
        }
        if !heads.is_empty() {
            self.note(heads, self.index.floor())?;
        }
        self.log.drop_segment(no)
    }

    /// Finds out whether writing works again.
    pub(super) fn try_to_write(&mut self) -> Result<(), DiskError> {
        self.note(Vec::new(), self.index.floor())
    }

    /// Writes heads down; they were told where soon nothing is.
    fn note(&mut self, heads: Vec<(Topic, u64)>, floor: u64) -> Result<(), DiskError> {
        let notes = Notes { floor, heads };
        let mut bytes = Vec::new();
        notes.put(&mut bytes);
        let place = self.append_own(&bytes)?;
        for (topic, _) in &notes.heads {
            if let Some(ring) = self.index.shard(topic).get_mut(topic) {
                ring.noted = Some(place.segment);
            }
        }
        Ok(())
    }

    /// Appends a record that nobody asked for.
    fn append_own(&mut self, record: &[u8]) -> Result<Place, DiskError> {
        if self.log.is_full(self.settings.total_bytes) {
            self.begin_segment()?;
        }
        self.log.append(record)
    }

    /// Moves what is kept in a segment to the newest one.
    fn carry(&mut self, no: u32) -> Result<(), DiskError> {
        let path = segment_path(&self.log.folder, no);
        let bytes = std::fs::read(&path).map_err(DiskError::of("read", &path))?;
        let wanted = self.kept_in(no);
        let (mut at, mut moving) = (0, Vec::new());
        while let Ok((content, length)) = unframe(&bytes[at..]) {
            let place = Place { segment: no, offset: at as u32 };
            moving.extend(self.read_kept(content, place, &wanted).unwrap_or_default());
            if moving.len() >= MOVED_AT_ONCE {
                self.carry_some(no, &std::mem::take(&mut moving))?;
            }
            at += length;
        }
        self.carry_some(no, &moving)?;
        if self.log.segments.get(&no).is_some_and(|segment| segment.live > 0) {
            tracing::warn!(path = %path.display(), "part of the history on disk is damaged");
            self.discard(no);
        }
        Ok(())
    }

    /// What is kept in a segment, by record.
    fn kept_in(&self, no: u32) -> HashMap<u32, HashSet<(Topic, u64)>> {
        let mut kept: HashMap<u32, HashSet<(Topic, u64)>> = HashMap::new();
        for shard in self.index.shards() {
            for (topic, ring) in shard.iter() {
                let slots = (ring.base() + 1..).zip(&ring.slots);
                for (seq, slot) in slots.filter(|(_, slot)| slot.place.segment == no) {
                    kept.entry(slot.place.offset).or_default().insert((topic.clone(), seq));
                }
            }
        }
        kept
    }

    fn read_kept(
        &self,
        content: &[u8],
        place: Place,
        wanted: &HashMap<u32, HashSet<(Topic, u64)>>,
    ) -> Option<Vec<Arc<Event>>> {
        let wanted = wanted.get(&place.offset)?;
        let Record::Batch(batch) = Record::take(content)? else { return None };
        let shared = batch.shared()?;
        let mut events = Vec::new();
        for entry in batch.entries() {
            let entry = entry?;
            if wanted.contains(&(batch.topics[entry.topic].clone(), entry.seq)) {
                events.push(Arc::new(batch.event(&entry, &shared, self.log.epoch)?));
            }
        }
        Some(events)
    }

    fn carry_some(&mut self, from: u32, events: &[Arc<Event>]) -> Result<(), DiskError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        put_batch(&mut bytes, events, &[]);
        let place = self.append_own(&bytes)?;
        for event in events {
            let mut shard = self.index.shard(&event.topic);
            let ring = shard.get_mut(&event.topic).expect("only this thread forgets topics");
            let at = (event.position.seq - ring.base() - 1) as usize;
            ring.slots[at].place = place;
            if event.position.seq == ring.head {
                ring.noted = Some(place.segment);
            }
        }
        let count = events.len() as u64;
        self.log.segments.get_mut(&from).expect("it is being emptied").live -= count;
        let newest = self.log.newest_mut();
        (newest.events, newest.live) = (newest.events + count, newest.live + count);
        Ok(())
    }

    /// Lets go of events that are too old, and of topics that were idle for too long.
    pub(super) fn look_at_topics(&mut self) {
        let namespaces = Arc::clone(&self.namespaces.read());
        let renewed = !Arc::ptr_eq(&namespaces, &self.applied);
        self.applied = namespaces;
        let idle = match self.books.memory(&self.index) > self.books.limit / 10 * 9 {
            true => SHORTEST_IDLE,
            false => self.settings.idle.max(Duration::from_secs(600)),
        };
        let (now, wall) = (Instant::now(), now_ms());
        let mut idle_topics = Vec::new();
        let index = Arc::clone(&self.index);
        for mut shard in index.shards() {
            for (topic, ring) in shard.iter_mut() {
                if renewed {
                    ring.limits = self.applied.history(topic);
                }
                self.books.trim(&mut self.log, ring, wall);
                if ring.slots.is_empty() && now.duration_since(ring.used) > idle {
                    idle_topics.push((topic.clone(), ring.head));
                }
            }
        }
        if let Err(error) = self.forget(&idle_topics, now, idle) {
            self.complain(&error);
        }
    }

    /// Forgets topics: their numbers never begin again, because no new topic begins below them.
    fn forget(
        &mut self,
        topics: &[(Topic, u64)],
        now: Instant,
        idle: Duration,
    ) -> Result<(), DiskError> {
        let Some(highest) = topics.iter().map(|(_, head)| *head).max() else { return Ok(()) };
        if highest > self.index.floor() {
            // A head that was told to somebody, but on which nothing was said since, is where the
            // floor was then; it has to be written down before the floor rises.
            let mut told = Vec::new();
            for shard in self.index.shards() {
                let here = shard.iter().filter(|(_, ring)| ring.noted.is_none());
                told.extend(here.map(|(topic, ring)| (topic.clone(), ring.head)));
            }
            self.note(told, highest)?;
            self.index.raise_floor(highest);
        }
        for (topic, _) in topics {
            let mut shard = self.index.shard(topic);
            let is_idle = |ring: &super::index::Ring| {
                ring.slots.is_empty() && now.duration_since(ring.used) > idle
            };
            if shard.get(topic).is_some_and(is_idle) {
                self.index.remove(&mut shard, topic);
            }
        }
        Ok(())
    }

    /// Forgets topics that were idle for a minute, with their events, to make place for others:
    /// those that were idle for the longest time.
    pub(super) fn forget_some(&mut self) {
        let (now, index) = (Instant::now(), Arc::clone(&self.index));
        let mut idle = Vec::new();
        for shard in index.shards() {
            let unused = shard.iter().filter(|(topic, ring)| {
                topic.kind() != TopicKind::Table && now.duration_since(ring.used) > SHORTEST_IDLE
            });
            idle.extend(unused.map(|(topic, ring)| (ring.used, topic.clone(), ring.head)));
        }
        idle.sort_unstable_by_key(|(used, ..)| *used);
        idle.truncate(index.most / PART_FORGOTTEN + 1);
        self.metrics.topics_displaced.inc_by(idle.len() as u64);
        for (_, topic, _) in &idle {
            let mut shard = index.shard(topic);
            let Some(ring) = shard.get_mut(topic) else { continue };
            while !ring.slots.is_empty() {
                self.books.pop(&mut self.log, ring);
            }
        }
        let topics: Vec<_> = idle.into_iter().map(|(_, topic, head)| (topic, head)).collect();
        if let Err(error) = self.forget(&topics, now, SHORTEST_IDLE) {
            self.complain(&error);
        }
    }
}

/// What becomes of the oldest segment.
enum Verdict {
    Stays,
    /// Nothing in it is kept.
    IsEmpty,
    /// What is kept in it is moved.
    Moves,
    /// What is kept in it is let go of.
    Goes,
}

impl Segment {
    /// Bytes of what is kept in it, about.
    fn live_bytes(&self) -> u64 {
        match self.events {
            0 => 0,
            events => self.bytes * self.live / events,
        }
    }
}
