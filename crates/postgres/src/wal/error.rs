//! Why the write-ahead log cannot be read, in words that say the fix.

use thiserror::Error;

use crate::connect::replication::{LineError, Said};
use crate::connect::{ConnectError, ErrorKind, code_fails_again};

/// What is wrong, small enough to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WalErrorKind {
    /// The server keeps too little in its log: `wal_level` is not `logical`.
    WalLevel,
    /// The server is older than PostgreSQL 14.
    Version,
    /// The role may not replicate, or may not make a publication.
    Privilege,
    /// All replication slots, or all processes that send the log, are in use.
    NoneFree,
    /// Our own slot is being read by another process; we stand by.
    SlotInUse,
    /// The server gave up our slot, or it was dropped.
    SlotLost,
    /// A slot can only be made once a transaction that runs has ended.
    SlotWaits,
    /// The publication was dropped.
    PublicationLost,
    /// We fell so far behind that we let go of the slot.
    TooFarBehind,
    /// What running transactions wrote cannot be kept until they commit.
    Unstreamable,
    /// The history does not take what was read.
    History,
    /// What is said on the stream makes no sense to us.
    Protocol,
    /// The database cannot be reached, or the connection was lost.
    Connection(ErrorKind),
}

impl WalErrorKind {
    /// A word for it, by which it is counted.
    pub fn word(self) -> &'static str {
        match self {
            Self::WalLevel => "wal_level",
            Self::Version => "version",
            Self::Privilege => "privilege",
            Self::NoneFree => "none_free",
            Self::SlotInUse => "slot_in_use",
            Self::SlotLost => "slot_lost",
            Self::SlotWaits => "slot_waits",
            Self::PublicationLost => "publication_lost",
            Self::TooFarBehind => "too_far_behind",
            Self::Unstreamable => "unstreamable",
            Self::History => "history",
            Self::Protocol => "protocol",
            Self::Connection(_) => "connection",
        }
    }
}

/// A failed attempt to read the write-ahead log; the message never holds a password.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct WalError {
    kind: WalErrorKind,
    message: String,
    /// Where in the message that begins which does not name the server.
    nameless: usize,
    /// The server said it, and would say so again.
    fails_again: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl WalError {
    pub(super) fn new(kind: WalErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), nameless: 0, fails_again: false, source: None }
    }

    pub(super) fn because(
        kind: WalErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            nameless: 0,
            fails_again: false,
            source: Some(source.into()),
        }
    }

    /// What is wrong.
    pub fn kind(&self) -> WalErrorKind {
        self.kind
    }

    /// Whether the server said that it cannot do what it was asked to, and not that it cannot now.
    pub(super) fn fails_again(&self) -> bool {
        self.fails_again
    }

    /// What a client may read of it, which is not where the database is; `None` where there is no
    /// more to it than that.
    pub(crate) fn nameless(&self) -> Option<&str> {
        match self.kind {
            WalErrorKind::Connection(_) => None,
            _ => self.message.get(self.nameless..),
        }
    }

    /// Whether this database cannot be read this way until somebody changes its configuration, so
    /// that another source is the better choice.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.kind,
            WalErrorKind::WalLevel
                | WalErrorKind::Version
                | WalErrorKind::Privilege
                | WalErrorKind::NoneFree
                | WalErrorKind::Connection(ErrorKind::Pooler | ErrorKind::Standby)
        )
    }

    /// A line that could not be opened, or broke.
    pub(super) fn line(error: LineError, place: &str) -> Self {
        match error {
            LineError::Said(said) => Self::said(&said, place),
            other => other.explain(place).into(),
        }
    }

    /// What the server said on a line.
    pub(super) fn said(said: &Said, place: &str) -> Self {
        let Some((kind, fix)) = judge(said) else {
            let error: Self = LineError::Said(said.clone()).explain(place).into();
            return Self { fails_again: code_fails_again(&said.code), ..error };
        };
        let server = format!("PostgreSQL at {place}: ");
        let mut error = Self::new(kind, format!("{server}{said}{fix}"));
        error.nameless = server.len();
        error
    }

    /// What the server said to a statement of ours.
    pub(super) fn statement(error: tokio_postgres::Error, what: &str) -> Self {
        let kind = match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("42501") => WalErrorKind::Privilege,
            Some("42704") => WalErrorKind::PublicationLost,
            Some("25006") => WalErrorKind::Connection(ErrorKind::Standby),
            _ => WalErrorKind::Connection(ErrorKind::Server),
        };
        let words = match error.as_db_error() {
            Some(said) => said.message().to_owned(),
            None => error.to_string(),
        };
        Self::because(kind, format!("{what}: {words}"), error)
    }
}

impl From<ConnectError> for WalError {
    fn from(error: ConnectError) -> Self {
        let kind = WalErrorKind::Connection(error.kind());
        Self::because(kind, error.to_string(), error)
    }
}

/// What an SQLSTATE means on a connection for replication.
fn judge(said: &Said) -> Option<(WalErrorKind, &'static str)> {
    Some(match said.code.as_str() {
        "42501" => (
            WalErrorKind::Privilege,
            " (as a superuser: ALTER ROLE … REPLICATION; on RDS: GRANT rds_replication TO …)",
        ),
        "53400" => (
            WalErrorKind::NoneFree,
            " (raise max_replication_slots, or drop a slot that nobody reads: SELECT * FROM \
             pg_replication_slots)",
        ),
        "53300" => (
            WalErrorKind::NoneFree,
            " (raise max_wal_senders or max_connections, or end another reader)",
        ),
        "55006" => (WalErrorKind::SlotInUse, " (it is tried again every second)"),
        "55000" => (WalErrorKind::SlotLost, ""),
        "42704" => (WalErrorKind::PublicationLost, ""),
        "08P01" => (
            WalErrorKind::Connection(ErrorKind::Pooler),
            " (a pooler cannot replicate: use a direct connection to PostgreSQL)",
        ),
        _ => return None,
    })
}
