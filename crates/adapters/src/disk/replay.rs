//! Opening: reads the whole log once, and judges whether it is all that was acknowledged.
//!
//! A tail that was never whole is cut off. A log that lacks anything that was acknowledged, or may
//! lack it, is not served: the history begins anew with another epoch, so that every client is told.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use tidewire::Namespaces;
use tidewire::history::{HistoryLimits, Mark, PublishedKey};
use tidewire_protocol::{Epoch, Position, Topic};

use super::error::DiskError;
use super::index::{Index, Ring, Slot};
use super::log::{Log, Place, Segment, begin_segment, segment_no, segment_path};
use super::record::{Batch, Entry, First, Notes, Record, unframe};
use super::upto::{Found, UpTo, UpToFile, boot};
use super::{DiskSettings, Marks, is_key, now_ms};

/// What the log held.
pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) log: Log,
    pub(super) marks: Marks,
    /// Keys of publications that are still remembered, oldest first.
    pub(super) keys: Vec<PublishedKey>,
    /// Why it began anew although there was something.
    pub(super) lost: Option<&'static str>,
}

/// Opens the log in a folder of which no one else has the lock.
pub(super) fn open(
    folder: &Path,
    settings: &DiskSettings,
    namespaces: &Namespaces,
) -> Result<Opened, DiskError> {
    let sync = settings.sync;
    let path = folder.join("upto");
    let (upto_file, found) = UpToFile::open(&path).map_err(DiskError::of("open", &path))?;
    let segments = list(folder)?;
    let boot = boot();
    let judged = match found {
        Found::OtherVersion => return Err(DiskError::Version(folder.to_owned())),
        Found::Nothing if segments.is_empty() => Err(None),
        Found::Nothing => Err(Some("nothing says how long the log was")),
        Found::UpTo(upto) => judge(&upto, &segments, boot).map_err(Some),
    };
    let read = match judged {
        Ok(upto) => read(folder, &segments, &upto, namespaces, settings)?.map_err(Some),
        Err(why) => Err(why),
    };
    match read {
        Ok(reading) => {
            let log = Log::go_on(folder, reading.segments, reading.epoch, upto_file, sync, boot)?;
            let index = Index::new(reading.epoch, reading.floor, settings.topics);
            let log = fill(&index, log, reading.topics);
            let (marks, keys) = (reading.marks, reading.keys);
            Ok(Opened { index, log, marks, keys, lost: None })
        }
        Err(lost) => begin(folder, &segments, upto_file, settings, boot, lost),
    }
}

/// The numbers of the segments there are, in order.
fn list(folder: &Path) -> Result<Vec<u32>, DiskError> {
    let entries = std::fs::read_dir(folder).map_err(DiskError::of("read", folder))?;
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DiskError::of("read", folder))?;
        segments.extend(entry.file_name().to_str().and_then(segment_no));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Whether the log can be all that was acknowledged, as far as can be told without reading it.
fn judge(upto: &UpTo, segments: &[u32], boot: [u8; 16]) -> Result<UpTo, &'static str> {
    // Where a run of the system has no name, another one cannot be told from it.
    let same_run = upto.boot == boot && boot != [0; 16];
    if !upto.synced && !same_run {
        return Err("the machine went down before the log was on its disk");
    }
    let whole = segments.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    // The newest one may just have been made when the process ended.
    let newest = segments.last().copied().unwrap_or_default();
    let is_newest = newest == upto.segment || newest.checked_sub(1) == Some(upto.segment);
    match whole && is_newest && segments.contains(&upto.segment) {
        true => Ok(*upto),
        false => Err("segments of the log are missing"),
    }
}

/// What was read.
struct Reading {
    epoch: Epoch,
    floor: u64,
    marks: Marks,
    keys: Vec<PublishedKey>,
    /// How long keys are remembered, in milliseconds, and what time it is.
    key_time: u64,
    now: u64,
    segments: BTreeMap<u32, Segment>,
    topics: HashMap<Topic, Known>,
}

/// A topic, as far as the log was read.
struct Known {
    /// With their numbers; events that were moved come after newer ones.
    slots: Vec<(u64, Slot)>,
    head: u64,
    noted: u32,
    limits: HistoryLimits,
}

