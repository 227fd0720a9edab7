//! Which partitions tables have, and what becomes of them without a word in what the sources read:
//! rows that come or go with a partition.
//!
//! A source looks now and then, and compares the [`Layout`] with that of before. Takes no lock on any
//! table.

mod layout;

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use crate::sql::ownership::trigger_function;
pub(crate) use layout::{Fate, Layout, Part, Parts};

/// The layouts of the partitioned ones of the tables $1; `told` is whether the source would be told
/// that the partition `tree.oid` was truncated alone.
macro_rules! layouts {
    ($($told:expr),+ $(,)?) => {
        concat!(
            "\
WITH RECURSIVE tree (root, oid, joined, file) AS (
    SELECT c.oid, c.oid, NULL::int8, NULL::oid FROM pg_catalog.pg_class c
    WHERE c.oid = ANY ($1) AND c.relkind = 'p'
  UNION ALL
    SELECT t.root, c.oid, i.xmin::text::int8, c.relfilenode
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
)
SELECT root, oid, joined, file, ",
            $($told,)+
            " FROM tree"
        )
    };
}

/// For who reads this publication: TRUNCATE of a partition is sent unless its changes are sent as
/// its table's.
pub(crate) async fn published(
    client: &Client,
    publication: &str,
    tables: &[u32],
) -> Result<HashMap<u32, Layout>, tokio_postgres::Error> {
    const SQL: &str = layouts!(
        "NOT coalesce((SELECT pubviaroot FROM pg_catalog.pg_publication WHERE pubname = $2), true)"
    );
    Ok(layouts(&client.query(SQL, &[&tables, &publication]).await?))
}

/// For who reads the outbox: TRUNCATE of a partition is in it where there is a trigger.
pub(crate) async fn recorded(
    client: &Client,
    tables: &[u32],
) -> Result<HashMap<u32, Layout>, tokio_postgres::Error> {
    const SQL: &str = layouts!(
        "EXISTS (SELECT FROM pg_catalog.pg_trigger t
                 WHERE t.tgrelid = tree.oid AND t.tgtype = 32 AND t.tgqual IS NULL
                   AND t.tgenabled IN ('O', 'A') AND t.tgfoid = ",
        trigger_function!(),
        ")"
    );
    Ok(layouts(&client.query(SQL, &[&tables]).await?))
}

fn layouts(rows: &[Row]) -> HashMap<u32, Layout> {
    let mut found: HashMap<u32, Parts> = HashMap::new();
    for row in rows {
        let parts = found.entry(row.get(0)).or_default();
        if let Some(joined) = row.get::<_, Option<i64>>(2) {
            parts.insert(row.get(1), Part { joined, file: row.get(3), told: row.get(4) });
        }
    }
    found.into_iter().map(|(table, parts)| (table, Layout::new(table, parts))).collect()
}

/// A partition of the table, of any level, that is a foreign table: its schema and its name.
pub(super) async fn foreign(
    client: &Client,
    table: u32,
) -> Result<Option<(String, String)>, tokio_postgres::Error> {
    const SQL: &str = "\
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_partition_tree($1::oid) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'f' ORDER BY c.oid LIMIT 1";
    Ok(client.query_opt(SQL, &[&table]).await?.map(|row| (row.get(0), row.get(1))))
}

/// Whether no row came with any of these: each was made as a partition, so that all its rows were
/// told, or all of them have no rows and never had any since their file was made.
pub(super) async fn brought_nothing(
    client: &Client,
    parts: &[u32],
) -> Result<bool, tokio_postgres::Error> {
    // ATTACH writes the columns of the table anew, later than its type. Whatever else does so is
    // taken for it.
    const SQL: &str = "\
SELECT coalesce(pg_catalog.bool_and(made.so)
             OR pg_catalog.bool_and(coalesce(pg_catalog.pg_relation_size(part.oid), 1) = 0), false)
FROM pg_catalog.unnest($1::oid[]) AS part (oid) CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.bool_and(
               a.xmin = i.xmin AND a.xmin = t.xmin AND a.cmin::text = t.cmin::text), false) AS so
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.oid = c.reltype
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.oid = part.oid) made";
    Ok(client.query_one(SQL, &[&parts]).await?.get(0))
}
