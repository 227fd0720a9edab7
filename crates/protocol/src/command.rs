//! What a client may ask, in any dialect.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::Payload;
use crate::interest::Interest;
use crate::position::{Position, PositionError};
use crate::topic::Topic;

/// One request of a client.
#[derive(Clone, Debug)]
pub enum Command {
    /// Begin to receive a topic's events.
    Subscribe(Subscription),
    /// Stop receiving a topic's events.
    Unsubscribe {
        /// Which topic.
        topic: Topic,
        /// Which of the session's subscriptions to it, see [`Subscription::key`]; all when absent.
        key: Option<Arc<str>>,
        /// The client's id for this request.
        reference: Option<Reference>,
    },
    /// Say something on a topic.
    Publish(Publication),
    /// Be seen on a topic.
    Track {
        /// Which topic; the client must be subscribed to it.
        topic: Topic,
        /// What the application calls the member; the subject of the token when absent.
        key: Option<Arc<str>>,
        /// JSON text to attach.
        meta: Arc<str>,
        /// The client's id for this request.
        reference: Option<Reference>,
    },
    /// No longer be seen on a topic.
    Untrack {
        /// Which topic.
        topic: Topic,
        /// The client's id for this request.
        reference: Option<Reference>,
    },
    /// Show a token, the first or a newer one.
    Authenticate {
        /// The token.
        token: Token,
        /// The client's id for this request.
        reference: Option<Reference>,
    },
    /// Ask for a sign of life.
    Ping {
        /// The client's id for this request.
        reference: Option<Reference>,
    },
}

impl Command {
    /// The client's id for the request.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Subscribe(wish) => wish.reference.as_ref(),
            Self::Publish(publication) => publication.reference.as_ref(),
            Self::Unsubscribe { reference, .. }
            | Self::Track { reference, .. }
            | Self::Untrack { reference, .. }
            | Self::Authenticate { reference, .. }
            | Self::Ping { reference } => reference.as_ref(),
        }
    }

    /// The topic that the request is about.
    pub fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Subscribe(wish) => Some(&wish.topic),
            Self::Publish(publication) => Some(&publication.topic),
            Self::Unsubscribe { topic, .. }
            | Self::Track { topic, .. }
            | Self::Untrack { topic, .. } => Some(topic),
            Self::Authenticate { .. } | Self::Ping { .. } => None,
        }
    }
}

/// A wish to receive a topic's events.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Which topic.
    pub topic: Topic,
    /// From where.
    pub since: Since,
    /// Whether to be told who is there, now and as it changes.
    pub presence: bool,
    /// What of a table is wanted; everything for other topics.
    pub interest: Interest,
    /// Whether the rows of a table as they are now come first.
    pub snapshot: bool,
    /// What the dialect wants back with every event of this subscription.
    pub tag: Option<Tag>,
    /// It follows from another request, such as to publish: where the session is subscribed to the
    /// topic already, nothing is done.
    pub implied: bool,
    /// Tells this one from the session's other subscriptions to the topic; a second with the same
    /// key replaces the first.
    pub key: Option<Arc<str>>,
    /// The client's id for this request.
    pub reference: Option<Reference>,
}

impl Subscription {
    /// Events from now on, without presence.
    pub fn to(topic: Topic) -> Self {
        Self {
            topic,
            since: Since::Now,
            presence: false,
            interest: Interest::default(),
            snapshot: false,
            tag: None,
            implied: false,
            key: None,
            reference: None,
        }
    }
}

/// From where events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Only what comes.
    Now,
    /// Everything the history still has, then what comes.
    Earliest,
    /// Everything after this place, then what comes.
    Position(Position),
}

/// The words `now` and `earliest` or a printed position, as in a request's or query's `since`.
impl FromStr for Since {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        match text {
            "now" => Ok(Self::Now),
            "earliest" => Ok(Self::Earliest),
            position => position.parse().map(Self::Position),
        }
    }
}

/// Something a client says.
#[derive(Clone, Debug)]
pub struct Publication {
    /// On which topic.
    pub topic: Topic,
    /// The client's own name for this sort of event.
    pub name: Option<Arc<str>>,
    /// What is said.
    pub payload: Payload,
    /// Whether the client wants to receive it too if it listens to the topic.
    pub echo: bool,
    /// Repeats with the same key are said once.
    pub idempotency_key: Option<Arc<str>>,
    /// Whether the client wants to be told that it was said.
    pub confirm: bool,
    /// The client's id for this request.
    pub reference: Option<Reference>,
}

/// A client's id for a request, kept as the JSON text it was written in and sent back the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(pub Arc<str>);

/// What a dialect must remember for a subscription; only the dialect reads it.
///
/// Subscriptions with equal tags share encoded frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub Arc<str>);

/// A client's token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Wraps the text so that it cannot be printed by accident.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever checks it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}
