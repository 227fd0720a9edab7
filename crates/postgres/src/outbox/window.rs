//! What is told of the rows between two snapshots: pure, so that it can be tested with every
//! interruption.
//!
//! One poll reads what became visible since the last one, transaction by transaction. A connection
//! that breaks in the middle is no harm: the next poll begins at the same snapshot, reads the same
//! rows and more, and the window knows what was told already. To know which change is the last of
//! its transaction on a topic, the newest one of each table is held back until another of the
//! same table follows or the transaction ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

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
    /// A change of a table that is followed which could not be recorded, and why.
    Unrecorded { rel: u32, why: String },
    /// A change of a table that nobody follows; it has a place in its transaction nevertheless.
    Unwanted,
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
    Unrecorded { rel: u32, why: String },
    /// A message.
    Message { topic: String, name: Option<String>, payload: String, json: bool },
}

/// What was told of the rows that the next poll reads.
#[derive(Default)]
pub(super) struct Window {
    /// Transactions told completely.
    done: HashSet<u64>,
    /// The newest id told of each table of a transaction; messages count as table 0.
    told: HashMap<(u64, u32), i64>,
    /// The transaction being read.
    open: Option<Open>,
}

struct Open {
    transaction: Arc<Transaction>,
    /// Changes of it met so far.
    met: u32,
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
    /// A poll begins, perhaps after one that broke off.
    pub(super) fn begin(&mut self) {
        self.open = None;
    }

    /// The transaction that was told in part when a poll broke off, or 0. The next poll is to begin
    /// with it, or it would be torn apart by one that became visible meanwhile.
    pub(super) fn torn(&self) -> u64 {
        self.told.keys().next().map_or(0, |(xid, _)| *xid)
    }

    /// Takes the next row; what can be told goes to `out` and counts as told.
    pub(super) fn take(&mut self, row: Stored, out: &mut Vec<Item>) {
        if self.open.as_ref().is_none_or(|open| open.transaction.id != row.xid) {
            self.end_transaction(out);
            self.open = Some(Open::new(&row));
        }
        let index = self.open.as_mut().expect("it was just opened").index_of(&row.what);
        if self.done.contains(&row.xid) {
            return;
        }
        match row.what {
            What::Change { rel, operation, record, old } => {
                self.hold(row.xid, rel, Held { id: row.id, index, operation, record, old }, out);
            }
            What::Unrecorded { rel, why } if self.is_news(row.xid, rel, row.id) => {
                self.release(rel, false, out);
                self.told.insert((row.xid, rel), row.id);
                out.push(Item::Unrecorded { rel, why });
            }
            What::Message { topic, name, payload, json } if self.is_news(row.xid, 0, row.id) => {
                self.told.insert((row.xid, 0), row.id);
                out.push(Item::Message { topic, name, payload, json });
            }
            What::Unrecorded { .. } | What::Message { .. } | What::Unwanted => {}
        }
    }

    /// The poll was read to its end: the next one begins where it ended.
    pub(super) fn finish(&mut self, out: &mut Vec<Item>) {
        self.end_transaction(out);
        self.done.clear();
        self.told.clear();
    }

    fn is_news(&self, xid: u64, rel: u32, id: i64) -> bool {
        self.told.get(&(xid, rel)).is_none_or(|told| *told < id)
    }

    fn hold(&mut self, xid: u64, rel: u32, held: Held, out: &mut Vec<Item>) {
        if self.is_news(xid, rel, held.id) {
            self.release(rel, false, out);
            let open = self.open.as_mut().expect("a transaction is open while its rows are read");
            open.held.insert(rel, held);
        }
    }

    /// Tells what is held of a table.
    fn release(&mut self, rel: u32, last: bool, out: &mut Vec<Item>) {
        let Some(open) = &mut self.open else { return };
        let Some(Held { id, index, operation, record, old }) = open.held.remove(&rel) else {
            return;
        };
        let transaction = Arc::clone(&open.transaction);
        self.told.insert((transaction.id, rel), id);
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
        self.told.retain(|(of, _), _| *of != xid);
        self.done.insert(xid);
        self.open = None;
    }
}

impl Open {
    fn new(row: &Stored) -> Self {
        let transaction = Transaction { id: row.xid, lsn: None, committed_at: row.at };
        Self { transaction: Arc::new(transaction), met: 0, held: BTreeMap::new() }
    }

    /// The place of a row among the changes of its transaction; messages have none.
    fn index_of(&mut self, what: &What) -> u32 {
        let index = self.met;
        self.met += u32::from(!matches!(what, What::Message { .. }));
        index
    }
}

#[cfg(test)]
mod tests;
