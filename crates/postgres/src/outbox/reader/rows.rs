//! Rows of a poll.

use tidewire_protocol::change::Operation;
use tokio_postgres::Row;

use crate::outbox::window::{Stored, What};

/// The first row of a poll.
pub(super) struct Head {
    /// The snapshot up to which it reads.
    pub(super) seen: String,
    pub(super) file: u32,
    pub(super) losses: i64,
}

impl Head {
    pub(super) fn of(row: &Row) -> Self {
        Self { seen: row.get("snapshot"), file: row.get("file"), losses: row.get("losses") }
    }
}

/// A row of the outbox; `None` for the first row of a poll, which is the snapshot.
pub(super) fn stored(row: &Row) -> Option<Stored> {
    let id: i64 = row.get::<_, Option<i64>>("id")?;
    let xid: i64 = row.get("xid");
    Some(Stored { id, xid: xid.cast_unsigned(), at: row.get("at"), what: what(row) })
}

/// The table that is told of and the partition of it that was written to, if it was one.
pub(super) fn part(row: &Row) -> Option<(u32, u32)> {
    let part = row.get::<_, Option<u32>>("part")?;
    Some((row.get::<_, Option<u32>>("root")?, part))
}

fn what(row: &Row) -> What {
    let op = row.get::<_, i8>("op").cast_unsigned();
    if matches!(op, b'J' | b'M') {
        return What::Message {
            topic: text(row, "topic").unwrap_or_default(),
            name: text(row, "event"),
            payload: text(row, "payload").unwrap_or_default(),
            json: op == b'J',
        };
    }
    let (Some(true), Some(rel)) = (row.get("wanted"), row.get::<_, Option<u32>>("root")) else {
        return What::Unwanted;
    };
    let operation = match op {
        b'I' => Operation::Insert,
        b'U' => Operation::Update,
        b'D' => Operation::Delete,
        b'T' => Operation::Truncate,
        _ => {
            let why = text(row, "payload").unwrap_or_else(|| "unknown operation".to_owned());
            return What::Unrecorded { rel, why };
        }
    };
    What::Change { rel, operation, record: text(row, "rec"), old: text(row, "old") }
}

fn text(row: &Row, column: &str) -> Option<String> {
    row.get(column)
}
