//! Rows of a poll.

use std::collections::HashMap;

use tidewire_protocol::change::Operation;
use tokio_postgres::Row;

use crate::naming::Naming;
use crate::outbox::window::{Stored, What};

/// The first row of a poll.
pub(super) struct Head {
    /// The snapshot up to which it reads.
    pub(super) seen: String,
    pub(super) file: u32,
    pub(super) losses: i64,
    /// The names of the tables that were asked for, as this poll sees them, by their oid.
    pub(super) namings: HashMap<u32, Naming>,
}

impl Head {
    pub(super) fn of(row: &Row) -> Self {
        let (seen, file, losses) = (row.get("snapshot"), row.get("file"), row.get("losses"));
        Self { seen, file, losses, namings: namings(row).unwrap_or_default() }
    }
}

/// None of the tables is there when this is `None`.
fn namings(row: &Row) -> Option<HashMap<u32, Naming>> {
    let oids: Vec<u32> = row.get::<_, Option<_>>("oids")?;
    let texts = |column: &str| row.get::<_, Vec<String>>(column);
    let names = texts("schemas").into_iter().zip(texts("tables")).zip(texts("stamps"));
    let naming = |(oid, ((schema, table), stamp))| (oid, Naming { oid, schema, table, stamp });
    Some(oids.into_iter().zip(names).map(naming).collect())
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
