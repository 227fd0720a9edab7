//! Of which table a relation is a partition, and how that looks.

use tokio_postgres::Client;

use crate::key::key_columns;

/// A table as which the rows of its partitions are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wal) struct Whole {
    pub(in crate::wal) oid: u32,
    pub(in crate::wal) schema: String,
    pub(in crate::wal) table: String,
    /// The names of its columns, in their order.
    pub(in crate::wal) columns: Vec<String>,
    /// Those of its key.
    pub(in crate::wal) key: Vec<String>,
}

impl Whole {
    /// The order in which columns of a partition, which have these names, are told: that of the
    /// table, and behind it those that the table has no more.
    pub(in crate::wal) fn order<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<usize> {
        let place = |name: &str| self.columns.iter().position(|column| column == name);
        let mut order: Vec<(usize, usize)> = names
            .enumerate()
            .map(|(at, name)| (place(name).unwrap_or(self.columns.len()), at))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }
}

/// The uppermost table in the publication that a relation is a partition of, or else the table that
/// it was one of when that was `remembered`; `None` for a relation that is told as itself.
pub(in crate::wal) async fn whole(
    client: &Client,
    publication: &str,
    relation: u32,
    remembered: Option<u32>,
) -> Result<Option<Whole>, tokio_postgres::Error> {
    const SQL: &str = concat!(
        "\
WITH whole AS (
    SELECT coalesce((
        SELECT a.relid::oid
        FROM pg_catalog.pg_partition_ancestors($1::oid) WITH ORDINALITY a (relid, level)
        JOIN pg_catalog.pg_publication_rel r ON r.prrelid = a.relid
        JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = $2
        WHERE a.relid <> $1::oid ORDER BY a.level DESC LIMIT 1), $3::oid) AS oid
)
SELECT c.oid, n.nspname::text, c.relname::text,
       array_agg(a.attname::text ORDER BY a.attnum),
       coalesce(array_agg(a.attname::text) FILTER (WHERE a.attnum = ANY (",
        key_columns!("c.oid"),
        ")), '{}')
FROM whole w JOIN pg_catalog.pg_class c ON c.oid = w.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.oid, n.nspname, c.relname"
    );
    let row = client.query_opt(SQL, &[&relation, &publication, &remembered]).await?;
    Ok(row.map(|row| Whole {
        oid: row.get(0),
        schema: row.get(1),
        table: row.get(2),
        columns: row.get(3),
        key: row.get(4),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_in_the_order_of_the_table() {
        let columns = ["id", "n", "later"].map(str::to_owned).to_vec();
        let (schema, table, key) = (String::new(), String::new(), Vec::new());
        let whole = Whole { oid: 1, schema, table, columns, key };
        let order = |names: &[&'static str]| whole.order(names.iter().copied());
        assert_eq!(order(&["id", "n", "later"]), [0, 1, 2]);
        assert_eq!(order(&["n", "gone", "id", "dropped"]), [2, 0, 1, 3]);
        assert_eq!(order(&[]), [0_usize; 0]);
    }
}
