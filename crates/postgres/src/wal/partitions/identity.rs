//! Whether the partitions of a table tell its key when a row of theirs is deleted.
//!
//! The replica identity is each partition's own: that of the table is not handed on to it. One whose
//! identity lacks a column of the table's key would tell of rows that nobody can find.

use tokio_postgres::{Client, Row};

use crate::key::key_columns;
use crate::wal::sql_text::{readable, readable_part};

/// A table with a partition of which not enough is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) table: u32,
    /// Which partition, what is wrong with it, and the statement that mends it.
    pub(crate) words: String,
}

/// The names of the columns of index `i`, without those that it only includes.
macro_rules! names_of_index {
    () => {
        "ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = i.indrelid
                 AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]))"
    };
}

/// Of each of these tables the first partition that tells too little. Where PostgreSQL sends
/// partitions as their table, it takes for told what the table's identity says, and sends NULL for
/// what the partition's does not tell.
const MISFITS: &str = concat!(
    "\
WITH need AS (
    SELECT c.oid, via.root AND c.relreplident = 'f' AS whole,
           CASE WHEN via.root THEN coalesce((
               SELECT ",
    names_of_index!(),
    " FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND CASE c.relreplident
                   WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
           ), '{}') ELSE ARRAY(
               SELECT a.attname::text FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = c.oid AND a.attnum = ANY (",
    key_columns!("c.oid"),
    ")) END AS names
    FROM pg_catalog.pg_class c CROSS JOIN (SELECT coalesce((
        SELECT pubviaroot FROM pg_catalog.pg_publication WHERE pubname = $2), false)) via (root)
    WHERE c.oid = ANY ($1) AND c.relkind = 'p'
)
SELECT DISTINCT ON (n.oid) n.oid, pn.nspname::text, p.relname::text, n.names, n.whole,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid AND i.indisprimary
               AND i.indimmediate AND n.names <@ ",
    names_of_index!(),
    ") AS by_key,
       (SELECT ic.relname::text FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        WHERE i.indrelid = p.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
          AND i.indpred IS NULL AND i.indexprs IS NULL AND n.names <@ ",
    names_of_index!(),
    "
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid
                          AND a.attnum = ANY (i.indkey)
                          AND (NOT a.attnotnull OR a.attgenerated <> ''))
        ORDER BY i.indnkeyatts, ic.relname LIMIT 1) AS candidate
FROM need n CROSS JOIN LATERAL pg_catalog.pg_partition_tree(n.oid) t
JOIN pg_catalog.pg_class p ON p.oid = t.relid AND p.relkind = 'r'
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE p.relreplident <> 'f' AND (n.whole OR n.names <> '{}' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = p.oid
    AND CASE p.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident
        ELSE false END
    AND n.names <@ ",
    names_of_index!(),
    "))
ORDER BY n.oid, p.oid"
);

/// Which of these tables have partitions of which too little is told.
pub(crate) async fn misfits(
    client: &Client,
    publication: &str,
    tables: &[u32],
) -> Result<Vec<Misfit>, tokio_postgres::Error> {
    Ok(client.query(MISFITS, &[&tables, &publication]).await?.iter().map(misfit).collect())
}

fn misfit(row: &Row) -> Misfit {
    let part = readable(row.get(1), row.get(2));
    let (names, whole): (Vec<String>, bool) = (row.get(3), row.get(4));
    let (by_key, candidate): (bool, Option<String>) = (row.get(5), row.get(6));
    let names: Vec<String> = names.iter().map(|name| readable_part(name)).collect();
    let what = match whole {
        true => "whole rows, as its table's replica identity says".to_owned(),
        false => format!("({}), the key of its table", names.join(", ")),
    };
    let identity = match candidate {
        _ if whole => "FULL".to_owned(),
        _ if by_key => "DEFAULT".to_owned(),
        Some(index) => format!("USING INDEX {}", readable_part(&index)),
        None => "FULL".to_owned(),
    };
    let words = format!(
        "the replica identity of {part} does not tell {what}: ALTER TABLE {part} REPLICA IDENTITY \
         {identity}"
    );
    Misfit { table: row.get(0), words }
}
