//! The ordered memory of topics.

mod memory;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
pub use memory::{MemoryHistory, MemorySettings};
pub(crate) use memory::{cost, overhead};
use tidewire_protocol::{Draft, Event, GapReason, Position, Topic};

use crate::error::{Error, Kind};

/// How much of one topic is kept; whichever limit is reached first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Events; 1,000 by default, 0 keeps none.
    pub events: usize,
    /// Bytes of content and bookkeeping; 1 MiB by default.
    pub bytes: usize,
    /// Age; an hour by default.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { events: 1_000, bytes: 1 << 20, age: Duration::from_secs(3_600) }
    }
}

/// Part of a topic's history.
#[derive(Clone, Debug)]
pub enum Page {
    /// The events that follow the position asked for, oldest first, without a hole; empty when
    /// there are none yet.
    Events(Vec<Arc<Event>>),
    /// The events right after the position cannot be had.
    Lost {
        /// Where the topic is now.
        head: Position,
        /// Why.
        reason: GapReason,
    },
}

/// How far a source of events is, in its own words: kept together with the events up to there, so
/// that after a restart the source neither repeats one nor misses one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which source; at most 511 bytes, unique over all sources that share the history.
    pub source: Arc<str>,
    /// Where it is; replaces the mark of before. Empty to forget the source.
    pub place: Bytes,
}

/// What the sources of marks begin with that are idempotency keys of publications.
///
/// Such a mark is kept with the one event beside which it was appended, and where the history has
/// room for it as long as keys are remembered; it is never given by [`History::marks`].
pub const KEY_PREFIX: &str = "key/";

/// An idempotency key that outlived the process in which it was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// The mark that was appended with the publication; its source begins with [`KEY_PREFIX`].
    pub mark: Mark,
    /// Where the publication is.
    pub position: Position,
    /// When it was published, in milliseconds since 1970.
    pub at: u64,
}

/// The ordered memory of topics.
///
/// Implementers promise, and the conformance suite checks: positions of one topic and epoch have
/// no holes; an event is readable before `append` returns; a read never skips; a position of
/// another epoch is [`Page::Lost`]; `head` never goes back within an epoch; a topic that is read
/// at least once in ten minutes keeps its epoch and its head while the process lives.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Gives each draft its position, in order; one result for each draft.
    async fn append(&self, drafts: Vec<Draft>) -> Vec<Result<Arc<Event>, Error>>;

    /// At most `limit` events after `after`, oldest first.
    ///
    /// # Errors
    /// When the store cannot be reached; not when the events are gone, see [`Page::Lost`].
    async fn read(&self, topic: &Topic, after: Position, limit: usize) -> Result<Page, Error>;

    /// At most `limit` events before `before` (the newest when absent), newest first.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn read_back(
        &self,
        topic: &Topic,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// The place after the newest event.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn head(&self, topic: &Topic) -> Result<Position, Error>;

    /// The place before the oldest event still kept; equal to the head when none is.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn earliest(&self, topic: &Topic) -> Result<Position, Error>;

    /// Called about once a second, for stores that let go of old events themselves.
    fn tick(&self) {}

    /// Whether the history outlives the process and keeps marks beside its events.
    ///
    /// Where it does not, a source that begins again need not fear to repeat what is there: nothing
    /// is, and every client is told so by the new epoch.
    fn keeps_marks(&self) -> bool {
        false
    }

    /// Appends drafts and marks together: either all of them are kept or none is. Without drafts it
    /// keeps the marks alone.
    ///
    /// # Errors
    /// When nothing was kept; always where [`History::keeps_marks`] says no.
    async fn append_marked(
        &self,
        drafts: Vec<Draft>,
        marks: Vec<Mark>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let (_, _) = (drafts, marks);
        Err(Error::new(Kind::History, "this history keeps no marks"))
    }

    /// The keys of publications that were kept and are not too old, oldest first; given once, to
    /// whoever asks first after the history was opened.
    fn published_keys(&self) -> Vec<PublishedKey> {
        Vec::new()
    }

    /// The newest mark of a source, if there is one.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn mark(&self, source: &str) -> Result<Option<Bytes>, Error> {
        let _ = source;
        Ok(None)
    }

    /// The newest marks of all sources of which the names begin so.
    ///
    /// # Errors
    /// When the store cannot be reached.
    async fn marks(&self, prefix: &str) -> Result<Vec<Mark>, Error> {
        let _ = prefix;
        Ok(Vec::new())
    }
}
