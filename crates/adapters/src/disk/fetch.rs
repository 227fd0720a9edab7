//! Reads events that are not in memory from the segments; synchronous, for a thread that may wait.
//!
//! Events that lie near each other are read together, so that a page of a topic costs a few reads
//! and not one for each event.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use tidewire_protocol::{Epoch, Event, Topic};

use super::index::Slot;
use super::log::{Place, segment_path};
use super::record::{Record, frame_bytes, unframe};

/// Bytes read at once: some hundred events of usual size, and about what a disk reads ahead anyway.
const WINDOW: usize = 128 << 10;

/// Why events could not be fetched.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Their segment is gone, because they are or because they were moved: look again.
    Gone,
    /// What is there is not what was written.
    Damaged(Place),
    /// The disk does not read.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// Reads the events of one topic with these numbers, in the order asked for.
pub(super) fn fetch(
    folder: &Path,
    epoch: Epoch,
    topic: &Topic,
    slots: &[(u64, Slot)],
) -> Result<Vec<Arc<Event>>, Trouble> {
    let mut window = Window::default();
    let mut events = Vec::with_capacity(slots.len());
    // Events that were appended together are in one record, which is read once.
    for run in slots.chunk_by(|(_, a), (_, b)| a.place == b.place) {
        let place = run[0].1.place;
        let content = window.record(folder, place)?;
        let damaged = || Trouble::Damaged(place);
        let Some(Record::Batch(batch)) = Record::take(content) else { return Err(damaged()) };
        let shared = batch.shared().ok_or_else(damaged)?;
        let mut wanted = run.iter().map(|(seq, _)| *seq).peekable();
        for entry in batch.entries() {
            let entry = entry.ok_or_else(damaged)?;
            let is_wanted =
                wanted.peek() == Some(&entry.seq) && batch.topics[entry.topic] == *topic;
            if is_wanted {
                wanted.next();
                let event = batch.event(&entry, &shared, epoch).ok_or_else(damaged)?;
                events.push(Arc::new(event));
            }
        }
        if wanted.peek().is_some() {
            return Err(damaged());
        }
    }
    Ok(events)
}

/// Part of a segment in memory.
#[derive(Default)]
struct Window {
    open: Option<(u32, File)>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The content of the record at a place.
    fn record(&mut self, folder: &Path, place: Place) -> Result<&[u8], Trouble> {
        if self.open.as_ref().is_none_or(|(no, _)| *no != place.segment) {
            self.open = Some((place.segment, File::open(segment_path(folder, place.segment))?));
            self.bytes.clear();
        }
        let wanted = match frame_bytes(self.from(place)) {
            Some(bytes) if self.from(place).len() >= bytes => 0,
            // Only part of it, or nothing, is here.
            _ => WINDOW,
        };
        self.load(place, wanted)?;
        let whole = frame_bytes(self.from(place)).ok_or(Trouble::Damaged(place))?;
        if self.from(place).len() < whole {
            self.load(place, whole)?;
        }
        let (content, _) = unframe(self.from(place)).map_err(|_| Trouble::Damaged(place))?;
        Ok(content)
    }

    /// What is here from a place on.
    fn from(&self, place: Place) -> &[u8] {
        let at = u64::from(place.offset).checked_sub(self.start);
        at.and_then(|at| self.bytes.get(usize::try_from(at).ok()?..)).unwrap_or_default()
    }

    /// Reads so many bytes from a place on, or as many as there are.
    fn load(&mut self, place: Place, bytes: usize) -> Result<(), Trouble> {
        if bytes == 0 {
            return Ok(());
        }
        let (_, file) = self.open.as_mut().expect("a segment is open while records are read");
        self.start = place.offset.into();
        self.bytes.clear();
        file.seek(SeekFrom::Start(self.start))?;
        // A length that is damaged must not make us take memory that there is no data for.
        file.take(bytes as u64).read_to_end(&mut self.bytes)?;
        Ok(())
    }
}
