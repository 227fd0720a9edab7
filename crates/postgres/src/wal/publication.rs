//! The publication: which tables the server sends.
//!
//! It is our own, made empty and filled table by table, never `FOR ALL TABLES`: a table without a
//! replica identity in a publication would make the application's own UPDATE fail, and since
//! PostgreSQL 18 so would one whose identity has generated columns. So the identity is checked
//! first, and refused with the statement that mends it.
//!
//! Ours sends the changes of partitions as their own, `publish_via_partition_root = false`: only then
//! does PostgreSQL send a TRUNCATE of one, and the columns by which a deleted row of it is found.
//! [`partitions`](super::partitions) makes them those of the table. Somebody else's may send them
//! either way.

mod inspection;
mod whole;

use tidewire::sparing::Sparing;
use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;

use super::error::{WalError, WalErrorKind};
use super::sql_text::{identifier, literal, qualified, readable, readable_part};
use crate::connect::fails_again;
pub(super) use inspection::{Fit, Unfit, inspect, without_identity};
pub(crate) use whole::partial;

/// What says that tables in the publication come and go with listeners.
pub(super) const MARK: &str = "Tidewire: tables come and go with their listeners";

/// The tables whose changes come, however they came into the publication of this name: of
/// partitions that are sent as their own, the table that is in it.
macro_rules! told {
    ($name:literal) => {
        concat!(
            "\
    SELECT s.oid FROM pg_catalog.pg_publication p CROSS JOIN LATERAL (
        SELECT g.relid::oid FROM pg_catalog.pg_get_publication_tables(p.pubname::text) g
        UNION
        SELECT r.prrelid FROM pg_catalog.pg_publication_rel r
        WHERE r.prpubid = p.oid AND NOT p.pubviaroot) s (oid)
    WHERE p.pubname = ",
            $name,
            "
      AND (p.pubviaroot OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_partition_ancestors(s.oid) a
        JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = a.relid
        WHERE a.relid <> s.oid))
"
        )
    };
}

use told;

/// A publication as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) oid: u32,
    /// Whether we made it, so that what is left in it from before may be removed.
    pub(super) ours: bool,
    /// Whether PostgreSQL sends changes of partitions as those of their table.
    pub(super) via_root: bool,
}

/// A table in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) table: String,
}

/// The publication, if it is there.
pub(super) async fn find(
    client: &Client,
    name: &str,
) -> Result<Option<Publication>, tokio_postgres::Error> {
    const SQL: &str = "SELECT oid, coalesce(pg_catalog.obj_description(oid, 'pg_publication') = $2, \
                       false), pubviaroot FROM pg_catalog.pg_publication WHERE pubname = $1";
    let row = client.query_opt(SQL, &[&name, &MARK]).await?;
    Ok(row.map(|row| Publication { oid: row.get(0), ours: row.get(1), via_root: row.get(2) }))
}

/// The publication, made if it is not there.
pub(super) async fn ensure(client: &Client, name: &str) -> Result<Publication, WalError> {
    let asking = |error| WalError::statement(error, "looking for the publication");
    if let Some(publication) = find(client, name).await.map_err(asking)? {
        return parted(client, name, publication).await;
    }
    let quoted = identifier(name);
    let create = format!(
        "CREATE PUBLICATION {quoted}; COMMENT ON PUBLICATION {quoted} IS {}",
        literal(MARK)
    );
    match client.batch_execute(&create).await {
        Ok(()) => {}
        // Somebody else was quicker.
        Err(error) if code(&error) == Some("42710") => {}
        Err(error) if code(&error) == Some("42501") => return Err(may_not_create(name, error)),
        Err(error) => return Err(WalError::statement(error, "making the publication")),
    }
    let made = find(client, name).await.map_err(asking)?;
    made.ok_or_else(|| lost(name))
}

/// One of ours that an older version of this program made sends partitions as their table.
async fn parted(client: &Client, name: &str, found: Publication) -> Result<Publication, WalError> {
    if !found.ours || !found.via_root {
        return Ok(found);
    }
    let done = send_via_root(client, name, false).await;
    done.map_err(|error| WalError::statement(error, "altering the publication"))?;
    Ok(Publication { via_root: false, ..found })
}

/// The publication is not there, or not the one it was.
pub(super) fn lost(name: &str) -> WalError {
    WalError::new(
        WalErrorKind::PublicationLost,
        format!("publication \"{name}\" was dropped: it is made again, with a gap for its tables"),
    )
}

fn may_not_create(name: &str, error: tokio_postgres::Error) -> WalError {
    WalError::because(
        WalErrorKind::Privilege,
        format!(
            "publication \"{name}\" cannot be made: the role needs GRANT CREATE ON DATABASE, or \
             somebody who may makes it: CREATE PUBLICATION {}",
            readable_part(name)
        ),
        error,
    )
}

