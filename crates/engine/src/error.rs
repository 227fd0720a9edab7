//! What an operator is told when a part of the engine fails.

use std::fmt;

/// A boxed cause.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Which part failed; small enough to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The history could not append or read.
    History,
    /// The broker could not announce or follow.
    Broker,
    /// The presence store could not be reached.
    Presence,
    /// The draft was refused before it reached the history.
    Refused,
    /// The history has as many topics as it may have.
    Full,
}

/// A failure of a part, with its cause kept.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: Kind,
    source: Source,
}

impl Error {
    /// A failure of `kind` because of `source`.
    pub fn new(kind: Kind, source: impl Into<Source>) -> Self {
        Self { kind, source: source.into() }
    }

    /// What a client is told whose request failed so; the cause is logged, once in a while.
    pub fn refusal(&self) -> tidewire_protocol::Refusal {
        crate::publisher::unavailable(self)
    }

    /// Which part failed.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::History => "the history failed",
            Kind::Broker => "the broker failed",
            Kind::Presence => "the presence store failed",
            Kind::Refused => "the draft was refused",
            Kind::Full => "the history takes no more topics",
        })
    }
}
