//! Why a database could not be reached, in words that say the fix.

use std::error::Error as _;
use std::io;

use thiserror::Error;
use tokio_postgres::error::SqlState;

/// What is wrong, small enough to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection string, a file it names, or the database's name is wrong; trying again
    /// without a change is no use.
    Configuration,
    /// Nothing answers there, or the connection broke.
    Unreachable,
    /// The server does not let this user in.
    Authentication,
    /// No TLS where it is required, or a certificate that is not trusted.
    Tls,
    /// The server is starting up or shutting down; try again shortly.
    Starting,
    /// The server has no connection left for us.
    TooManyConnections,
    /// The server is a standby, where LISTEN is impossible.
    Standby,
    /// Notifications do not arrive although LISTEN succeeded: a pooler stands between.
    Pooler,
    /// The server said something else.
    Server,
}

/// A failed attempt to reach or use a database.
///
/// The message never holds a password. The source is what tokio-postgres said, where it said
/// anything.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct ConnectError {
    kind: ErrorKind,
    message: String,
    source: Option<tokio_postgres::Error>,
}

impl ConnectError {
    /// An error that tokio-postgres has no part in.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// What tokio-postgres said about `place`, a host and port, with the fix.
    pub(crate) fn explain(source: tokio_postgres::Error, place: &str) -> Self {
        let (kind, fix) = judge(&source);
        let message = format!("PostgreSQL at {place}: {}{fix}", innermost(&source));
        Self { kind, message, source: Some(source) }
    }

    /// Whether what answered, a pooler, takes no settings in the first message, or a server too old
    /// to know all of them.
    pub(super) fn refuses_settings(&self) -> bool {
        let Some(said) = self.source.as_ref().and_then(tokio_postgres::Error::as_db_error) else {
            return false;
        };
        said.message().contains("startup parameter")
            || said.message().contains("unrecognized configuration parameter")
    }

    /// Whether what was asked would fail again however often it is asked.
    pub(crate) fn fails_again(&self) -> bool {
        self.source.as_ref().is_some_and(fails_again)
    }

    /// What is wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The kind of an error, and what to do about it.
fn judge(error: &tokio_postgres::Error) -> (ErrorKind, &'static str) {
    match error.code() {
        Some(code) => judge_code(code.code()),
        None => judge_words(&error.to_string()),
    }
}

/// The same by an SQLSTATE.
pub(super) fn judge_code(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "28P01" => (ErrorKind::Authentication, " (check user and password)"),
        "28000" => (
            ErrorKind::Authentication,
            " (the server's pg_hba.conf decides who may come in, and whether sslmode must be \
             require or disable)",
        ),
        "3D000" => (ErrorKind::Configuration, " (create it, or name another in the URL)"),
        "42704" | "42501" => (ErrorKind::Authentication, ""),
        "57P03" => (ErrorKind::Starting, " (it will be tried again)"),
        "57P01" | "57P02" => (ErrorKind::Unreachable, " (it will be tried again)"),
        "53300" => (
            ErrorKind::TooManyConnections,
            " (raise max_connections, or close some of the other connections)",
        ),
        "25006" => (ErrorKind::Standby, STANDBY_FIX),
        _ => (ErrorKind::Server, ""),
    }
}

/// Whether the same statement would fail again however often it is carried out: what it reads is at
/// fault, or the statement itself, and not the moment.
pub(crate) fn fails_again(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code_fails_again(code.code()))
}

/// The same by an SQLSTATE.
pub(crate) fn code_fails_again(code: &str) -> bool {
    // Data, rights and names, what is not supported, limits of a value, what is damaged.
    const CLASSES: [&str; 7] = ["22", "2F", "42", "0A", "38", "54", "XX"];
    // No memory for one value, however much there is for others.
    const OUT_OF_MEMORY: &str = "53200";
    CLASSES.iter().any(|class| code.starts_with(class)) || code == OUT_OF_MEMORY
}

/// What to do when the server is a standby.
pub(crate) const STANDBY_FIX: &str = " (LISTEN works on the primary only: connect there, or add target_session_attrs=read-write and \
     name all hosts)";

/// What to do when a session may not write although `target_session_attrs` asks for it.
const READ_ONLY_FIX: &str = " (it is a standby, or default_transaction_read_only is on for this role or database: ALTER ROLE \
     … SET default_transaction_read_only = off, or leave target_session_attrs out)";

/// tokio-postgres keeps its kinds to itself, so its fixed words are what there is to match on.
fn judge_words(words: &str) -> (ErrorKind, &'static str) {
    if words.contains("TLS handshake") {
        return (ErrorKind::Tls, " (check sslmode, sslrootcert and the host's name)");
    }
    if words.contains("does not allow writes") {
        return (ErrorKind::Standby, READ_ONLY_FIX);
    }
    if words.contains("authentication") || words.contains("invalid configuration") {
        return (ErrorKind::Authentication, " (check user and password)");
    }
    (ErrorKind::Unreachable, " (check that it runs there and that no firewall is between)")
}

/// The words of the last error in the chain, with the server's detail where it gave one.
fn innermost(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return match said.detail() {
            Some(detail) => format!("{}, {detail}", said.message()),
            None => said.message().to_owned(),
        };
    }
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        words = format!("{words}: {inner}");
        // An error inside an io::Error prints the same again, so its own source is next.
        next = match inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inside) => inside.source(),
            None => inner.source(),
        };
    }
    words
}

/// Whether TLS itself failed, as opposed to what was said over it.
pub(super) fn is_tls(error: &tokio_postgres::Error) -> bool {
    judge(error).0 == ErrorKind::Tls
}

/// Whether the server refused this way of connecting: `no pg_hba.conf entry …, no encryption`.
pub(super) fn is_refused_by_hba(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}
