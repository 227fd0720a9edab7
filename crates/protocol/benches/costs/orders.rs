//! A table as many have one, and an update of a row.

use std::sync::Arc;

use tidewire_protocol::change::{Change, Column, Operation, Relation, Row, Transaction};
use tidewire_protocol::filter::{ColumnType, Fold, Kind, Text};
use tidewire_protocol::{Body, Draft, Epoch, Event, Position, Topic};

const INT8: u32 = 20;
const TEXT: u32 = 25;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;

const COLUMNS: [(&str, u32); 8] = [
    ("id", INT8),
    ("customer_id", INT8),
    ("status", TEXT),
    ("total", NUMERIC),
    ("currency", TEXT),
    ("note", TEXT),
    ("created_at", TIMESTAMPTZ),
    ("updated_at", TIMESTAMPTZ),
];

fn row(status: &str, updated: &str) -> Row {
    let values = [
        "40017",
        "1234",
        status,
        "149.90",
        "\"EUR\"",
        "\"leave it at the door, please; the bell does not work\"",
        "\"2026-01-01T09:30:00.123456+00:00\"",
        updated,
    ];
    Row::of_json(values)
}

/// An update of one row whose old values are known.
pub(crate) fn update() -> Change {
    let column = |&(name, type_oid): &(&str, u32)| Column {
        name: name.into(),
        type_oid,
        type_name: "any".into(),
        key: name == "id",
    };
    let columns = COLUMNS.iter().map(column).collect();
    let relation = Relation::new(16_400, "public", "orders", columns);
    Change {
        operation: Operation::Update,
        relation: Arc::new(relation),
        record: Some(row("\"paid\"", "\"2026-01-01T09:31:00.5+00:00\"")),
        old: Some(row("\"open\"", "\"2026-01-01T09:30:00.123456+00:00\"")),
        transaction: Arc::new(Transaction {
            id: 7_654_321,
            lsn: Some(0x1_6B37_4D58),
            committed_at: 1_767_259_860_500_000,
        }),
        index: 0,
        last: true,
    }
}

/// A draft as an event somewhere in the middle of its topic.
pub(crate) fn said(draft: Draft) -> Event {
    let position = Position { epoch: Epoch(0x4f1c_0000_beef_1234), seq: 123_456 };
    Event::new(draft, position, 1_767_259_860_500)
}

/// The update as an event.
pub(crate) fn event() -> (Event, Arc<Change>) {
    let event = said(Draft::change(Topic::table("public.orders").expect("a table"), update()));
    let Body::Change(change) = &event.body else { unreachable!("it is a change") };
    let change = Arc::clone(change);
    (event, change)
}

/// What filters must know of the table.
pub(crate) fn types(column: &str) -> ColumnType {
    let (_, oid) = COLUMNS.into_iter().find(|(name, _)| *name == column).expect("a column");
    let text = Text { ordered: true, patterns: true, fold: Fold::Ascii, ascii_case: true };
    let kind = match oid {
        INT8 => Kind::Integer,
        NUMERIC => Kind::Decimal,
        TIMESTAMPTZ => Kind::Timestamp,
        _ => Kind::Text(text),
    };
    ColumnType { kind, type_oids: [oid; 2], type_name: "any".into() }
}
