//! Rows of tables as JSON objects; the same in every language.

use std::sync::Arc;

use crate::change::{Change, Relation, Row, Value};
use crate::json;

/// About as many bytes as the rows of a change take, so that a text need not grow again and again.
pub(super) fn room(change: &Change) -> usize {
    let rows = change.record.iter().chain(&change.old).count();
    change.bytes() + rows * change.relation.frame_bytes()
}

/// Appends a row as an object of column names and values.
///
/// Values that are not known are left out. Of `columns` only those named are told, and the key.
pub(super) fn object(
    out: &mut String,
    relation: &Relation,
    row: &Row,
    columns: Option<&[Arc<str>]>,
) {
    out.push('{');
    let mut first = true;
    for ((column, label), value) in relation.labelled().zip(row.values()) {
        let Some(text) = value.json() else { continue };
        if !column.key && columns.is_some_and(|columns| !columns.contains(&column.name)) {
            continue;
        }
        out.push_str(&label[usize::from(std::mem::take(&mut first))..]);
        out.push_str(text);
    }
    out.push('}');
}

/// Appends the primary key of a row as an object; empty where the table has none.
pub(super) fn key(out: &mut String, relation: &Relation, row: &Row) {
    object(out, relation, row, Some(&[]));
}

/// The names of the columns whose large values a statement did not change.
pub(super) fn unchanged<'a>(relation: &'a Relation, row: &'a Row) -> impl Iterator<Item = &'a str> {
    let pairs = relation.columns().iter().zip(row.values());
    pairs.filter(|(_, value)| *value == Value::Unchanged).map(|(column, _)| &*column.name)
}

/// Appends names as a JSON array of strings.
pub(super) fn names<'a>(out: &mut String, names: impl Iterator<Item = &'a str>) {
    out.push('[');
    for (index, name) in names.enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::string(out, name);
    }
    out.push(']');
}
