//! Whether a table can be published without harm, and if not, the statement that mends it.

use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;

use super::{Member, member, partial, told};
use crate::wal::partitions::misfits;
use crate::wal::sql_text::{readable, readable_part};

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

/// Those of them that were altered since they were published, so that every UPDATE fails now.
pub(in crate::wal) async fn without_identity(
    client: &Client,
    name: &str,
) -> Result<Vec<Member>, tokio_postgres::Error> {
    Ok(client.query(WITHOUT_IDENTITY, &[&name]).await?.iter().map(member).collect())
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
       bad.column_id, bad.late_key, bad.late_columns, rc.relname::text AS root_table, rn.nspname::text AS root_schema
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
                   AND a.attname = 'id' AND NOT a.attisdropped) AS column_id,
           (SELECT k.conname::text FROM pg_catalog.pg_constraint k
            WHERE k.conrelid = p.oid AND k.contype = 'p' AND k.condeferrable) AS late_key,
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY x.place)
            FROM pg_catalog.pg_constraint k
            CROSS JOIN pg_catalog.unnest(k.conkey) WITH ORDINALITY x (attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum = x.attnum
            WHERE k.conrelid = p.oid AND k.contype = 'p' AND k.condeferrable) AS late_columns
",
    parts_without_identity!(),
    "    ORDER BY p.oid LIMIT 1) bad ON true
LEFT JOIN pg_catalog.pg_class rc ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
WHERE n.nspname = $1::pg_catalog.text AND c.relname = $2::pg_catalog.text"
);

/// A table that may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wal) struct Fit {
    pub(in crate::wal) oid: u32,
    pub(in crate::wal) partitioned: bool,
    /// Whether it is published already, perhaps by somebody else, whose table it is.
    pub(super) member: bool,
}

/// Why not.
#[derive(Debug)]
pub(in crate::wal) enum Unfit {
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
pub(in crate::wal) async fn inspect(
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
            if let Some(partial) = partial(client, publication, &[fit.oid]).await?.pop() {
                return refuse(Code::NotConfigured, partial.words);
            }
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
    let late = row.get::<_, Option<String>>("late_key").zip(row.get("late_columns"));
    if let Some((key, columns)) =
        late.filter(|(_, _): &(String, String)| !row.get::<_, bool>("generated"))
    {
        return format!(
            "its key is DEFERRABLE: ALTER TABLE {part} DROP CONSTRAINT {}, ADD PRIMARY KEY ({columns})",
            readable_part(&key)
        );
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
