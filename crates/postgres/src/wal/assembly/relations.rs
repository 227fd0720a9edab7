//! What is known about a table: its columns and their shapes, and rows made by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewire_protocol::Topic;
use tidewire_protocol::change::{Relation, Row, RowBuilder, RowTooLarge, Value};

use super::Rows;
use crate::charset::{Character, Charset, Undecoded};
use crate::naming::topic;
use crate::values::{self, Misshapen, Shape};
use crate::wal::pgoutput::{self, Datum, Identity, Lsn, Old, Tuple};

/// Whether changes of one relation under one name are published; shared with those who decide that.
///
/// One that has ended never begins again: the relation may have another name then, so whoever holds
/// it has to ask anew.
#[derive(Clone, Debug, Default)]
pub(in crate::wal) struct Flow(Arc<AtomicU64>);

/// Of a flow that did not begin yet, and of one that has ended; else the place where it began.
const OFF: u64 = 0;
const ENDED: u64 = u64::MAX;

impl Flow {
    pub(in crate::wal) fn is_on(&self) -> bool {
        !matches!(self.0.load(Ordering::Acquire), OFF | ENDED)
    }

    /// Whether what committed at this place is told.
    pub(in crate::wal) fn tells(&self, commit: Option<u64>) -> bool {
        self.is_on() && commit.is_none_or(|commit| commit >= self.0.load(Ordering::Acquire))
    }

    pub(in crate::wal) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) == ENDED
    }

    /// What commits from this place on is told.
    pub(in crate::wal) fn begin(&self, from: Lsn) {
        self.0.store(from.0.clamp(OFF + 1, ENDED - 1), Ordering::Release);
    }

    pub(in crate::wal) fn end(&self) {
        self.0.store(ENDED, Ordering::Release);
    }

    /// Whether anybody else holds it.
    pub(in crate::wal) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
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
    /// Whether all of its names have a Unicode form; otherwise none of its rows can be delivered.
    pub(in crate::wal) is_readable: bool,
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
    /// As the log has it.
    ///
    /// # Errors
    /// The characters of its names about which PostgreSQL has to be asked first.
    pub(super) fn of(
        relation: &pgoutput::Relation<'_>,
        charset: &Charset,
    ) -> Result<Self, Vec<Character>> {
        let mut is_readable = true;
        let mut name = |bytes: &[u8]| match charset.decode(bytes) {
            Ok(name) => Ok(name.into_owned()),
            Err(Undecoded::Unknown(characters)) => Err(characters),
            Err(Undecoded::Unreadable) => {
                is_readable = false;
                Ok(charset.decode_lossy(bytes).into_owned())
            }
        };
        let (schema, table) = (name(relation.schema)?, name(relation.table)?);
        let described = |column: &pgoutput::Attribute<'_>| {
            let (type_oid, identity) = (column.type_oid, column.identity);
            Ok::<_, Vec<Character>>(Described { name: name(column.name)?, type_oid, identity })
        };
        let columns = relation.columns.iter().map(described).collect::<Result<_, _>>()?;
        let (oid, identity) = (relation.oid, relation.identity);
        Ok(Self { oid, schema, table, identity, is_readable, columns })
    }

    /// Whether its identity is its primary key.
    pub(in crate::wal) fn is_by_key(&self) -> bool {
        self.identity == Identity::Default
    }

    /// For each column whether it is in the key, where rows are told as those of a table that has
    /// this key: that, or, while the identity does not tell all of it, what is told.
    pub(in crate::wal) fn key_as_part(&self, key: &[String]) -> Vec<bool> {
        let is_key = |column: &Described| key.contains(&column.name);
        let told = self.columns.iter().filter(|column| column.identity && is_key(column)).count();
        let by_identity = self.identity != Identity::Full && told < key.len();
        let of = |column: &Described| if by_identity { column.identity } else { is_key(column) };
        self.columns.iter().map(of).collect()
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

    /// The same with its columns in another order: for each the place where it is now.
    fn in_order(&self, order: &[usize]) -> Self {
        let columns = order.iter().map(|at| self.columns[*at].clone()).collect();
        Self { columns, ..self.clone() }
    }
}

