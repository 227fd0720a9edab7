//! What is known about a table: its columns and their shapes, and rows made by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_protocol::Topic;
use tidewire_protocol::change::{Relation, Row, Value};

use super::Rows;
use crate::values::{self, Misshapen, Shape};
use crate::wal::pgoutput::{self, Datum, Identity, Old, Tuple};

/// Whether a table's changes are published; shared with those who decide that.
#[derive(Clone, Debug, Default)]
pub(in crate::wal) struct Flow(Arc<AtomicBool>);

impl Flow {
    pub(in crate::wal) fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(in crate::wal) fn turn(&self, on: bool) {
        self.0.store(on, Ordering::Release);
    }
}

/// A relation as the log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wal) struct Description {
    pub(in crate::wal) oid: u32,
    pub(in crate::wal) schema: String,
    pub(in crate::wal) table: String,
    /// How much of an old row is told.
    pub(in crate::wal) identity: Identity,
    pub(in crate::wal) columns: Vec<Described>,
}

/// A column as the log describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wal) struct Described {
    pub(in crate::wal) name: String,
    pub(in crate::wal) type_oid: u32,
    /// Whether it is part of the replica identity.
    pub(in crate::wal) identity: bool,
}

impl Description {
    pub(super) fn of(relation: &pgoutput::Relation<'_>) -> Self {
        let described = |column: &pgoutput::Attribute<'_>| Described {
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            identity: column.identity,
        };
        Self {
            oid: relation.oid,
            schema: relation.schema.to_owned(),
            table: relation.table.to_owned(),
            identity: relation.identity,
            columns: relation.columns.iter().map(described).collect(),
        }
    }

    /// Whether its identity is its primary key.
    pub(in crate::wal) fn is_by_key(&self) -> bool {
        self.identity == Identity::Default
    }

    /// For each column whether it is in the key, of a table whose primary key has these columns.
    ///
    /// Where the identity is an index without all of those, a delete does not tell them, so the key
    /// of such a table is its identity, in every change; see also [`key`](crate::key).
    pub(in crate::wal) fn key(&self, primary: &[String]) -> Vec<bool> {
        let is_primary = |column: &Described| primary.contains(&column.name);
        let told = self.columns.iter().filter(|c| c.identity && is_primary(c)).count();
        let by_identity = match self.identity {
            Identity::Default => true,
            Identity::Index => primary.is_empty() || told < primary.len(),
            Identity::Full | Identity::Nothing => false,
        };
        let is_key = |column: &Described| match by_identity {
            true => column.identity,
            false => is_primary(column),
        };
        self.columns.iter().map(is_key).collect()
    }

    /// The topic of the table; `None` when its name cannot be one.
    pub(in crate::wal) fn topic(&self) -> Option<Topic> {
        // The first dot of a topic ends the schema.
        let named = !self.schema.contains('.');
        named.then(|| Topic::table(&format!("{}.{}", self.schema, self.table)).ok()).flatten()
    }
}

/// A table whose rows can be read.
#[derive(Debug)]
pub(in crate::wal) struct Known {
    pub(super) description: Description,
    pub(super) relation: Arc<Relation>,
    /// `None` when its name cannot be a topic; its changes then never flow.
    pub(super) topic: Option<Topic>,
    pub(super) flow: Flow,
    shapes: Vec<Arc<Shape>>,
}

/// Why a row cannot be made.
pub(super) enum Problem {
    Misshapen(Misshapen),
    Senseless(&'static str),
}

impl Known {
    /// A table as the log and the catalog describe it; shapes in the order of its columns.
    pub(in crate::wal) fn new(
        description: Description,
        relation: Relation,
        flow: Flow,
        shapes: Vec<Arc<Shape>>,
    ) -> Self {
        let topic = description.topic();
        Self { description, relation: Arc::new(relation), topic, flow, shapes }
    }

    /// The row after and the row before. With `lenient`, a value that does not fit its type is told
    /// as a string; the count of those is the last part.
    pub(super) fn rows(
        &self,
        new: Option<&Tuple<'_>>,
        old: Option<&Old<'_>>,
        lenient: bool,
    ) -> Result<Rows, Problem> {
        let mut reading = Reading { known: self, lenient, misshapen: 0 };
        let whole = match old {
            Some(Old::Whole(tuple)) => Some(tuple),
            _ => None,
        };
        let record = new.map(|tuple| reading.row(tuple, whole)).transpose()?;
        let before = old.map(|old| reading.old(old)).transpose()?;
        Ok((record, before, reading.misshapen))
    }
}

struct Reading<'k> {
    known: &'k Known,
    lenient: bool,
    misshapen: u64,
}

impl Reading<'_> {
    /// A row; what the log left out is taken from `before` where that is whole.
    fn row(&mut self, tuple: &Tuple<'_>, before: Option<&Tuple<'_>>) -> Result<Row, Problem> {
        self.check(tuple)?;
        // Pushed one by one: what may fail is collected without knowing how much room it takes.
        let mut values = Vec::with_capacity(tuple.0.len());
        for (at, datum) in tuple.0.iter().enumerate() {
            let found = match (datum, before.and_then(|before| before.0.get(at))) {
                (Datum::Unchanged, Some(before)) => before,
                _ => datum,
            };
            values.push(self.value(at, found)?);
        }
        Ok(Row(values))
    }

    fn old(&mut self, old: &Old<'_>) -> Result<Row, Problem> {
        let (tuple, is_key) = match old {
            Old::Whole(tuple) => (tuple, false),
            Old::Key(tuple) => (tuple, true),
        };
        self.check(tuple)?;
        let mut values = Vec::with_capacity(tuple.0.len());
        for (at, datum) in tuple.0.iter().enumerate() {
            values.push(match is_key && !self.known.description.columns[at].identity {
                true => Value::Absent,
                false => self.value(at, datum)?,
            });
        }
        Ok(Row(values))
    }

    fn value(&mut self, at: usize, datum: &Datum<'_>) -> Result<Value, Problem> {
        match datum {
            Datum::Null => Ok(Value::Json(values::null())),
            Datum::Unchanged => Ok(Value::Unchanged),
            Datum::Binary(_) => {
                Err(Problem::Senseless("a value in binary, which nobody asked for"))
            }
            Datum::Text(text) => match values::to_json(&self.known.shapes[at], text) {
                Ok(json) => Ok(Value::Json(json)),
                Err(_) if self.lenient => {
                    self.misshapen += 1;
                    Ok(Value::Json(values::as_string(text)))
                }
                Err(misshapen) => Err(Problem::Misshapen(misshapen)),
            },
        }
    }

    fn check(&self, tuple: &Tuple<'_>) -> Result<(), Problem> {
        match tuple.0.len() == self.known.description.columns.len() {
            true => Ok(()),
            false => Err(Problem::Senseless("a row with another number of columns than its table")),
        }
    }
}
