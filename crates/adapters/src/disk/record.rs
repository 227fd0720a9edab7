//! The records of the log: a frame with a checksum around what one call appended; pure.
//!
//! A record is whole or it is nothing, which makes a call atomic. There are three sorts: the first
//! of a segment says whose it is and repeats what must not be lost with older segments, *batches*
//! hold events and marks, and *notes* hold heads of topics whose events are gone.

use std::collections::HashMap;
use std::sync::Arc;

use tidewire::history::Mark;
use tidewire_protocol::{Epoch, Event, Position, Topic, TopicKind};

use super::body::{self, Shared};
use super::codec::{Put, Take};

/// How records look; a program that finds a later one leaves the folder alone.
pub(super) const VERSION: u8 = 1;

/// Bytes before a record's content: its length and its checksum.
pub(super) const FRAME_BYTES: usize = 8;

/// What an event costs beside its content, in bytes: as in the memory, so that one limit means the
/// same in both.
const EVENT_OVERHEAD: usize = 200;

/// Topics of one batch up to which a list is searched.
const FEW: usize = 8;

/// One record.
pub(super) enum Record<'b> {
    First(First),
    Batch(Batch<'b>),
    Notes(Notes),
}

/// The first record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) segment: u32,
    pub(super) epoch: Epoch,
    /// Where topics begin of which nothing is known.
    pub(super) floor: u64,
    /// All marks there are.
    pub(super) marks: Vec<Mark>,
}

/// Heads of topics that no other record tells any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) floor: u64,
    pub(super) heads: Vec<(Topic, u64)>,
}

/// What one call appended.
pub(super) struct Batch<'b> {
    pub(super) marks: Vec<Mark>,
    pub(super) topics: Vec<Topic>,
    shared: &'b [u8],
    count: usize,
    events: Take<'b>,
}

/// An event in a batch, its body not yet read.
pub(super) struct Entry<'b> {
    /// Its topic's place in the batch.
    pub(super) topic: usize,
    pub(super) seq: u64,
    pub(super) at: u64,
    body: &'b [u8],
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Torn {
    /// The bytes end before it does.
    Short,
    /// It is not what was written.
    Damaged,
}

/// Puts a frame around what `content` writes.
fn frame(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    content(out);
    let bytes = out.len() - start - FRAME_BYTES;
    let length = u32::try_from(bytes).expect("a record is checked for size before it is written");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(length, &out[start + FRAME_BYTES..]);
    out[start + 4..start + FRAME_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(length: u32, content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(content);
    sum.finalize()
}

/// Bytes of a whole frame that begins so; `None` when even that cannot be told.
pub(super) fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let length = Take(bytes).array().map(u32::from_le_bytes)?;
    Some(FRAME_BYTES + length as usize)
}

/// The content of the record that begins here, and the bytes it takes with its frame.
pub(super) fn unframe(bytes: &[u8]) -> Result<(&[u8], usize), Torn> {
    let mut take = Take(bytes);
    let head = (take.array().map(u32::from_le_bytes), take.array().map(u32::from_le_bytes));
    let (Some(length), Some(sum)) = head else { return Err(Torn::Short) };
    let content = take.0.get(..length as usize).ok_or(Torn::Short)?;
    match content.is_empty() || checksum(length, content) != sum {
        true => Err(Torn::Damaged),
        false => Ok((content, FRAME_BYTES + content.len())),
    }
}

impl First {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        frame(out, |out| {
            out.extend_from_slice(&[b'S', VERSION]);
            out.put_number(self.segment.into());
            out.extend_from_slice(&self.epoch.0.to_le_bytes());
            out.put_number(self.floor);
            put_marks(out, &self.marks);
        });
    }
}

impl Notes {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        frame(out, |out| {
            out.push(b'N');
            out.put_number(self.floor);
            out.put_number(self.heads.len() as u64);
            for (topic, head) in &self.heads {
                put_topic(out, topic);
                out.put_number(*head);
            }
        });
    }
}

/// Puts a batch of events; gives what each of them costs.
pub(super) fn put_batch(out: &mut Vec<u8>, events: &[Arc<Event>], marks: &[Mark]) -> Vec<u32> {
    let (mut topics, mut shared) = (Topics::default(), Shared::default());
    let (mut list, mut body) = (Vec::new(), Vec::new());
    let mut costs = Vec::with_capacity(events.len());
    for event in events {
        body.clear();
        body::put(&mut body, event, &mut shared);
        list.put_number(topics.place(&event.topic));
        list.put_number(event.position.seq);
        list.put_number(event.at);
        list.put_bytes(&body);
        costs.push(cost(&event.topic, body.len()));
    }
    let mut tables = Vec::new();
    shared.put(&mut tables);
    frame(out, |out| {
        out.push(b'B');
        put_marks(out, marks);
        out.put_number(topics.list.len() as u64);
        topics.list.iter().for_each(|topic| put_topic(out, topic));
        out.put_bytes(&tables);
        out.put_number(events.len() as u64);
        out.extend_from_slice(&list);
    });
    costs
}

