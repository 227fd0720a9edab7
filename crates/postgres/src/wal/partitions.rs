//! Partitions: whose changes they are, and what happens to them without a word in the stream.
//!
//! The log tells of each row and each TRUNCATE of a partition, and [`whole`] says of which table it
//! is one. It does not tell that one is attached or detached with its rows. So the keeper looks which
//! partitions there are, and since when; what it saw last is a [`Layout`], which is kept in a history
//! that outlives the process, so that what happened while no server ran is noticed too.
//!
//! A publication of somebody else may send partitions as their table, and then PostgreSQL does not
//! send that one was truncated alone. There the layout has the file of each as well: TRUNCATE gives a
//! new one. So do VACUUM FULL, CLUSTER, an ALTER TABLE that rewrites, and TRUNCATE of the whole table,
//! which is told; the gap after them is needless, but nothing tells them apart.

mod identity;
mod keeping;
mod layout;
mod whole;

use std::collections::{BTreeSet, HashMap, HashSet};

use tidewire_protocol::Topic;
use tokio_postgres::Client;

pub(super) use identity::misfits;
pub(super) use layout::{Fate, Layout, Part, Parts};
pub(super) use whole::{Whole, whole};

/// What was seen at the last look, by the partitioned table.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<Topic, Layout>);

impl Known {
    /// Takes a state for the known one. Whoever does this tells a gap afterwards, or knows that
    /// none is due.
    pub(super) fn set(&mut self, topic: &Topic, layout: Layout) {
        self.0.insert(topic.clone(), layout);
    }

    /// What is known of a table.
    pub(super) fn get(&self, topic: &Topic) -> Option<&Layout> {
        self.0.get(topic)
    }

    /// Forgets all tables but these.
    pub(super) fn retain(&mut self, topics: &HashSet<Topic>) {
        self.0.retain(|topic, _| topics.contains(topic));
    }

    /// What became of a table; one that is seen for the first time is as it was.
    pub(super) fn fate(&self, topic: &Topic, now: &Layout) -> Fate {
        self.get(topic).map_or(Fate::Same, |before| before.fate(now))
    }

    /// The table that had this partition when it was last looked at.
    pub(super) fn table_of(&self, part: u32) -> Option<u32> {
        self.0.values().find(|layout| layout.has(part)).map(|layout| layout.table)
    }
}

/// The layouts of the partitioned ones of these tables. Takes no lock on any of them.
pub(super) async fn look(
    client: &Client,
    publication: &str,
    tables: &[u32],
) -> Result<HashMap<u32, Layout>, tokio_postgres::Error> {
    // A partition that is being detached is none any more for who reads the table.
    const SQL: &str = "\
WITH RECURSIVE tree (root, oid, joined, file) AS (
    SELECT c.oid, c.oid, NULL::int8, NULL::oid FROM pg_catalog.pg_class c
    WHERE c.oid = ANY ($1) AND c.relkind = 'p'
  UNION ALL
    SELECT t.root, c.oid, i.xmin::text::int8, c.relfilenode
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
)
SELECT root, oid, joined, CASE WHEN (SELECT pubviaroot FROM pg_catalog.pg_publication
                                     WHERE pubname = $2) THEN file ELSE 0 END
FROM tree";
    let mut found: HashMap<u32, Parts> = HashMap::new();
    for row in client.query(SQL, &[&tables, &publication]).await? {
        let parts = found.entry(row.get(0)).or_default();
        if let Some(joined) = row.get::<_, Option<i64>>(2) {
            parts.insert(row.get(1), Part { joined, file: row.get(3) });
        }
    }
    Ok(found.into_iter().map(|(table, parts)| (table, Layout::new(table, parts))).collect())
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

/// The partitions with rows of these tables, of any level.
pub(super) async fn with_rows(
    client: &Client,
    tables: &[u32],
) -> Result<HashMap<u32, BTreeSet<u32>>, tokio_postgres::Error> {
    const SQL: &str = "\
SELECT root.oid, t.relid::oid FROM pg_catalog.unnest($1::oid[]) AS root (oid)
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root.oid) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE c.relkind = 'r'";
    let mut found: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    for row in client.query(SQL, &[&tables]).await? {
        found.entry(row.get(0)).or_default().insert(row.get(1));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_seen_for_the_first_time_is_as_it_was() {
        let (mut known, orders) = (Known::default(), Topic::table("public.orders").unwrap());
        let layout = |joined| Layout::new(1, Parts::from([(2, Part { joined, file: 0 })]));
        assert_eq!(known.fate(&orders, &layout(7)), Fate::Same);
        known.set(&orders, layout(7));
        assert_eq!(known.fate(&orders, &layout(8)), Fate::Changed);
        assert_eq!((known.table_of(2), known.table_of(3)), (Some(1), None));
        known.retain(&HashSet::new());
        assert_eq!(known.fate(&orders, &layout(8)), Fate::Same);
    }
}
