//! Rows of a poll.

use std::collections::{HashMap, HashSet};

use tidewire_protocol::GapReason;
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

/// A row of the outbox without its content.
pub(super) struct Listed {
    pub(super) id: i64,
    xid: u64,
    at: i64,
    op: u8,
    /// The table that is told of, if somebody follows it.
    wanted: Option<u32>,
    /// The partition of it that was written to, if it was one.
    pub(super) part: Option<(u32, u32)>,
    /// Bytes of its content: as it is stored, where it was not asked for.
    pub(super) size: i64,
}

impl Listed {
    /// `None` for the first row of a poll, which is the snapshot.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let id = row.get::<_, Option<i64>>("id")?;
        let root: Option<u32> = row.get("root");
        let wanted = root.filter(|_| row.get("wanted"));
        Some(Self {
            id,
            xid: row.get::<_, i64>("xid").cast_unsigned(),
            at: row.get("at"),
            op: row.get::<_, i8>("op").cast_unsigned(),
            wanted,
            part: root.zip(row.get::<_, Option<u32>>("part")),
            size: row.get::<_, Option<i64>>("size").unwrap_or_default(),
        })
    }

    /// The same, as one that nobody follows if it is of these tables.
    pub(super) fn unless_of(self, tables: &HashSet<u32>) -> Self {
        let wanted = self.wanted.filter(|table| !tables.contains(table));
        Self { wanted, ..self }
    }

    /// Whether anybody is to see its content.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_message() || self.wanted.is_some()
    }

    fn is_message(&self) -> bool {
        matches!(self.op, b'J' | b'M')
    }

    /// The row with its content, or with why that cannot be had.
    pub(super) fn with(self, content: Result<Content, Unreadable>) -> Stored {
        let Self { id, xid, at, .. } = self;
        Stored { id, xid, at, what: self.what(content) }
    }

    fn what(&self, content: Result<Content, Unreadable>) -> What {
        let rel = match self.wanted {
            _ if self.is_message() => None,
            None => return What::Unwanted,
            wanted => wanted,
        };
        let content = match (content, rel) {
            (Ok(content), _) => content,
            (Err(Unreadable { why, reason, .. }), Some(rel)) => {
                return What::Unrecorded { rel, why, reason };
            }
            (Err(Unreadable { why, reason, topic }), None) => {
                return What::Lost { topic, why, reason };
            }
        };
        let Some(rel) = rel else { return content.message(self.op == b'J') };
        let operation = match self.op {
            b'I' => Operation::Insert,
            b'U' => Operation::Update,
            b'D' => Operation::Delete,
            b'T' => Operation::Truncate,
            _ => {
                let why = content.payload.unwrap_or_else(|| "unknown operation".to_owned());
                return What::Unrecorded { rel, why, reason: GapReason::ConnectionLost };
            }
        };
        What::Change { rel, operation, record: content.record, old: content.old }
    }
}

/// What a row says.
#[derive(Default)]
pub(super) struct Content {
    record: Option<String>,
    old: Option<String>,
    topic: Option<String>,
    event: Option<String>,
    payload: Option<String>,
}

/// Why the content of a row cannot be had.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub(super) why: String,
    pub(super) reason: GapReason,
    /// The topic, of a message for which that much can be read.
    pub(super) topic: Option<String>,
}

impl Unreadable {
    /// A row with more bytes than may be read.
    pub(super) fn too_large(size: i64, topic: Option<String>) -> Self {
        let why = format!("its content is too large: {size} bytes");
        Self { why, reason: GapReason::HistoryTrimmed, topic }
    }
}

impl Content {
    /// The content that came with a row.
    pub(super) fn of(row: &Row) -> Result<Self, Unreadable> {
        let read = || {
            Ok(Self {
                record: row.try_get("rec")?,
                old: row.try_get("old")?,
                topic: row.try_get("topic")?,
                event: row.try_get("event")?,
                payload: row.try_get("payload")?,
            })
        };
        // A database in UTF-8 sends what it holds, and one that is damaged holds anything.
        read().map_err(|error: tokio_postgres::Error| Unreadable {
            why: error.to_string(),
            reason: GapReason::ConnectionLost,
            topic: row.try_get("topic").ok().flatten(),
        })
    }

    fn message(self, json: bool) -> What {
        What::Message {
            topic: self.topic.unwrap_or_default(),
            name: self.event,
            payload: self.payload.unwrap_or_default(),
            json,
        }
    }
}