/// What an event with such a body costs, in bytes.
fn cost(topic: &Topic, body: usize) -> u32 {
    u32::try_from(body + topic.name().len() + EVENT_OVERHEAD).unwrap_or(u32::MAX)
}

/// The topics of a batch, each once.
#[derive(Default)]
struct Topics {
    list: Vec<Topic>,
    places: HashMap<Topic, usize>,
}

impl Topics {
    fn place(&mut self, topic: &Topic) -> u64 {
        let few = self.list.len() <= FEW;
        let known = match few {
            true => self.list.iter().position(|it| it == topic),
            false => self.places.get(topic).copied(),
        };
        known.unwrap_or_else(|| self.add(topic)) as u64
    }

    fn add(&mut self, topic: &Topic) -> usize {
        self.list.push(topic.clone());
        let places = self.list.iter().cloned().enumerate().map(|(place, topic)| (topic, place));
        match self.list.len() {
            ..=FEW => {}
            // The list becomes a map when it is too long to be searched.
            len if len == FEW + 1 => self.places = places.collect(),
            len => {
                self.places.insert(topic.clone(), len - 1);
            }
        }
        self.list.len() - 1
    }
}

impl<'b> Record<'b> {
    /// Reads a record's content; `None` when it is none of ours.
    pub(super) fn take(content: &'b [u8]) -> Option<Self> {
        let mut bytes = Take(content);
        Some(match bytes.byte()? {
            b'S' => Self::First(take_first(&mut bytes)?),
            b'B' => Self::Batch(take_batch(&mut bytes)?),
            b'N' => Self::Notes(take_notes(&mut bytes)?),
            _ => return None,
        })
    }
}

fn take_first(bytes: &mut Take<'_>) -> Option<First> {
    if bytes.byte()? != VERSION {
        return None;
    }
    let segment = bytes.small()?;
    let epoch = Epoch(u64::from_le_bytes(bytes.array()?));
    Some(First { segment, epoch, floor: bytes.number()?, marks: take_marks(bytes)? })
}

fn take_notes(bytes: &mut Take<'_>) -> Option<Notes> {
    let floor = bytes.number()?;
    let count = bytes.count()?;
    let heads = (0..count).map(|_| Some((take_topic(bytes)?, bytes.number()?)));
    Some(Notes { floor, heads: heads.collect::<Option<_>>()? })
}

fn take_batch<'b>(bytes: &mut Take<'b>) -> Option<Batch<'b>> {
    let marks = take_marks(bytes)?;
    let count = bytes.count()?;
    let topics = (0..count).map(|_| take_topic(bytes)).collect::<Option<_>>()?;
    let shared = bytes.bytes()?;
    let count = bytes.count()?;
    Some(Batch { marks, topics, shared, count, events: *bytes })
}

impl<'b> Batch<'b> {
    /// Its events, without their bodies; `None` among them when it is not what was written.
    pub(super) fn entries(&self) -> impl Iterator<Item = Option<Entry<'b>>> {
        let mut bytes = self.events;
        let topics = self.topics.len();
        (0..self.count).map(move |_| {
            let entry = Entry {
                topic: bytes.small()?,
                seq: bytes.number()?,
                at: bytes.number()?,
                body: bytes.bytes()?,
            };
            (entry.topic < topics).then_some(entry)
        })
    }

    /// What a reader of bodies needs.
    pub(super) fn shared(&self) -> Option<Shared> {
        Shared::take(&mut Take(self.shared))
    }

    /// The event of an entry.
    pub(super) fn event(&self, entry: &Entry<'_>, shared: &Shared, epoch: Epoch) -> Option<Event> {
        let (name, audience, body) = body::take(&mut Take(entry.body), shared)?;
        Some(Event {
            topic: self.topics[entry.topic].clone(),
            position: Position { epoch, seq: entry.seq },
            at: entry.at,
            name,
            body,
            audience,
        })
    }

    /// What an entry costs.
    pub(super) fn cost(&self, entry: &Entry<'_>) -> u32 {
        cost(&self.topics[entry.topic], entry.body.len())
    }
}

fn put_topic(out: &mut Vec<u8>, topic: &Topic) {
    let kind = TopicKind::ALL.iter().position(|kind| *kind == topic.kind());
    out.push(kind.expect("all kinds are listed") as u8);
    out.put_bytes(topic.name().as_bytes());
}

fn take_topic(bytes: &mut Take<'_>) -> Option<Topic> {
    let kind = *TopicKind::ALL.get(usize::from(bytes.byte()?))?;
    let name = std::str::from_utf8(bytes.bytes()?).ok()?;
    Topic::new(kind, name).ok()
}

fn put_marks(out: &mut Vec<u8>, marks: &[Mark]) {
    out.put_number(marks.len() as u64);
    for mark in marks {
        out.put_text(Some(&mark.source));
        out.put_bytes(&mark.place);
    }
}

fn take_marks(bytes: &mut Take<'_>) -> Option<Vec<Mark>> {
    let count = bytes.count()?;
    let mark = |_| {
        let source = bytes.some_text()?.into();
        Some(Mark { source, place: bytes.bytes()?.to_vec().into() })
    };
    (0..count).map(mark).collect()
}

#[cfg(test)]
mod tests;