fn read(
    folder: &Path,
    segments: &[u32],
    upto: &UpTo,
    namespaces: &Namespaces,
    settings: &DiskSettings,
) -> Result<Result<Reading, &'static str>, DiskError> {
    let mut reading = Reading {
        epoch: upto.epoch,
        floor: 0,
        marks: Marks::default(),
        keys: Vec::new(),
        key_time: settings.key_time.as_millis() as u64,
        now: now_ms(),
        segments: BTreeMap::new(),
        topics: HashMap::new(),
    };
    for no in segments {
        let path = segment_path(folder, *no);
        let bytes = std::fs::read(&path).map_err(DiskError::of("read", &path))?;
        let whole = match (*no).cmp(&upto.segment) {
            std::cmp::Ordering::Less => bytes.len() as u64,
            std::cmp::Ordering::Equal => upto.bytes,
            std::cmp::Ordering::Greater => 0,
        };
        if let Err(why) = reading.segment(*no, &bytes, whole, namespaces) {
            return Ok(Err(why));
        }
    }
    Ok(Ok(reading))
}

impl Reading {
    /// Takes a segment of which so many bytes were acknowledged. What follows them counts as far
    /// as it is whole: nobody was told whether it was appended.
    fn segment(
        &mut self,
        no: u32,
        bytes: &[u8],
        acknowledged: u64,
        namespaces: &Namespaces,
    ) -> Result<(), &'static str> {
        self.segments.insert(no, Segment::default());
        let mut at = 0;
        while at < bytes.len() {
            let Ok((content, length)) = unframe(&bytes[at..]) else { break };
            let record = Record::take(content).ok_or("the log holds what is no record of ours")?;
            let offset = u32::try_from(at).map_err(|_| "a segment of the log is too long")?;
            let place = Place { segment: no, offset };
            match record {
                Record::First(first) if at == 0 => self.first(first, no, length as u64)?,
                Record::Batch(batch) if at > 0 => self.batch(&batch, place, namespaces)?,
                Record::Notes(notes) if at > 0 => self.notes(notes, no, namespaces),
                _ => return Err("a segment of the log does not begin as it should"),
            }
            at += length;
        }
        if (at as u64) < acknowledged {
            return Err("the log is shorter than it was, or damaged");
        }
        let segment = self.segments.get_mut(&no).expect("it was just put there");
        segment.bytes = at as u64;
        if at == 0 {
            // Made, and not yet begun, when the process ended.
            self.segments.remove(&no);
        }
        Ok(())
    }

    fn first(&mut self, first: First, no: u32, bytes: u64) -> Result<(), &'static str> {
        if first.segment != no || first.epoch != self.epoch {
            return Err("a segment of the log is of another one");
        }
        self.segments.get_mut(&no).expect("it is being read").first = bytes;
        self.floor = self.floor.max(first.floor);
        self.marks = first.marks.into_iter().map(|mark| (mark.source, mark.place)).collect();
        Ok(())
    }

    fn batch(
        &mut self,
        batch: &Batch<'_>,
        place: Place,
        namespaces: &Namespaces,
    ) -> Result<(), &'static str> {
        let (mut keys, marks): (Vec<_>, Vec<_>) = batch.marks.iter().partition(|mark| is_key(mark));
        for Mark { source, place } in marks {
            set_mark(&mut self.marks, source, place);
        }
        for entry in batch.entries() {
            let entry = entry.ok_or("the log holds a record that makes no sense")?;
            // A key is kept beside the one event that was published with it.
            for mark in keys.drain(..) {
                self.key(mark, &entry, place.segment);
            }
            let slot = Slot { place, cost: batch.cost(&entry), at: entry.at };
            self.known(&batch.topics[entry.topic], place.segment, entry.seq, namespaces)
                .add(entry.seq, slot);
            self.segments.get_mut(&place.segment).expect("it is being read").events += 1;
        }
        Ok(())
    }

    fn key(&mut self, mark: &Mark, entry: &Entry<'_>, segment: u32) {
        let until = entry.at.saturating_add(self.key_time);
        if until > self.now {
            let position = Position { epoch: self.epoch, seq: entry.seq };
            self.keys.push(PublishedKey { mark: mark.clone(), position, at: entry.at });
            self.segments.get_mut(&segment).expect("it is being read").keeps_keys(until);
        }
    }

    fn notes(&mut self, notes: Notes, segment: u32, namespaces: &Namespaces) {
        self.floor = self.floor.max(notes.floor);
        for (topic, head) in notes.heads {
            self.known(&topic, segment, head, namespaces);
        }
    }

    /// The topic, of which a segment tells a number.
    fn known(
        &mut self,
        topic: &Topic,
        segment: u32,
        seq: u64,
        namespaces: &Namespaces,
    ) -> &mut Known {
        if !self.topics.contains_key(topic) {
            let limits = namespaces.history(topic);
            let known = Known { slots: Vec::new(), head: 0, noted: segment, limits };
            self.topics.insert(topic.clone(), known);
        }
        let known = self.topics.get_mut(topic).expect("it is there now");
        if seq >= known.head {
            (known.head, known.noted) = (seq, segment);
        }
        known
    }
}