/// A relation whose rows can be read: a table, or a partition, which is told as its table.
#[derive(Debug)]
pub(in crate::wal) struct Known {
    /// As the log describes it, with the columns in the order in which they are told.
    description: Description,
    /// Where the log has the columns in another order, that, and where each one is in it.
    sent: Option<(Description, Box<[usize]>)>,
    /// What it is told as.
    pub(in crate::wal) relation: Arc<Relation>,
    /// `None` when its name cannot be a topic; its changes then never flow.
    pub(in crate::wal) topic: Option<Topic>,
    pub(super) flow: Flow,
    shapes: Vec<Arc<Shape>>,
}

/// Why a row cannot be made.
pub(super) enum Problem {
    Misshapen(Misshapen),
    /// A value, or the name of a column, has no Unicode form.
    Unreadable,
    /// PostgreSQL has to be asked about these characters first.
    Unknown(Vec<Character>),
    Senseless(&'static str),
    /// The old row lacks a column of the key. PostgreSQL sends such a row of a partition that has
    /// another replica identity than the table that it is sent as.
    Keyless,
    TooLarge(RowTooLarge),
}

impl From<Undecoded> for Problem {
    fn from(why: Undecoded) -> Self {
        match why {
            Undecoded::Unreadable => Self::Unreadable,
            Undecoded::Unknown(characters) => Self::Unknown(characters),
        }
    }
}

impl From<RowTooLarge> for Problem {
    fn from(why: RowTooLarge) -> Self {
        Self::TooLarge(why)
    }
}

impl Known {
    /// A table as the log and the catalog describe it; shapes in the order of its columns.
    pub(in crate::wal) fn new(
        description: Description,
        relation: Relation,
        flow: Flow,
        shapes: Vec<Arc<Shape>>,
    ) -> Self {
        let topic = topic(&relation.schema, &relation.table);
        Self { description, sent: None, relation: Arc::new(relation), topic, flow, shapes }
    }

    /// The same where columns are told in another order than they are sent: the relation's is
    /// that, and for each the place where the log has it. Shapes are in the order of the log.
    pub(in crate::wal) fn reordered(mut self, order: &[usize]) -> Self {
        if order.iter().copied().eq(0..self.description.columns.len()) {
            return self;
        }
        self.shapes = order.iter().map(|at| Arc::clone(&self.shapes[*at])).collect();
        let ordered = self.description.in_order(order);
        self.sent = Some((std::mem::replace(&mut self.description, ordered), order.into()));
        self
    }

    /// How the log describes it.
    pub(super) fn sent(&self) -> &Description {
        self.sent.as_ref().map_or(&self.description, |(sent, _)| sent)
    }

    /// Whether it is told as another table, of which it is a partition.
    pub(super) fn is_part(&self) -> bool {
        self.relation.oid != self.description.oid
    }

    /// The row after and the row before. With `lenient`, a value that does not fit its type is told
    /// as a string; the count of those is the last part.
    pub(super) fn rows(
        &self,
        new: Option<&Tuple<'_>>,
        old: Option<&Old<'_>>,
        lenient: bool,
        charset: &Charset,
        builder: &mut RowBuilder,
    ) -> Result<Rows, Problem> {
        if !self.description.is_readable {
            return Err(Problem::Unreadable);
        }
        let rows =
            Reading { known: self, lenient, misshapen: 0, charset, builder }.ordered(new, old);
        if rows.is_err() {
            // What is left of a row that failed may be large.
            builder.clear();
        }
        rows
    }
}

/// A row with its columns in the order in which they are told.
fn ordered(tuple: &Tuple<'_>, order: &[usize]) -> Result<Tuple<'static>, Problem> {
    if tuple.count() != order.len() {
        return Err(Problem::Senseless(OTHER_COLUMNS));
    }
    let data: Vec<Datum<'_>> = tuple.data().collect();
    Ok(order.iter().map(|at| data[*at]).collect())
}

const OTHER_COLUMNS: &str = "a row with another number of columns than its table";

struct Reading<'k> {
    known: &'k Known,
    lenient: bool,
    misshapen: u64,
    charset: &'k Charset,
    builder: &'k mut RowBuilder,
}

impl Reading<'_> {
    fn ordered(self, new: Option<&Tuple<'_>>, old: Option<&Old<'_>>) -> Result<Rows, Problem> {
        let Some((_, order)) = &self.known.sent else { return self.rows(new, old) };
        let new = new.map(|tuple| ordered(tuple, order)).transpose()?;
        let old = old.map(|old| match old {
            Old::Whole(tuple) => ordered(tuple, order).map(Old::Whole),
            Old::Key(tuple) => ordered(tuple, order).map(Old::Key),
        });
        self.rows(new.as_ref(), old.transpose()?.as_ref())
    }

