//! Changes and rows of tables in the native dialect.

use std::sync::Arc;

use crate::change::{Change, Relation, Row};
use crate::dialect::record;
use crate::dialect::{Movement, View};
use crate::digits::Digits;
use crate::event::Event;
use crate::frame::Frame;
use crate::json::Object;
use crate::topic::Topic;

/// Microseconds in a millisecond.
const MICROS: i64 = 1_000;

pub(super) fn change(event: &Event, change: &Change, view: &View<'_>) -> Frame {
    let relation = &*change.relation;
    let mut frame = Object::with_room("change", 256 + record::room(change))
        .string("table", event.topic.name())
        .position(event.position)
        .quoted("op", change.operation.word());
    if let Some(row) = change.record.as_ref().or(change.old.as_ref()) {
        frame = frame.written("key", |out| record::key(out, relation, row));
    }
    frame = match view.movement {
        Movement::Within => frame,
        Movement::Enters | Movement::Appears => frame.quoted("move", "enter"),
        Movement::Leaves | Movement::Disappears => frame.quoted("move", "leave"),
    };
    for (name, row) in [("record", &change.record), ("old", &change.old)] {
        if let Some(row) = row {
            let told = |out: &mut String| record::object(out, relation, row, view.columns);
            frame = frame.written(name, told);
        }
    }
    frame = changed(frame, change, relation);
    let transaction = &change.transaction;
    frame = frame
        .signed("committed_at", transaction.committed_at / MICROS)
        .number("xid", transaction.id)
        .number("index", change.index)
        .truth("last", change.last);
    if let Some(lsn) = transaction.lsn {
        frame = frame.quoted("lsn", &Digits::lsn(lsn));
    }
    Frame::text(frame.finish())
}

fn changed(mut frame: Object, change: &Change, relation: &Relation) -> Object {
    if let Some(places) = change.changed_columns() {
        let names = places.iter().map(|&place| &*relation.columns()[place].name);
        frame = frame.written("changed", |out| record::names(out, names));
    }
    let Some(row) = &change.record else { return frame };
    let mut unchanged = record::unchanged(relation, row).peekable();
    if unchanged.peek().is_some() {
        frame = frame.written("unchanged", |out| record::names(out, unchanged));
    }
    frame
}

pub(super) fn rows(
    topic: &Topic,
    relation: &Relation,
    rows: &[Row],
    columns: Option<&Arc<[Arc<str>]>>,
    last: bool,
) -> Frame {
    let columns = columns.map(|columns| &columns[..]);
    let list = |out: &mut String| {
        out.push('[');
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            record::object(out, relation, row, columns);
        }
        out.push(']');
    };
    let frame = Object::new("rows").string("table", topic.name()).written("rows", list);
    Frame::labelled("rows", frame.truth("last", last).finish())
}
