//! A table as it was when its rows were changed.

use std::sync::Arc;

use crate::json;

/// A table as it was when a change was made; shared by all its changes until it is altered.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its oid in PostgreSQL.
    pub oid: u32,
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub table: Arc<str>,
    columns: Vec<Column>,
    /// What stands before the value of each column in an object, as `,"name":`.
    labels: Vec<Box<str>>,
    /// Bytes of all labels.
    label_bytes: usize,
}

/// One column of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// The oid of its type.
    pub type_oid: u32,
    /// The name of its type as `format_type` prints it without modifiers, such as `int8`.
    pub type_name: Arc<str>,
    /// Whether it is part of the primary key.
    pub key: bool,
}

impl Relation {
    /// A table with these columns in order; generated and dropped ones are not among them.
    pub fn new(
        oid: u32,
        schema: impl Into<Arc<str>>,
        table: impl Into<Arc<str>>,
        columns: Vec<Column>,
    ) -> Self {
        let labels: Vec<Box<str>> = columns.iter().map(|column| label(&column.name)).collect();
        let label_bytes = labels.iter().map(|label| label.len()).sum();
        Self { oid, schema: schema.into(), table: table.into(), columns, labels, label_bytes }
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }

    /// Its columns, each with what stands before its value in an object: a comma and its name.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (&Column, &str)> {
        self.columns.iter().zip(self.labels.iter().map(|label| &**label))
    }

    /// Bytes of an object of all columns beside those of its values.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.label_bytes + 2
    }
}

fn label(name: &str) -> Box<str> {
    let mut label = String::with_capacity(name.len() + 4);
    label.push(',');
    json::string(&mut label, name);
    label.push(':');
    label.into()
}
