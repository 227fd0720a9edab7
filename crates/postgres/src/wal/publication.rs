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

use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;

use super::error::{WalError, WalErrorKind};
use super::partitions::misfits;
use super::sql_text::{identifier, literal, qualified, readable, readable_part};

/// What says that tables in the publication come and go with listeners.
const MARK: &str = "Tidewire: tables come and go with their listeners";

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

/// The tables in it, however they came there.
pub(super) async fn members(
    client: &Client,
    name: &str,
) -> Result<Vec<Member>, tokio_postgres::Error> {
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

/// Those of them that were altered since they were published, so that every UPDATE fails now.
pub(super) async fn without_identity(
    client: &Client,
    name: &str,
) -> Result<Vec<Member>, tokio_postgres::Error> {
    Ok(client.query(WITHOUT_IDENTITY, &[&name]).await?.iter().map(member).collect())
}

fn member(row: &tokio_postgres::Row) -> Member {
    Member { oid: row.get(0), schema: row.get(1), table: row.get(2) }
}

/// The parts of table `c`, or itself, that PostgreSQL would refuse to update once published.
macro_rules! parts_without_identity {
    () => {
        "\
    FROM pg_catalog.pg_class p JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_catalog.current_setting('server_version_num')::int4 >= 180000
           AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid
                       AND a.attgenerated <> '' AND NOT a.attisdropped
                       AND (p.relreplident = 'f' OR EXISTS (
                           SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid
                           AND a.attnum = ANY (i.indkey)
                           AND CASE p.relreplident WHEN 'd' THEN i.indisprimary
                               ELSE i.indisreplident END))) AS generated) part
    WHERE p.relkind = 'r'
      AND (p.oid = c.oid OR c.relkind = 'p'
           AND p.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))
      AND NOT CASE
          WHEN part.generated THEN false
          ELSE CASE p.relreplident
          WHEN 'f' THEN true
          WHEN 'd' THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid
                                AND i.indisprimary AND i.indimmediate AND i.indisvalid)
          WHEN 'i' THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid
                                AND i.indisreplident AND i.indisvalid)
          ELSE false END END
"
    };
}

/// Members that lost their identity.
const WITHOUT_IDENTITY: &str = concat!(
    "\
SELECT c.oid, n.nspname::text, c.relname::text
FROM (",
    told!("$1"),
    ") t JOIN pg_catalog.pg_class c ON c.oid = t.oid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE EXISTS (
    SELECT
",
    parts_without_identity!(),
    ")"
);

/// What is asked about a table; the identity is that of the first part that has none.
const TABLE: &str = concat!(
    "\
SELECT c.oid, c.relkind::text, c.relpersistence::text,
       c.oid IN (",
    told!("$3"),
    ") AS member,
       n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname LIKE 'pg\\_%' AS system,
       bad.nspname::text AS bad_schema, bad.relname::text AS bad_table,
       bad.relreplident::text AS bad_identity, bad.generated, bad.has_key, bad.candidate,
       bad.column_id, rc.relname::text AS root_table, rn.nspname::text AS root_schema
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT pn.nspname, p.relname, p.relreplident, part.generated,
           EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid AND i.indisprimary
                   AND i.indimmediate AND i.indisvalid) AS has_key,
           (SELECT ic.relname::text FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
            WHERE i.indrelid = p.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
              AND i.indpred IS NULL AND i.indexprs IS NULL
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid
                              AND a.attnum = ANY (i.indkey)
                              AND (NOT a.attnotnull OR a.attgenerated <> ''))
            ORDER BY i.indnkeyatts, ic.relname LIMIT 1) AS candidate,
           EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid
                   AND a.attname = 'id' AND NOT a.attisdropped) AS column_id
",
    parts_without_identity!(),
    "    ORDER BY p.oid LIMIT 1) bad ON true
LEFT JOIN pg_catalog.pg_class rc ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
WHERE n.nspname = $1 AND c.relname = $2"
);

/// A table that may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) oid: u32,
    pub(super) partitioned: bool,
    /// Whether it is published already, perhaps by somebody else, whose table it is.
    member: bool,
}

/// Why not.
#[derive(Debug)]
pub(super) enum Unfit {
    /// For good, until somebody changes the database.
    Refused(Refusal),
    /// PostgreSQL could not be asked.
    Failed(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Unfit {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

/// Checks that a table is there and can be published without harm.
pub(super) async fn inspect(
    client: &Client,
    publication: &str,
    schema: &str,
    table: &str,
) -> Result<Fit, Unfit> {
    let shown = readable(schema, table);
    let refuse = |code, words: String| Err(Unfit::Refused(Refusal::new(code, words)));
    let Some(row) = client.query_opt(TABLE, &[&schema, &table, &publication]).await? else {
        return refuse(Code::NotFound, format!("there is no table {shown}"));
    };
    let kind: String = row.get("relkind");
    let persistence: String = row.get("relpersistence");
    if row.get("system") || !matches!(kind.as_str(), "r" | "p") {
        return refuse(Code::BadTopic, format!("{shown} is not a table of rows that change"));
    }
    // Where somebody else's publication sends partitions as tables of their own, they are.
    if let (Some(root), false) = (row.get::<_, Option<String>>("root_table"), row.get("member")) {
        let root = readable(row.get("root_schema"), &root);
        return refuse(
            Code::BadTopic,
            format!("{shown} is a partition: its changes are told as those of {root}"),
        );
    }
    if persistence != "p" {
        return refuse(
            Code::BadTopic,
            format!(
                "{shown} is not in the write-ahead log: ALTER TABLE {shown} SET LOGGED, or use \
                 the source outbox"
            ),
        );
    }
    match row.get::<_, Option<String>>("bad_table") {
        Some(bad) => {
            let part = readable(row.get("bad_schema"), &bad);
            let what = match row.get("generated") {
                true => {
                    "has generated columns in its replica identity, and PostgreSQL 18 would \
                         refuse to update it once it is published"
                }
                false => "has no replica identity",
            };
            refuse(Code::BadTopic, format!("{part} {what}: {}", fix(&part, &row)))
        }
        None => {
            let fit =
                Fit { oid: row.get("oid"), partitioned: kind == "p", member: row.get("member") };
            match misfits(client, publication, &[fit.oid]).await?.pop() {
                Some(misfit) => refuse(Code::BadTopic, misfit.words),
                None => Ok(fit),
            }
        }
    }
}

/// The statement that gives a table an identity.
fn fix(part: &str, row: &tokio_postgres::Row) -> String {
    let identity: String = row.get("bad_identity");
    if row.get("has_key") && identity != "d" {
        return format!("ALTER TABLE {part} REPLICA IDENTITY DEFAULT");
    }
    match row.get::<_, Option<String>>("candidate") {
        Some(index) => {
            format!("ALTER TABLE {part} REPLICA IDENTITY USING INDEX {}", readable_part(&index))
        }
        None if row.get("generated") => {
            "give it a key of columns that are not generated, or use the source outbox".to_owned()
        }
        None if row.get("column_id") => format!("ALTER TABLE {part} ADD PRIMARY KEY (id)"),
        None => format!(
            "ALTER TABLE {part} ADD PRIMARY KEY (…) with the columns that tell its rows apart, or \
             ALTER TABLE {part} REPLICA IDENTITY FULL"
        ),
    }
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
