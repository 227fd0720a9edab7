//! What Tidewire installs in a database: triggers, the outbox, and functions for applications.
//!
//! The statements are in `sql/`, numbered; each is idempotent, so installing again repairs and
//! installing over an older version upgrades. All of it is one transaction, and refuses before it does
//! anything where a stranger owns something of it (`ownership`). [`print()`] gives the same text for
//! people who want to read it, or to run it themselves.

pub(crate) mod ownership;
pub(crate) mod triggers;

use std::time::Duration;

use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::connect::{ConnectError, Pool, Target};

/// The version that this program installs; one more whenever an older program could not work with it,
/// or this one not with what an older one installed.
pub const VERSION: i32 = 3;

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

/// What to do when nothing is installed.
const NOT_INSTALLED: &str =
    "the outbox is not installed in this database: run `tidewire sql install`";

/// Largest payload of `tidewire.publish`, in bytes of JSON. A quarter of what a reader of the log takes
/// by default (`wal.row_bytes`), since a message is there with its name and its signature.
pub const PAYLOAD_BYTES: usize = 16 << 20;

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
    /// The role as which functions run that others call; `None` of an older version.
    pub definer: Option<String>,
    /// What belongs to a stranger, so that nothing of the installation is run or read further; the
    /// other fields say nothing then.
    pub untrusted: Option<String>,
}

impl Installation {
    /// Of something that a stranger may have made.
    fn untrusted(what: String) -> Self {
        let (schema, sink, retention) = ("public".to_owned(), String::new(), Duration::ZERO);
        Self { version: 0, schema, sink, retention, definer: None, untrusted: Some(what) }
    }
}

/// An installation that can be worked with, or why there is none and what to do.
pub(crate) fn usable(installed: Option<Installation>) -> Result<Installation, String> {
    let Some(installed) = installed else { return Err(NOT_INSTALLED.to_owned()) };
    if let Some(what) = &installed.untrusted {
        return Err(format!(
            "{what}, which is neither this role nor one that could act as it, so nothing of it is \
             used: look who made it, drop it and run `tidewire sql install`, or run the server as \
             the role that installed it"
        ));
    }
    match installed.version < VERSION {
        true => Err(outdated(installed.version)),
        false => Ok(installed),
    }
}

/// What to do about an older version.
pub(crate) fn outdated(version: i32) -> String {
    format!(
        "version {version} of Tidewire's SQL is installed, which is vulnerable: the owner of a table \
         or any role with temporary tables can act as the role that installed it; run `tidewire sql \
         install`"
    )
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
    /// What is installed belongs to a stranger, or is an older version.
    #[error("{0}")]
    Unusable(String),
    /// No answer in time.
    #[error("PostgreSQL did not answer within {} s", STATEMENT_LIMIT.as_secs())]
    Silence,
}

impl SqlError {
    /// Whether it stays until somebody does something: a right that is missing, or something of a
    /// stranger's that is in the way.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Schema(_) | Self::Right { .. } | Self::Unusable(_) => true,
            Self::Server { source, .. } => {
                source.code().is_some_and(|code| code.code().starts_with("TW"))
            }
            Self::Connect(_) | Self::Silence => false,
        }
    }
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
    run(target, &ownership::fill(UNINSTALL), "public").await
}

/// The statements that [`install`] runs.
pub fn print(options: &InstallOptions) -> String {
    let schema = options.schema.replace('"', "\"\"");
    let retention = format!("'{} seconds'", options.retention.as_secs());
    let script = SCRIPTS.concat();
    triggers::fill(&ownership::fill(&script))
        .replace("@frame_line@", &line(&script, "GET DIAGNOSTICS stack").to_string())
        .replace(
            "@call_line@",
            &line(&script, "IF pg_catalog.to_regproc('tidewire.record')").to_string(),
        )
        .replace("@version@", &VERSION.to_string())
        .replace("@payload_bytes@", &PAYLOAD_BYTES.to_string())
        .replace("@retention@", &retention)
        .replace("@replace@", if options.replace { "true" } else { "false" })
        .replace("@sink@", &format!("'{}'", options.sink.word()))
        .replace("@surface_text@", &format!("'{}'", options.schema))
        .replace("@surface@", &format!("\"{schema}\""))
}

