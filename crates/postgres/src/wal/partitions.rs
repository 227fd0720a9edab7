//! What happens to the partitions of a table without a word in the stream: one is attached or
//! detached with its rows, or is truncated alone, which PostgreSQL does not send where changes are
//! those of the partitioned table.
//!
//! So the keeper looks which partitions there are, and with which file: TRUNCATE gives a partition
//! a new one. So do VACUUM FULL, CLUSTER, an ALTER TABLE that rewrites, and TRUNCATE of the whole
//! table, which is told; the gap after them is needless, but nothing tells them apart.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::Client;

/// The partitions of a table that hold rows, each with the number of its file.
pub(super) type Parts = BTreeMap<u32, u32>;

/// What became of a table's partitions since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Same,
    /// Only new ones came, which may have had rows before.
    Grown(Vec<u32>),
    /// Rows came or went untold.
    Changed,
}

/// What was seen at the last look, by the partitioned table.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<u32, Parts>);

impl Known {
    /// Takes a state for the known one. Whoever does this tells a gap afterwards, or knows that
    /// none is due.
    pub(super) fn set(&mut self, table: u32, parts: Parts) {
        self.0.insert(table, parts);
    }

    /// Forgets all tables but these.
    pub(super) fn retain(&mut self, tables: &HashSet<u32>) {
        self.0.retain(|table, _| tables.contains(table));
    }

    /// What became of a table; one that is seen for the first time is as it was.
    pub(super) fn fate(&self, table: u32, now: &Parts) -> Fate {
        self.0.get(&table).map_or(Fate::Same, |before| fate(before, now))
    }
}

fn fate(before: &Parts, now: &Parts) -> Fate {
    if before.iter().any(|(part, file)| now.get(part) != Some(file)) {
        return Fate::Changed;
    }
    let new: Vec<u32> = now.keys().filter(|part| !before.contains_key(part)).copied().collect();
    if new.is_empty() { Fate::Same } else { Fate::Grown(new) }
}

/// The partitions of the partitioned ones of these tables. Takes no lock on any of them.
pub(super) async fn look(
    client: &Client,
    tables: &[u32],
) -> Result<HashMap<u32, Parts>, tokio_postgres::Error> {
    // A partition that is being detached is none any more for who reads the table.
    const SQL: &str = "\
WITH RECURSIVE tree (root, oid, relkind, file) AS (
    SELECT c.oid, c.oid, c.relkind, c.relfilenode FROM pg_catalog.pg_class c
    WHERE c.oid = ANY ($1) AND c.relkind = 'p'
  UNION ALL
    SELECT t.root, c.oid, c.relkind, c.relfilenode
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
)
SELECT root, oid, file, relkind = 'p' FROM tree";
    let mut found: HashMap<u32, Parts> = HashMap::new();
    for row in client.query(SQL, &[&tables]).await? {
        let parts = found.entry(row.get(0)).or_default();
        if !row.get::<_, bool>(3) {
            parts.insert(row.get(1), row.get(2));
        }
    }
    Ok(found)
}

/// Whether all of these have no rows and never had any since their file was made, as those that
/// are made ahead of time.
pub(super) async fn are_empty(
    client: &Client,
    parts: &[u32],
) -> Result<bool, tokio_postgres::Error> {
    const SQL: &str =
        "SELECT pg_catalog.bool_and(coalesce(pg_catalog.pg_relation_size(oid), 1) = 0)
                       FROM pg_catalog.unnest($1::oid[]) AS part (oid)";
    let all: Option<bool> = client.query_one(SQL, &[&parts]).await?.get(0);
    Ok(all.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(pairs: &[(u32, u32)]) -> Parts {
        pairs.iter().copied().collect()
    }

    #[test]
    fn a_partition_that_is_gone_or_has_another_file_has_changed_the_table() {
        let mut known = Known::default();
        assert_eq!(known.fate(1, &parts(&[(2, 20)])), Fate::Same, "it was never looked at");
        known.set(1, parts(&[(2, 20), (3, 30)]));
        for (now, expected) in [
            (parts(&[(2, 20), (3, 30)]), Fate::Same),
            (parts(&[(2, 20), (3, 31)]), Fate::Changed),
            (parts(&[(2, 20)]), Fate::Changed),
            (parts(&[(2, 20), (3, 30), (4, 40)]), Fate::Grown(vec![4])),
            (parts(&[(2, 20), (3, 31), (4, 40)]), Fate::Changed),
        ] {
            assert_eq!(known.fate(1, &now), expected, "{now:?}");
        }
        known.retain(&HashSet::new());
        assert_eq!(known.fate(1, &parts(&[])), Fate::Same);
    }
}