    fn rows(mut self, new: Option<&Tuple<'_>>, old: Option<&Old<'_>>) -> Result<Rows, Problem> {
        let record = new.map(|tuple| self.row(tuple, old)).transpose()?;
        let before = old.map(|old| self.old(old)).transpose()?;
        Ok((record, before, self.misshapen))
    }

    /// A row; what the log left out is taken from the row before, as far as that is told. A key that
    /// is stored out of line and did not change is there.
    fn row(&mut self, tuple: &Tuple<'_>, before: Option<&Old<'_>>) -> Result<Row, Problem> {
        self.check(tuple)?;
        self.builder.clear();
        let (mut before, is_key) = match before {
            Some(Old::Whole(tuple)) => (Some(tuple.data()), false),
            Some(Old::Key(tuple)) => (Some(tuple.data()), true),
            None => (None, false),
        };
        let columns = self.known.description.columns.iter().zip(&self.known.shapes);
        for ((column, shape), datum) in columns.zip(tuple.data()) {
            let before = before.as_mut().and_then(Iterator::next);
            let before = before.filter(|_| !is_key || column.identity);
            let found = match (datum, before) {
                (Datum::Unchanged, Some(before)) => before,
                _ => datum,
            };
            self.value(shape, found)?;
        }
        Ok(self.builder.finish()?)
    }

    fn old(&mut self, old: &Old<'_>) -> Result<Row, Problem> {
        let (tuple, is_key) = match old {
            Old::Whole(tuple) => (tuple, false),
            Old::Key(tuple) => (tuple, true),
        };
        self.check(tuple)?;
        self.builder.clear();
        let columns = self.known.description.columns.iter().zip(&self.known.shapes);
        for ((column, shape), datum) in columns.zip(tuple.data()) {
            match is_key && !column.identity {
                true => self.builder.push(Value::Absent),
                // No column of a replica identity can be NULL.
                false if is_key && datum == Datum::Null => return Err(Problem::Keyless),
                false => self.value(shape, datum)?,
            }
        }
        Ok(self.builder.finish()?)
    }

    fn value(&mut self, shape: &Shape, datum: Datum<'_>) -> Result<(), Problem> {
        match datum {
            Datum::Null => self.builder.json("null"),
            Datum::Unchanged => self.builder.push(Value::Unchanged),
            Datum::Binary(_) => {
                return Err(Problem::Senseless("a value in binary, which nobody asked for"));
            }
            Datum::Text(text) => self.text(shape, text)?,
        }
        Ok(())
    }

    fn text(&mut self, shape: &Shape, text: &[u8]) -> Result<(), Problem> {
        let lenient = self.lenient;
        let text = &*self.charset.decode(text)?;
        let fits = self.builder.write(|out| {
            let start = out.len();
            values::to_json(shape, text, out).map(|()| true).or_else(|misshapen| match lenient {
                true => {
                    out.truncate(start);
                    values::quote(text, out);
                    Ok(false)
                }
                false => Err(Problem::Misshapen(misshapen)),
            })
        })?;
        self.misshapen += u64::from(!fits);
        Ok(())
    }

    fn check(&self, tuple: &Tuple<'_>) -> Result<(), Problem> {
        match tuple.count() == self.known.description.columns.len() {
            true => Ok(()),
            false => Err(Problem::Senseless(OTHER_COLUMNS)),
        }
    }
}