/// The line of a function's body in which a statement begins, as PostgreSQL counts: what follows the
/// opening quote is line 1.
fn line(script: &str, statement: &str) -> usize {
    let before = &script[..script.find(statement).expect("the scripts have it")];
    let body = &before[before.rfind("$body$").expect("it is in a function")..];
    1 + body.matches('\n').count()
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

/// What is installed, asked on a connection that is there already. Nothing that a stranger owns is run
/// or read.
///
/// A role without the right to look into the tables gets an error.
pub(crate) async fn found(client: &Client) -> Result<Option<Installation>, tokio_postgres::Error> {
    const IS_THERE: &str = "SELECT pg_catalog.to_regclass('tidewire.versions') IS NOT NULL \
                            AND pg_catalog.to_regclass('tidewire.settings') IS NOT NULL";
    // Columns come with versions, and a row has those that its table has.
    const WHAT: &str = "SELECT (SELECT pg_catalog.max(v.version) FROM tidewire.versions v), \
                        s.surface::pg_catalog.text, s.sink, \
                        extract(epoch FROM s.retention)::pg_catalog.float8, \
                        pg_catalog.to_jsonb(s) OPERATOR(pg_catalog.->>) 'definer' \
                        FROM tidewire.settings s";
    if let Some(what) = stranger(client.query(STRANGERS, &[]).await?.first()) {
        return Ok(Some(Installation::untrusted(what)));
    }
    if !client.query_one(IS_THERE, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt(WHAT, &[]).await?;
    let installed = row.and_then(|row| {
        let version: Option<i32> = row.get(0);
        let retention = Duration::try_from_secs_f64(row.get(3)).unwrap_or_default();
        let (schema, sink, definer, untrusted) = (row.get(1), row.get(2), row.get(4), None);
        Some(Installation { version: version?, schema, sink, retention, definer, untrusted })
    });
    let Some(installed) = installed else { return Ok(None) };
    let surface = client.query(SURFACE_STRANGERS, &[&installed.schema]).await?;
    Ok(Some(stranger(surface.first()).map_or(installed, Installation::untrusted)))
}

/// What in schema `tidewire` belongs to a stranger.
const STRANGERS: &str = concat!(
    "SELECT o.what, pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text FROM (",
    ownership::tidewire_objects!(),
    ") o (what, owner) WHERE NOT ",
    ownership::trusted!("o.owner"),
    " LIMIT 1"
);

/// What of ours in the schema $1 belongs to a stranger.
const SURFACE_STRANGERS: &str = concat!(
    "SELECT o.what, pg_catalog.pg_get_userbyid(o.owner)::pg_catalog.text FROM (",
    ownership::surface_objects!("$1::pg_catalog.text"),
    ") o (what, owner) WHERE NOT ",
    ownership::trusted!("o.owner"),
    " LIMIT 1"
);

fn stranger(row: Option<&Row>) -> Option<String> {
    let (what, owner): (String, String) = row.map(|row| (row.get(0), row.get(1)))?;
    Some(format!("{what} belongs to role {owner}"))
}

/// The key with which `tidewire.publish` signs what it writes to the log; `None` where nothing is
/// installed that may be used, or this role may not read it.
pub(crate) async fn message_key(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    const SQL: &str = "SELECT s.message_key FROM tidewire.settings s";
    let asked = async {
        if let Err(why) = usable(found(client).await?) {
            tracing::debug!(why, "messages in the log are not published");
            return Ok(None);
        }
        Ok(client.query_opt(SQL, &[]).await?.map(|row| row.get(0)))
    };
    match asked.await {
        Err(error) if is_denied(&error) => {
            tracing::warn!(
                "messages of tidewire.publish in the log are not published: GRANT SELECT ON \
                 tidewire.versions, tidewire.settings to the role of the server"
            );
            Ok(None)
        }
        answer => answer,
    }
}

/// Whether a right is missing.
pub(crate) fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// Sets where `tidewire.publish` writes from now on, for the source that is in use. Nothing happens where
/// nothing is installed.
///
/// # Errors
/// When the database cannot be asked, or the role may not change it, or what is installed is a
/// stranger's or an older version.
pub async fn set_sink(target: &Target, sink: Sink) -> Result<(), SqlError> {
    let word = sink.word();
    let Some(installed) = installation(target).await? else { return Ok(()) };
    let installed = usable(Some(installed)).map_err(SqlError::Unusable)?;
    if installed.sink == word {
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
        // In a jsonpath an @ is followed by no letter.
        let left = text.split('@').skip(1).find(|rest| rest.starts_with(char::is_alphabetic));
        assert_eq!(left, None);
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
