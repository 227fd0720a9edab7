//! Partitions: whose changes they are, and what happens to them without a word in the stream.
//!
//! The log tells of each row and each TRUNCATE of a partition, and [`whole`] says of which table it
//! is one. It does not tell that one is attached or detached with its rows. So the keeper looks which
//! partitions there are; what it saw last is a [`Layout`], which is kept in a history that outlives
//! the process, so that what happened while no server ran is noticed too.
//!
//! A publication of somebody else may send partitions as their table, and then PostgreSQL does not
//! send that one was truncated alone.

mod identity;
mod keeping;
mod members;
mod whole;

use std::collections::{BTreeSet, HashMap, HashSet};

use tidewire_protocol::Topic;
use tokio_postgres::Client;

use crate::partitions::{Fate, Layout};
pub(crate) use identity::misfits;
pub(super) use members::Members;
pub(super) use whole::{Whole, whole};

/// What was seen at the last look, by the partitioned table.
#[derive(Debug, Default)]
pub(super) struct Known {
    layouts: HashMap<Topic, Layout>,
    /// Partitions with rows in the log that no look has found yet.
    met: Met,
}

/// Partitions by the table that their rows are told of.
pub(super) type Met = HashMap<u32, BTreeSet<u32>>;

impl Known {
    /// Takes a state for the known one. Whoever does this tells a gap afterwards, or knows that
    /// none is due.
    pub(super) fn set(&mut self, topic: &Topic, layout: Layout) {
        self.layouts.insert(topic.clone(), layout);
    }

    /// What is known of a table.
    pub(super) fn get(&self, topic: &Topic) -> Option<&Layout> {
        self.layouts.get(topic)
    }

    /// Forgets all tables but these.
    pub(super) fn retain(&mut self, topics: &HashSet<Topic>) {
        self.layouts.retain(|topic, _| topics.contains(topic));
    }

    /// What became of a table; one that is seen for the first time is as it was.
    pub(super) fn fate(&self, topic: &Topic, now: &Layout) -> Fate {
        self.get(topic).map_or(Fate::Same, |before| before.fate(now))
    }

    /// The table that had this partition when it was last looked at.
    pub(super) fn table_of(&self, part: u32) -> Option<u32> {
        self.layouts.values().find(|layout| layout.has(part)).map(|layout| layout.table)
    }

    /// Rows of a partition are told as the table's from here on: it may be gone at the next look,
    /// and nothing but this tells then that it was there.
    pub(super) fn meet(&mut self, table: u32, part: u32) {
        if !self.layouts.values().any(|layout| layout.table == table && layout.has(part)) {
            self.met.entry(table).or_default().insert(part);
        }
    }

    /// Partitions that no look has found yet. One that begins after this call is to find them.
    pub(super) fn met(&self) -> Met {
        self.met.clone()
    }

    /// Forgets partitions that were met: a look found them, or the gap is told of those it did not.
    pub(super) fn found(&mut self, table: u32, parts: impl IntoIterator<Item = u32>) {
        let Some(met) = self.met.get_mut(&table) else { return };
        for part in parts {
            met.remove(&part);
        }
        if met.is_empty() {
            self.met.remove(&table);
        }
    }
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
    use crate::partitions::{Part, Parts};

    #[test]
    fn a_table_seen_for_the_first_time_is_as_it_was() {
        let (mut known, orders) = (Known::default(), Topic::table("public.orders").unwrap());
        let part = |joined| Part { joined, file: 0, told: true };
        let layout = |joined| Layout::new(1, Parts::from([(2, part(joined))]));
        assert_eq!(known.fate(&orders, &layout(7)), Fate::Same);
        known.set(&orders, layout(7));
        assert_eq!(known.fate(&orders, &layout(8)), Fate::Changed);
        assert_eq!((known.table_of(2), known.table_of(3)), (Some(1), None));
        known.retain(&HashSet::new());
        assert_eq!(known.fate(&orders, &layout(8)), Fate::Same);
    }

    #[test]
    fn a_partition_is_met_until_a_look_that_began_later_found_it() {
        let (mut known, orders) = (Known::default(), Topic::table("public.orders").unwrap());
        let part = Part { joined: 7, file: 0, told: true };
        known.set(&orders, Layout::new(1, Parts::from([(2, part)])));
        known.meet(1, 2);
        assert_eq!(known.met(), Met::new(), "it is known");
        known.meet(1, 3);
        let before = known.met();
        known.meet(1, 4);
        known.found(1, before[&1].clone());
        assert_eq!(known.met(), Met::from([(1, [4].into())]));
        known.found(1, [4]);
        assert_eq!(known.met(), Met::new());
    }
}