impl Known {
    fn add(&mut self, seq: u64, slot: Slot) {
        self.slots.push((seq, slot));
        if self.slots.len() / 2 > self.limits.events.max(1_000) {
            self.tidy();
        }
    }

    /// Puts the events in order and lets go of what is more than the limit, or not in a row.
    fn tidy(&mut self) {
        // Where an event was moved, its newer place comes later and the older one may be gone.
        self.slots.sort_by_key(|(seq, _)| *seq);
        self.slots.reverse();
        self.slots.dedup_by_key(|(seq, _)| *seq);
        let newest_first = self.slots.iter().zip((0..=self.head).rev());
        let whole = newest_first.take_while(|((seq, _), wanted)| seq == wanted).count();
        self.slots.truncate(whole.min(self.limits.events));
        self.slots.reverse();
    }
}

/// Remembers, or forgets, where a source is.
pub(super) fn set_mark(marks: &mut Marks, source: &std::sync::Arc<str>, place: &Bytes) {
    match place.is_empty() {
        true => marks.remove(source),
        false => marks.insert(std::sync::Arc::clone(source), place.clone()),
    };
}

/// Makes the rings of what was read.
fn fill(index: &Index, mut log: Log, topics: HashMap<Topic, Known>) -> Log {
    let now = now_ms();
    for (topic, mut known) in topics {
        known.tidy();
        let mut ring = Ring::new(known.head, known.limits);
        ring.noted = Some(known.noted);
        ring.bytes = known.slots.iter().map(|(_, slot)| u64::from(slot.cost)).sum();
        ring.slots = known.slots.into_iter().map(|(_, slot)| slot).collect();
        while ring.is_over(now) {
            ring.pop();
        }
        for slot in &ring.slots {
            let segment = log.segments.get_mut(&slot.place.segment);
            segment.expect("an event is in a segment").live += 1;
        }
        index.insert(&mut index.shard(&topic), &topic, ring);
    }
    log
}

/// Begins anew, with another epoch.
fn begin(
    folder: &Path,
    old: &[u32],
    mut upto: UpToFile,
    settings: &DiskSettings,
    boot: [u8; 16],
    lost: Option<&'static str>,
) -> Result<Opened, DiskError> {
    let sync = settings.sync;
    if let Some(why) = lost {
        tracing::warn!(path = %folder.display(), why,
            "the history on disk cannot be trusted to be whole, so it begins anew: every client \
             that comes back is told a gap");
    }
    for no in old {
        let path = segment_path(folder, *no);
        std::fs::remove_file(&path).map_err(DiskError::of("delete", &path))?;
    }
    let epoch = Epoch(getrandom::u64().expect("the system has randomness"));
    let mut first = Vec::new();
    First { segment: 1, epoch, floor: 0, marks: Vec::new() }.put(&mut first);
    begin_segment(folder, 1, &first, sync)?;
    let bytes = first.len() as u64;
    upto.write(&UpTo { epoch, segment: 1, bytes, synced: false, boot })
        .map_err(DiskError::of("write", folder))?;
    let segments = BTreeMap::from([(1, Segment { bytes, first: bytes, ..Segment::default() })]);
    let log = Log::go_on(folder, segments, epoch, upto, sync, boot)?;
    let index = Index::new(epoch, 0, settings.topics);
    Ok(Opened { index, log, marks: Marks::default(), keys: Vec::new(), lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_trusted_as_far_as_it_can_be() {
        let (boot, other, unknown) = ([1; 16], [2; 16], [0; 16]);
        let upto = |synced| UpTo { epoch: Epoch(1), segment: 5, bytes: 9, synced, boot };
        for (synced, now, segments, trusted) in [
            (false, boot, &[4, 5][..], true),
            // The next segment was just made when the process ended.
            (false, boot, &[4, 5, 6], true),
            (false, boot, &[4, 5, 6, 7], false),
            (false, boot, &[4], false),
            (false, boot, &[3, 5], false),
            (false, boot, &[], false),
            // The machine went down, and what it had not written is gone.
            (false, other, &[4, 5], false),
            (true, other, &[4, 5], true),
            (false, unknown, &[5], false),
        ] {
            let judged = judge(&upto(synced), segments, now);
            assert_eq!(judged.is_ok(), trusted, "{segments:?} synced {synced} at {now:?}");
        }
        let nameless = UpTo { boot: unknown, ..upto(false) };
        assert!(judge(&nameless, &[5], unknown).is_err());
    }
}
