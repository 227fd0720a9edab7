//! One row inserted, updated or deleted, or a table emptied.
//!
//! Values are JSON texts as PostgreSQL's `to_jsonb` gives them, in the order of the relation's
//! columns, whichever source saw the change. So equal changes from two sources are equal here, and
//! a filter sees the same value from both.

mod relation;
mod row;

use std::sync::Arc;

pub use relation::{Column, Relation};
pub use row::{Row, RowBuilder, RowTooLarge, Value};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new row.
    Insert,
    /// A row with other values.
    Update,
    /// A row that is gone.
    Delete,
    /// The whole table was emptied.
    Truncate,
}

impl Operation {
    /// All operations, in the order of the documentation.
    pub const ALL: [Operation; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate];

    /// The word for it on every wire: SQL's own, in capitals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// The transaction that a change belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its 64-bit id (`xid8`).
    pub id: u64,
    /// Where its commit is in the write-ahead log; `None` from a source that does not read it.
    pub lsn: Option<u64>,
    /// When it committed, in microseconds since 1970; from the outbox, when the row was written.
    pub committed_at: i64,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub operation: Operation,
    /// To which table.
    pub relation: Arc<Relation>,
    /// The row as it is now; `None` for a delete and a truncate.
    pub record: Option<Row>,
    /// The row as it was, as far as the replica identity tells.
    pub old: Option<Row>,
    /// In which transaction.
    pub transaction: Arc<Transaction>,
    /// Its place among all changes of the transaction that the source saw, from 0.
    pub index: u32,
    /// Whether it is the last of its transaction on this topic.
    pub last: bool,
}

impl Change {
    /// Bytes of content, for limits.
    pub fn bytes(&self) -> usize {
        self.record.iter().chain(&self.old).map(Row::bytes).sum::<usize>() + 64
    }

    /// The columns that an update changed, as far as the old row tells; `None` when it does not.
    ///
    /// A value that is marked unchanged counts as such; one that the old row lacks, as changed.
    pub fn changed_columns(&self) -> Option<Vec<usize>> {
        let (Some(record), Some(old)) = (&self.record, &self.old) else { return None };
        // An old row of the key alone says nothing about the other columns.
        if old.values().any(|value| value == Value::Absent) {
            return None;
        }
        let pairs = record.values().zip(old.values()).enumerate();
        let changed = pairs.filter(|(_, (new, old))| *new != Value::Unchanged && new != old);
        Some(changed.map(|(place, _)| place).collect())
    }
}

/// What PostgreSQL's `pg_current_snapshot()` prints: which transactions a query has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All transactions below this one have ended.
    pub xmin: u64,
    /// No transaction from this one on has ended.
    pub xmax: u64,
    /// Transactions between the two that were still running, in order.
    pub running: Vec<u64>,
}

impl Snapshot {
    /// Whether a committed transaction was visible.
    pub fn contains(&self, transaction: u64) -> bool {
        transaction < self.xmin
            || (transaction < self.xmax && self.running.binary_search(&transaction).is_err())
    }

    /// Widens the 32-bit id of the write-ahead log by the epoch of this snapshot.
    ///
    /// Right while the transaction is within 2^31 of the snapshot, which PostgreSQL guarantees for
    /// every transaction that is not frozen.
    pub fn widen(&self, id: u32) -> u64 {
        let guess = (self.xmax & !0xFFFF_FFFF) | u64::from(id);
        if guess > self.xmax.saturating_add(1 << 31) {
            guess.saturating_sub(1 << 32)
        } else if guess.saturating_add(1 << 31) < self.xmax {
            guess + (1 << 32)
        } else {
            guess
        }
    }
}

impl std::str::FromStr for Snapshot {
    type Err = SnapshotError;

    /// Reads `xmin:xmax:a,b,c`.
    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(SnapshotError);
        let (xmin, xmax) = (number()?, number()?);
        let list = parts.next().ok_or(SnapshotError)?;
        let ids = list.split(',').filter(|part| !part.is_empty());
        let running = ids.map(|id| id.parse().map_err(|_| SnapshotError));
        Ok(Self { xmin, xmax, running: running.collect::<Result<_, _>>()? })
    }
}

/// The text is not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot as pg_current_snapshot() prints it")]
pub struct SnapshotError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_contains_what_had_committed() {
        let snapshot: Snapshot = "10:20:12,15".parse().unwrap();
        for (id, seen) in [(9, true), (10, true), (12, false), (13, true), (19, true), (20, false)]
        {
            assert_eq!(snapshot.contains(id), seen, "{id}");
        }
        assert!("10:20".parse::<Snapshot>().is_err());
        assert!("10:20:".parse::<Snapshot>().is_ok());
    }

    #[test]
    fn a_short_id_is_widened_to_the_nearest_epoch() {
        let at = |xmax: u64| Snapshot { xmin: xmax, xmax, running: Vec::new() };
        assert_eq!(at(100).widen(99), 99);
        assert_eq!(at((1 << 32) + 5).widen(0xFFFF_FFFF), 0xFFFF_FFFF);
        assert_eq!(at((1 << 32) + 5).widen(3), (1 << 32) + 3);
        assert_eq!(at((1 << 32) - 2).widen(1), (1 << 32) + 1);
    }
}
