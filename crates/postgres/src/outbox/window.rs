//! What is told of the rows between two snapshots: pure, so that it can be tested with every
//! interruption.
//!
//! One poll reads what became visible since the last one, transaction by transaction. Where it
//! breaks off, a [`Spot`] says how far it was told. The next poll reads the same rows in the same
//! order, from the beginning, and the window passes over what was told. To know which change is the
//! last of its transaction on a topic, the newest one of each table is held back until another of
//! the same table follows or the transaction ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewire_protocol::GapReason;
use tidewire_protocol::change::{Operation, Transaction};

/// A row of the outbox as read; rows come ordered by transaction, and by id within each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its id.
    pub(super) id: i64,
    /// The transaction that wrote it.
    pub(super) xid: u64,
    /// When the transaction last wrote, in microseconds since 1970.
    pub(super) at: i64,
    /// What it is.
    pub(super) what: What,
}

/// What a row of the outbox says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A change of a table that is followed: the new and the old row as JSON text.
    Change { rel: u32, operation: Operation, record: Option<String>, old: Option<String> },
    /// A change of a table that is followed which could not be recorded or cannot be read, and why.
    Unrecorded { rel: u32, why: String, reason: GapReason },
    /// A change of a table that nobody follows; it has a place in its transaction nevertheless.
    Unwanted,
    /// Something published by `tidewire.publish` that cannot be read; on which topic, if that can.
    Lost { topic: Option<String>, why: String, reason: GapReason },
    /// Something said by `tidewire.publish`.
    Message { topic: String, name: Option<String>, payload: String, json: bool },
}

/// Something to be told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A change.
    Change {
        rel: u32,
        operation: Operation,
        record: Option<String>,
        old: Option<String>,
        transaction: Arc<Transaction>,
        index: u32,
        last: bool,
    },
    /// A change that cannot be told.
    Unrecorded { rel: u32, why: String, reason: GapReason },
    /// A message that cannot be delivered.
    Lost { topic: Option<String>, why: String, reason: GapReason },
    /// A message.
    Message { topic: String, name: Option<String>, payload: String, json: bool },
}

/// A place among the rows of a poll: everything before it was told, but for what is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The transaction that was being told.
    pub(super) xid: u64,
    /// The newest row of it that was taken.
    pub(super) upto: i64,
    /// Of those, the rows that were held back, in order; one at most for each table.
    pub(super) held: Vec<i64>,
}

/// What was told of the rows of one poll.
#[derive(Default)]
pub(super) struct Window {
    /// Where an earlier poll of the same rows broke off, until that is passed.
    before: Option<Spot>,
    /// The transaction being read.
    open: Option<Open>,
}

struct Open {
    transaction: Arc<Transaction>,
    /// Changes of it met so far.
    met: u32,
    /// The newest row of it that was taken.
    upto: i64,
    /// The newest change of each table, which may be the last.
    held: BTreeMap<u32, Held>,
}

struct Held {
    id: i64,
    index: u32,
    operation: Operation,
    record: Option<String>,
    old: Option<String>,
}

impl Window {
    /// A poll begins; `before` is where one of the same rows broke off.
    pub(super) fn begin(&mut self, before: Option<&Spot>) {
        *self = Self { before: before.cloned(), open: None };
    }

    /// How far the rows are told, if anything was read.
    pub(super) fn spot(&self) -> Option<Spot> {
        self.before.clone().or_else(|| self.open.as_ref().map(Open::spot))
    }

    /// Takes the next row; what can be told goes to `out` and counts as told.
    pub(super) fn take(&mut self, row: Stored, out: &mut Vec<Item>) {
        if self.open.as_ref().is_none_or(|open| open.transaction.id != row.xid) {
            self.end_transaction(out);
            self.open = Some(Open::new(&row));
        }
        let open = self.open.as_mut().expect("it was just opened");
        let index = open.index_of(&row.what);
        open.upto = row.id;
        if self.was_told(&row) {
            return;
        }
        match row.what {
            What::Change { rel, operation, record, old } => {
                self.release(rel, false, out);
                let open = self.open.as_mut().expect("it is open while its rows are read");
                open.held.insert(rel, Held { id: row.id, index, operation, record, old });
            }
            What::Unrecorded { rel, why, reason } => {
                self.release(rel, false, out);
                out.push(Item::Unrecorded { rel, why, reason });
            }
            What::Lost { topic, why, reason } => out.push(Item::Lost { topic, why, reason }),
            What::Message { topic, name, payload, json } => {
                out.push(Item::Message { topic, name, payload, json });
            }
            What::Unwanted => {}
        }
    }

    /// The poll was read to its end. Gives whether the place was met where an earlier one broke off;
    /// if not, rows are gone that were there, so nobody knows what was missed.
    pub(super) fn finish(&mut self, out: &mut Vec<Item>) -> bool {
        self.end_transaction(out);
        self.before.take().is_none()
    }

    /// Whether an earlier poll told the row; one that it held back was not told.
    fn was_told(&mut self, row: &Stored) -> bool {
        match &self.before {
            Some(before) if before.xid != row.xid => true,
            Some(before) if row.id <= before.upto => !before.held.contains(&row.id),
            _ => {
                self.before = None;
                false
            }
        }
    }

    /// Tells what is held of a table.
    fn release(&mut self, rel: u32, last: bool, out: &mut Vec<Item>) {
        let Some(open) = &mut self.open else { return };
        let Some(Held { index, operation, record, old, .. }) = open.held.remove(&rel) else {
            return;
        };
        let transaction = Arc::clone(&open.transaction);
        out.push(Item::Change { rel, operation, record, old, transaction, index, last });
    }

    fn end_transaction(&mut self, out: &mut Vec<Item>) {
        let Some(open) = &self.open else { return };
        let xid = open.transaction.id;
        // In the order in which they were made.
        let mut rest: Vec<_> = open.held.iter().map(|(rel, held)| (held.id, *rel)).collect();
        rest.sort_unstable();
        for (_, rel) in rest {
            self.release(rel, true, out);
        }
        self.before.take_if(|before| before.xid == xid);
        self.open = None;
    }
}

impl Open {
    fn new(row: &Stored) -> Self {
        let transaction = Transaction { id: row.xid, lsn: None, committed_at: row.at };
        let (transaction, held) = (Arc::new(transaction), BTreeMap::new());
        Self { transaction, met: 0, upto: row.id, held }
    }

    /// The place of a row among the changes of its transaction; messages have none.
    fn index_of(&mut self, what: &What) -> u32 {
        let index = self.met;
        self.met += u32::from(!matches!(what, What::Message { .. } | What::Lost { .. }));
        index
    }

    fn spot(&self) -> Spot {
        let mut held: Vec<i64> = self.held.values().map(|held| held.id).collect();
        held.sort_unstable();
        Spot { xid: self.transaction.id, upto: self.upto, held }
    }
}

#[cfg(test)]
mod tests;
