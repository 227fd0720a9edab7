//! What is said: a [`Draft`] before it has a place, an [`Event`] after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::change::Change;
use crate::json;
use crate::position::Position;
use crate::presence::PresenceDiff;
use crate::topic::Topic;

/// Something to be said on a topic; becomes an [`Event`] when the history gives it a position.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it is said.
    pub topic: Topic,
    /// The publisher's own name for this sort of event, such as `order.created`.
    pub name: Option<Arc<str>>,
    /// What is said.
    pub body: Body,
    /// Who of the listeners may receive it.
    pub audience: Audience,
}

impl Draft {
    /// A message for everyone who listens to the topic.
    pub fn message(topic: Topic, payload: Payload) -> Self {
        Self { topic, name: None, body: Body::Message(payload), audience: Audience::Everyone }
    }

    /// A row that changed, for everyone who listens to its table.
    pub fn change(topic: Topic, change: Change) -> Self {
        let body = Body::Change(Arc::new(change));
        Self { topic, name: None, body, audience: Audience::Everyone }
    }

    /// A mark that events of the topic were missed here.
    pub fn gap(topic: Topic, reason: GapReason) -> Self {
        Self { topic, name: None, body: Body::Gap(reason), audience: Audience::Everyone }
    }
}

/// Something that was said, with its place in the topic.
///
/// Only a history makes one; see the engine's `History::append`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it was said.
    pub topic: Topic,
    /// Its place; the next event of the topic has the next one.
    pub position: Position,
    /// When the history accepted it, in milliseconds since 1970.
    pub at: u64,
    /// The publisher's own name for this sort of event.
    pub name: Option<Arc<str>>,
    /// What was said.
    pub body: Body,
    /// Who of the listeners may receive it.
    pub audience: Audience,
}

impl Event {
    /// The event that a draft becomes at `position`.
    pub fn new(draft: Draft, position: Position, at: u64) -> Self {
        let Draft { topic, name, body, audience } = draft;
        Self { topic, position, at, name, body, audience }
    }

    /// Bytes of content, for limits; the fixed parts are not counted.
    pub fn content_bytes(&self) -> usize {
        self.body.bytes() + self.name.as_ref().map_or(0, |name| name.len())
    }
}

/// What is said.
#[derive(Clone, Debug)]
pub enum Body {
    /// A payload, passed on as it came.
    Message(Payload),
    /// Events of this topic were missed at this place: its source was not listening.
    Gap(GapReason),
    /// Members came or went; only on presence topics.
    Presence(Arc<PresenceDiff>),
    /// A row changed; only on tables.
    Change(Arc<Change>),
}

impl Body {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(payload) => payload.len(),
            Self::Gap(_) => 0,
            Self::Presence(diff) => diff.bytes(),
            Self::Change(change) => change.bytes(),
        }
    }
}

/// Content that is passed on as it came; never parsed unless a filter asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// JSON text, known to be well formed.
    Json(Arc<str>),
    /// Any text, such as the payload of a NOTIFY.
    Text(Arc<str>),
    /// Any bytes.
    Binary(Bytes),
}

/// The text cannot be passed on as JSON to every listener.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PayloadError(String);

impl Payload {
    /// A payload of JSON text, kept byte for byte.
    ///
    /// # Errors
    /// [`PayloadError`] when some usual reader would refuse the text: it is not JSON, has more
    /// than 100 levels, a number beyond a double, or half a surrogate pair.
    pub fn json(text: &str) -> Result<Self, PayloadError> {
        json::check(text).map_err(|error| PayloadError(error.to_string()))?;
        Ok(Self::Json(text.into()))
    }

    /// What PostgreSQL can carry in a NOTIFY: the content of a JSON string, or any other JSON as
    /// its text without white space.
    ///
    /// # Errors
    /// [`PayloadError`] as for [`Payload::json`], and when the text would contain NUL, which
    /// PostgreSQL cannot store.
    pub fn notify(text: &str) -> Result<Self, PayloadError> {
        json::check(text).map_err(|error| PayloadError(error.to_string()))?;
        let content = serde_json::from_str(text).unwrap_or_else(|_| json::compact(text));
        if content.contains('\0') {
            return Err(PayloadError("PostgreSQL text cannot contain NUL".to_owned()));
        }
        Ok(Self::Text(content.into()))
    }

    /// Bytes of content.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) | Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why events between two places cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The position is of another run of numbers: the history was lost and began again.
    EpochChanged,
    /// The events are older than what the history keeps.
    HistoryTrimmed,
    /// The position is ahead of everything the history has.
    PositionUnknown,
    /// The connection to the source was lost; what was said meanwhile never arrived.
    ConnectionLost,
    /// Nobody was subscribed for a while, so the source was not listened to.
    NotListening,
}

impl GapReason {
    /// All reasons, in the order of the documentation.
    pub const ALL: [GapReason; 5] = [
        Self::EpochChanged,
        Self::HistoryTrimmed,
        Self::PositionUnknown,
        Self::ConnectionLost,
        Self::NotListening,
    ];

    /// The word for it on every wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::EpochChanged => "epoch_changed",
            Self::HistoryTrimmed => "history_trimmed",
            Self::PositionUnknown => "position_unknown",
            Self::ConnectionLost => "connection_lost",
            Self::NotListening => "not_listening",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who of a topic's listeners may receive an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All of them.
    Everyone,
    /// All but one session: the one that said it and asked for no echo.
    Except(SessionId),
}

impl Audience {
    /// Whether `session` may receive the event.
    pub fn admits(self, session: SessionId) -> bool {
        self != Self::Except(session)
    }
}

/// One connected client; random, so that it is unique over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}
