//! What a client is told about its requests.

use std::sync::Arc;

use crate::change::{Relation, Row};
use crate::command::{Reference, Tag};
use crate::event::{GapReason, SessionId};
use crate::position::Position;
use crate::presence::Member;
use crate::topic::Topic;

/// One thing told to one client; events are told through
/// [`Dialect::event`](crate::dialect::Dialect::event) instead.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The session is open.
    Welcome {
        /// The session's id.
        session: SessionId,
        /// Who the client is taken for; absent when anonymous.
        subject: Option<Arc<str>>,
    },
    /// Events of a topic will follow.
    Subscribed {
        /// Which topic.
        topic: Topic,
        /// Events after this place follow.
        position: Position,
        /// Whether anything between `since` and `position` is missing.
        outcome: Outcome,
        /// Who is there, when presence was asked for.
        members: Option<Vec<Member>>,
        /// What the dialect wanted back.
        tag: Option<Tag>,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// Events of a topic no longer follow because the client asked so.
    Unsubscribed {
        /// Which topic.
        topic: Topic,
        /// What the dialect wanted back, if there was a subscription.
        tag: Option<Tag>,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// Events of a topic no longer follow because the client may not have them any more.
    Ended {
        /// Which topic.
        topic: Topic,
        /// What the dialect wanted back.
        tag: Option<Tag>,
        /// Why.
        refusal: Refusal,
    },
    /// It was said.
    Published {
        /// On which topic.
        topic: Topic,
        /// Where; absent for a NOTIFY channel, where PostgreSQL says it and it comes back as an
        /// event.
        position: Option<Position>,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// The client is seen on a topic.
    Tracked {
        /// Which topic.
        topic: Topic,
        /// The member that others see.
        member: Member,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// The client is no longer seen on a topic.
    Untracked {
        /// Which topic.
        topic: Topic,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// Everyone who is on a topic; replaces what the client knew.
    Members {
        /// Which topic.
        topic: Topic,
        /// Who is there.
        members: Vec<Member>,
        /// What the dialect wanted back.
        tag: Option<Tag>,
    },
    /// Rows of a table as they are, before its changes follow; several of these make a snapshot.
    Rows {
        /// Which table.
        topic: Topic,
        /// The table's columns.
        relation: Arc<Relation>,
        /// Some of its rows.
        rows: Vec<Row>,
        /// The columns that are told; `None` for all.
        columns: Option<Arc<[Arc<str>]>>,
        /// Whether the snapshot is complete with these.
        last: bool,
        /// What the dialect wanted back.
        tag: Option<Tag>,
    },
    /// The token was accepted.
    Authenticated {
        /// Who the client is now taken for.
        subject: Option<Arc<str>>,
        /// When the token runs out, in seconds since 1970.
        expires_at: Option<u64>,
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// A sign of life.
    Pong {
        /// The client's id for the request.
        reference: Option<Reference>,
    },
    /// The request was not carried out.
    Refused(Refusal),
}

/// What became of a wish to go on from a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No position was given: events from now on.
    Fresh,
    /// Everything after the given position follows.
    Resumed,
    /// Something after the given position is lost; events from the answer's position on follow.
    Gap(GapReason),
}

/// Why a request was not carried out; the connection lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the documented reasons.
    pub code: Code,
    /// What to change, in words; begins with a small letter.
    pub message: String,
    /// The topic the request was about.
    pub topic: Option<Topic>,
    /// The client's id for the request.
    pub reference: Option<Reference>,
}

impl Refusal {
    /// A refusal that names neither request nor topic yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), topic: None, reference: None }
    }

    /// The same, about `topic`.
    #[must_use]
    pub fn about(mut self, topic: &Topic) -> Self {
        self.topic = Some(topic.clone());
        self
    }

    /// The same, in answer to the request with this id.
    #[must_use]
    pub fn to(mut self, reference: Option<Reference>) -> Self {
        self.reference = reference.or(self.reference);
        self
    }
}

/// When it makes sense to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before the request is changed.
    Never,
    /// The same request may succeed after a pause.
    Later,
    /// With a new or better token.
    WithToken,
}

impl Retry {
    /// The word for it on every wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::WithToken => "with_token",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $status:literal, $retry:ident;)+) => {
        /// Why a request was refused.
        ///
        /// Each has a word for wires, an HTTP status, and advice; `docs/errors.md` lists them and
        /// a test keeps the two equal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Self::$name,)+];

            /// The word for it on every wire.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The HTTP status for it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// When it makes sense to ask again.
            pub fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)+ }
            }

            /// What it means, as in the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc, " ",)+).trim(),)+ }
            }
        }
    };
}

codes! {
    /// The frame or body is not JSON.
    BadJson = "bad_json", 400, Never;
    /// The frame is binary where the dialect has text only.
    BinaryFrame = "binary_frame", 400, Never;
    /// The request has no type, or one that the dialect does not know.
    UnknownType = "unknown_type", 400, Never;
    /// A field is missing.
    MissingField = "missing_field", 400, Never;
    /// A field is of the wrong type, unknown, or contradicts another.
    BadField = "bad_field", 400, Never;
    /// The name is not a topic: empty, too long, or with control characters.
    BadTopic = "bad_topic", 400, Never;
    /// The position is not one that this server printed.
    BadPosition = "bad_position", 400, Never;
    /// The payload or batch is larger than allowed.
    TooLarge = "too_large", 413, Never;
    /// The same idempotency key came with a different request.
    KeyReused = "key_reused", 409, Never;
    /// More requests in a second than allowed.
    RateLimited = "rate_limited", 429, Later;
    /// The client uses all that one may of something that all share.
    OverBudget = "over_budget", 429, Later;
    /// More subscriptions on one connection than allowed.
    TooManySubscriptions = "too_many_subscriptions", 429, Never;
    /// More members on one topic than allowed.
    TooManyMembers = "too_many_members", 429, Later;
    /// The server has as many topics in use as it allows.
    TooManyTopics = "too_many_topics", 503, Later;
    /// The request needs a subscription to the topic first.
    NotSubscribed = "not_subscribed", 409, Never;
    /// The request needs a token.
    Unauthorized = "unauthorized", 401, WithToken;
    /// The token is malformed, signed by a stranger, or not meant for this server.
    TokenInvalid = "token_invalid", 401, WithToken;
    /// The token has run out or is not valid yet.
    TokenExpired = "token_expired", 401, WithToken;
    /// The token does not allow this.
    Forbidden = "forbidden", 403, WithToken;
    /// The browser page that asks is of an origin that is not allowed.
    OriginForbidden = "origin_forbidden", 403, Never;
    /// A token was shown but this server has no authentication configured.
    AuthenticationOff = "authentication_off", 400, Never;
    /// This server has no source for such topics, for example no PostgreSQL.
    NotConfigured = "not_configured", 501, Never;
    /// A part of the server that the request needs is down.
    Unavailable = "unavailable", 503, Later;
    /// The server has as many connections as it allows.
    TooManyConnections = "too_many_connections", 503, Later;
    /// No such thing here.
    NotFound = "not_found", 404, Never;
    /// The server failed; its log says why.
    Internal = "internal", 500, Later;
}
