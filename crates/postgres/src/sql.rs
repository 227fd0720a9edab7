//! What Tidewire installs in a database: triggers, the outbox, and functions for applications.
//!
//! The statements are in `sql/`, numbered; each is idempotent, so installing again repairs and
//! installing over an older version upgrades. All of it is one transaction under an advisory lock.
//! [`print()`] gives the same text for people who want to read it, or to run it themselves.

use std::time::Duration;

use thiserror::Error;
use tokio_postgres::Client;

use crate::connect::{ConnectError, Pool, Target};

/// The version that this program installs; one more whenever an older program could not work with it,
/// or this one not with what an older one installed.
pub const VERSION: i32 = 2;

/// The scripts in order. The first and the last are the frame of the transaction.
const SCRIPTS: [&str; 6] = [
    include_str!("../sql/000_begin.sql"),
    include_str!("../sql/001_outbox.sql"),
    include_str!("../sql/002_record.sql"),
    include_str!("../sql/003_enable.sql"),
    include_str!("../sql/004_publish.sql"),
    include_str!("../sql/999_commit.sql"),
];

const UNINSTALL: &str = include_str!("../sql/uninstall.sql");

/// What to do when nothing is installed, or an older version.
pub(crate) const NOT_INSTALLED: &str = "the outbox is not installed in this database, or an older version of it: run `tidewire sql install`";

/// How long a statement of the scripts may take; each waits at most 10 s for locks.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// How long to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where `tidewire.publish` says things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// In the table `tidewire.outbox`.
    Outbox,
    /// In the write-ahead log, by `pg_logical_emit_message`.
    Wal,
}

impl Sink {
    /// The word for it in `tidewire.settings`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Wal => "wal",
        }
    }
}

/// How to install.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// The schema of `enable_realtime` and its friends; `public` by default.
    pub schema: String,
    /// Where `tidewire.publish` says things; the outbox by default.
    pub sink: Sink,
    /// How long changes wait for a server that is down before writers remove the oldest;
    /// 10 minutes by default.
    pub retention: Duration,
    /// Puts our functions in the place of others of the same names; not by default.
    pub replace: bool,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            sink: Sink::Outbox,
            retention: Duration::from_secs(600),
            replace: false,
        }
    }
}

/// What is installed in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its version; see [`VERSION`].
    pub version: i32,
    /// The schema of `enable_realtime` and its friends.
    pub schema: String,
    /// Where `tidewire.publish` says things: `outbox` or `wal`.
    pub sink: String,
    /// How long changes wait for a server that is down.
    pub retention: Duration,
}

/// Why installing or uninstalling failed.
#[derive(Debug, Error)]
pub enum SqlError {
    /// The schema's name cannot be used.
    #[error(
        "schema {0:?} cannot be used: a name of 1 to 63 bytes without ' $ @ or control characters"
    )]
    Schema(String),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role may not do it.
    #[error(
        "{message}: run `tidewire sql install` as a role that may CREATE in the database and in \
         schema {schema}, or have such a role run what `tidewire sql print` prints"
    )]
    Right {
        /// What PostgreSQL said.
        message: String,
        /// The schema of our functions.
        schema: String,
        /// The error itself.
        source: tokio_postgres::Error,
    },
    /// PostgreSQL said no.
    #[error("{message}")]
    Server {
        /// What it said, with its hint.
        message: String,
        /// The error itself.
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("PostgreSQL did not answer within {} s", STATEMENT_LIMIT.as_secs())]
    Silence,
}

/// Installs what is not installed yet. Safe to call at any time, by several at the same time.
///
/// # Errors
/// [`SqlError`]; nothing was changed then.
pub async fn install(target: &Target, options: &InstallOptions) -> Result<(), SqlError> {
    check(&options.schema)?;
    run(target, &print(options), &options.schema).await
}

/// Removes what [`install`] made, and the triggers of all tables.
///
/// # Errors
/// [`SqlError`], for example that the role does not own one of the tables; nothing was changed
/// then.
pub async fn uninstall(target: &Target) -> Result<(), SqlError> {
    run(target, UNINSTALL, "public").await
}

/// The statements that [`install`] runs.
pub fn print(options: &InstallOptions) -> String {
    let schema = options.schema.replace('"', "\"\"");
    let retention = format!("'{} seconds'", options.retention.as_secs());
    SCRIPTS
        .concat()
        .replace("@version@", &VERSION.to_string())
        .replace("@retention@", &retention)
        .replace("@replace@", if options.replace { "true" } else { "false" })
        .replace("@sink@", &format!("'{}'", options.sink.word()))
        .replace("@surface_text@", &format!("'{}'", options.schema))
        .replace("@surface@", &format!("\"{schema}\""))
}