/// The tables in it, however they came there, but for those with a name that has no Unicode form:
/// whoever may make a table must not stop all others with it.
pub(super) async fn members(
    client: &Client,
    name: &str,
) -> Result<Vec<Member>, tokio_postgres::Error> {
    match named_members(client, name).await {
        Err(error) if fails_again(&error) => members_one_by_one(client, name).await,
        members => members,
    }
}

async fn members_one_by_one(
    client: &Client,
    name: &str,
) -> Result<Vec<Member>, tokio_postgres::Error> {
    const NAME: &str = "\
SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1";
    /// They are looked at again every few seconds.
    static UNREADABLE: Sparing = Sparing::new();
    let mut members = Vec::new();
    for oid in client.query(told!("$1"), &[&name]).await? {
        let oid: u32 = oid.get(0);
        match client.query_opt(NAME, &[&oid]).await {
            Err(error) if fails_again(&error) => {
                if let Some(unsaid) = UNREADABLE.due() {
                    tracing::warn!(oid, %error, unsaid, "the name of a table cannot be read");
                }
            }
            found => members.extend(found?.as_ref().map(member)),
        }
    }
    Ok(members)
}

async fn named_members(client: &Client, name: &str) -> Result<Vec<Member>, tokio_postgres::Error> {
    const SQL: &str = concat!(
        "\
SELECT c.oid, n.nspname::text, c.relname::text
FROM (",
        told!("$1"),
        ") t JOIN pg_catalog.pg_class c ON c.oid = t.oid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    );
    Ok(client.query(SQL, &[&name]).await?.iter().map(member).collect())
}

fn member(row: &tokio_postgres::Row) -> Member {
    Member { oid: row.get(0), schema: row.get(1), table: row.get(2) }
}

/// Adds a table; harmless when it is in already.
pub(super) async fn add(
    client: &Client,
    publication: &str,
    schema: &str,
    table: &str,
    fit: Fit,
) -> Result<(), Unfit> {
    if fit.member {
        return Ok(());
    }
    // Tables that inherit are tables of their own, with an identity of their own.
    let only = if fit.partitioned { "" } else { "ONLY " };
    let sql = format!(
        "ALTER PUBLICATION {} ADD TABLE {only}{}",
        identifier(publication),
        qualified(schema, table)
    );
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(()),
        Err(error) => match code(&error) {
            Some("42710") => Ok(()),
            Some("42501") => Err(Unfit::Refused(may_not_add(publication, schema, table, &error))),
            _ => Err(error.into()),
        },
    }
}

fn may_not_add(
    publication: &str,
    schema: &str,
    table: &str,
    error: &tokio_postgres::Error,
) -> Refusal {
    let words = error.as_db_error().map_or("no rights", |said| said.message());
    let sql = format!(
        "ALTER PUBLICATION {} ADD TABLE {}",
        readable_part(publication),
        readable(schema, table)
    );
    tracing::warn!(publication, schema, table, words, "a table cannot be published");
    Refusal::new(
        Code::Unavailable,
        format!("the server's role may not publish the table ({words}); its owner can: {sql}"),
    )
}

/// Takes a table out; harmless when it, or the publication, is gone.
pub(super) async fn remove(
    client: &Client,
    publication: &str,
    schema: &str,
    table: &str,
) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "ALTER PUBLICATION {} DROP TABLE ONLY {}",
        identifier(publication),
        qualified(schema, table)
    );
    match client.batch_execute(&sql).await {
        Err(error) if !matches!(code(&error), Some("42704" | "42P01" | "3F000")) => Err(error),
        _ => Ok(()),
    }
}

/// Writes the publication anew without changing it.
///
/// Before PostgreSQL 15.13 (17.5, 16.9, 14.18) a transaction that was running while a table was
/// added could leave the server believing that the table is not published; this tells it to look
/// again.
pub(super) async fn touch(client: &Client, publication: &str) -> Result<(), tokio_postgres::Error> {
    match find(client, publication).await? {
        Some(found) => send_via_root(client, publication, found.via_root).await,
        // The keeper notices.
        None => Ok(()),
    }
}

async fn send_via_root(
    client: &Client,
    publication: &str,
    via_root: bool,
) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "ALTER PUBLICATION {} SET (publish_via_partition_root = {via_root})",
        identifier(publication)
    );
    client.batch_execute(&sql).await
}

/// The transactions that have written to a table and still run, with their processes.
///
/// What they wrote before the table was published is not sent, though they commit later.
pub(super) async fn writers(
    client: &Client,
    oid: u32,
) -> Result<Vec<(String, Option<i32>)>, tokio_postgres::Error> {
    const SQL: &str = "\
SELECT DISTINCT l.virtualtransaction, l.pid FROM pg_catalog.pg_locks l
WHERE l.locktype = 'relation'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND l.relation IN (SELECT $1::oid UNION ALL SELECT relid::oid FROM pg_catalog.pg_partition_tree($1))";
    let rows = client.query(SQL, &[&oid]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The SQLSTATE of an error.
pub(super) fn code(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}
