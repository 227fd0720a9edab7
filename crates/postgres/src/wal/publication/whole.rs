//! Whether a publication sends everything of a table: each kind of change, every row, every column.
//!
//! One that somebody else made may not, and whoever listens would take a part for the whole: the
//! snapshot of a table, its stream and filters on it would speak of different rows.

use tokio_postgres::Client;

use super::super::sql_text::{readable, readable_part};

/// A table of which something is not sent, and the statement that mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) table: u32,
    pub(crate) words: String,
}

/// What a publication leaves out of tables. Rows of catalogs come as JSON where their columns
/// differ between versions.
const PARTIAL: &str = "\
SELECT t.oid, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
       pg_catalog.to_jsonb(p) ->> 'pubgencols' = 's' AND EXISTS (
           SELECT FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = t.oid AND a.attgenerated = 's' AND NOT a.attisdropped) AS generated,
       part.nspname::pg_catalog.text AS schema, part.relname::pg_catalog.text AS name,
       part.filtered
FROM pg_catalog.pg_publication p CROSS JOIN pg_catalog.unnest($2::pg_catalog.oid[]) t (oid)
LEFT JOIN LATERAL (
    SELECT n.nspname, c.relname, r.entry ->> 'prqual' IS NOT NULL AS filtered
    FROM (SELECT m.prrelid, m.prpubid, pg_catalog.to_jsonb(m) AS entry
          FROM pg_catalog.pg_publication_rel m) r
    JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE r.prpubid = p.oid
      AND (r.entry ->> 'prqual' IS NOT NULL OR r.entry ->> 'prattrs' IS NOT NULL)
      AND (r.prrelid = t.oid
           OR r.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(t.oid))
           OR r.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(t.oid)))
    ORDER BY c.oid LIMIT 1) part ON true
WHERE p.pubname = $1::pg_catalog.text";

/// Of these tables those of which the publication sends a part only.
pub(crate) async fn partial(
    client: &Client,
    publication: &str,
    tables: &[u32],
) -> Result<Vec<Partial>, tokio_postgres::Error> {
    let rows = client.query(PARTIAL, &[&publication, &tables]).await?;
    let judge = |row: &tokio_postgres::Row| {
        let words = why(row, &readable_part(publication))?;
        Some(Partial { table: row.get(0), words })
    };
    Ok(rows.iter().filter_map(judge).collect())
}

fn why(row: &tokio_postgres::Row, publication: &str) -> Option<String> {
    let kinds = ["insert", "update", "delete", "truncate"];
    let sent = |at: &usize| row.get::<_, bool>(at + 1);
    let missing: Vec<&str> = (0..4).filter(|at| !sent(at)).map(|at| kinds[at]).collect();
    if !missing.is_empty() {
        return Some(format!(
            "publication {publication} does not send {}: ALTER PUBLICATION {publication} SET \
             (publish = 'insert, update, delete, truncate')",
            missing.join(", ")
        ));
    }
    if let Some(name) = row.get::<_, Option<String>>("name") {
        let table = readable(row.get("schema"), &name);
        let what = if row.get("filtered") { "rows" } else { "columns" };
        return Some(format!(
            "publication {publication} sends only some {what} of {table}: ALTER PUBLICATION \
             {publication} DROP TABLE {table}; ALTER PUBLICATION {publication} ADD TABLE {table}"
        ));
    }
    row.get::<_, Option<bool>>("generated").unwrap_or_default().then(|| {
        format!(
            "publication {publication} sends generated columns, which snapshots and filters do \
             not have: ALTER PUBLICATION {publication} SET (publish_generated_columns = none)"
        )
    })
}