/// What is installed; `None` when nothing is.
///
/// # Errors
/// [`SqlError`] when the database cannot be asked.
pub async fn installation(target: &Target) -> Result<Option<Installation>, SqlError> {
    let pool = Pool::new(target, 1, CONNECT_LIMIT, STATEMENT_LIMIT);
    let connection = pool.get().await?;
    let found = connection.run(async |client| found(client).await).await;
    found.ok_or(SqlError::Silence)?.map_err(|source| explain(source, "public"))
}

/// What is installed, asked on a connection that is there already.
///
/// A role without the right to look into the schema sees a version and not the settings.
pub(crate) async fn found(client: &Client) -> Result<Option<Installation>, tokio_postgres::Error> {
    const IS_THERE: &str = "SELECT to_regclass('tidewire.versions') IS NOT NULL \
                            AND to_regclass('tidewire.settings') IS NOT NULL";
    const WHAT: &str = "SELECT (SELECT max(version) FROM tidewire.versions), surface::text, sink, \
                        extract(epoch FROM retention)::float8 FROM tidewire.settings";
    if !client.query_one(IS_THERE, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt(WHAT, &[]).await?;
    Ok(row.and_then(|row| {
        let version: Option<i32> = row.get(0);
        let retention = Duration::try_from_secs_f64(row.get(3)).unwrap_or_default();
        let (schema, sink) = (row.get(1), row.get(2));
        Some(Installation { version: version?, schema, sink, retention })
    }))
}

/// Says where `tidewire.publish` says things from now on; for the source that is in use. Nothing
/// happens where nothing is installed.
///
/// # Errors
/// When the database cannot be asked, or the role may not change it.
pub async fn set_sink(target: &Target, sink: Sink) -> Result<(), SqlError> {
    let word = sink.word();
    if installation(target).await?.is_none_or(|installed| installed.sink == word) {
        return Ok(());
    }
    run(target, &format!("UPDATE tidewire.settings SET sink = '{word}'"), "public").await
}

async fn run(target: &Target, sql: &str, schema: &str) -> Result<(), SqlError> {
    let pool = Pool::writing(target, 1, CONNECT_LIMIT, STATEMENT_LIMIT);
    let connection = pool.get().await?;
    let done = connection.run(async |client| client.batch_execute(sql).await).await;
    done.ok_or(SqlError::Silence)?.map_err(|source| explain(source, schema))
}

/// A schema's name goes into quotes of three kinds, so it may not hold what ends the others.
fn check(schema: &str) -> Result<(), SqlError> {
    let bad = |c: char| c.is_control() || matches!(c, '\'' | '$' | '@' | '\\');
    match schema.is_empty() || schema.len() > 63 || schema.contains(bad) {
        true => Err(SqlError::Schema(schema.to_owned())),
        false => Ok(()),
    }
}

/// What PostgreSQL said, with what to do.
pub(crate) fn explain(source: tokio_postgres::Error, schema: &str) -> SqlError {
    let Some(said) = source.as_db_error() else {
        return SqlError::Server { message: source.to_string(), source };
    };
    let message = match said.hint() {
        Some(hint) => format!("{} ({hint})", said.message()),
        None => said.message().to_owned(),
    };
    match said.code().code() {
        "42501" => SqlError::Right { message, schema: schema.to_owned(), source },
        "55P03" => {
            let message =
                format!("{message}: some other transaction holds it for long, try again later");
            SqlError::Server { message, source }
        }
        _ => SqlError::Server { message, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        let options =
            InstallOptions { schema: "My \"own\"".to_owned(), ..InstallOptions::default() };
        let text = print(&options);
        let left = text.split('@').count();
        assert_eq!(left, 1, "an @ is left");
        assert!(text.contains("\"My \"\"own\"\"\".notify_table_change()"));
    }

    #[test]
    fn a_schema_that_could_end_a_quote_is_refused() {
        for bad in ["", "a'b", "a$body$", "@surface@", "a\\", "a\0", &"x".repeat(64)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check("Größe \"x\" y").is_ok());
    }

    #[test]
    fn the_version_is_that_of_the_scripts() {
        let text = format!("VALUES ({VERSION}) ON CONFLICT");
        assert!(print(&InstallOptions::default()).contains(&text));
    }
}
