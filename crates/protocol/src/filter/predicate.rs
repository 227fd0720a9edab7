//! A filter ready to be applied to changes.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};

use regex::Regex;
use thiserror::Error;

use super::demand::Demand;
use super::kind::{Fold, Kind, Text, Unsupported};
use super::like::Matcher;
use super::scalar::{Datum, scalar};
use super::verdict::Verdict;
use super::{Comparison, Condition, Filter, Is, Node, Test};
use crate::change::{Change, Operation, Relation, Row, Value};
use crate::dialect::Movement;

/// A filter ready to be applied to changes of one table.
///
/// It judges from the values in the change alone, with SQL's three truth values: a condition on
/// NULL is neither true nor false, and a row is admitted only where the filter is true.
#[derive(Debug)]
pub struct Predicate {
    columns: Vec<Column>,
    root: Rule,
    /// Rows beyond which nothing is shown.
    limit: Option<Rule>,
    demand: Option<Demand>,
}

/// What a filter must know of a column.
#[derive(Clone, Debug)]
pub struct ColumnType {
    /// How its values are compared.
    pub kind: Kind,
    /// The oids that its type may have in a [`Relation`]: of a domain, also of what is under it.
    pub type_oids: [u32; 2],
    /// The type's name, for messages.
    pub type_name: Arc<str>,
}

/// The table was altered so that a filter cannot be applied any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Altered {
    /// A column is gone or has another name.
    #[error("the filter's column {0:?} is not in the table any more: subscribe again without it")]
    MissingColumn(Arc<str>),
    /// A column is of another type.
    #[error("the filter's column {0:?} is of another type now: subscribe again")]
    OtherType(Arc<str>),
    /// A value that the column's type did not have, such as a new label of an enum.
    #[error("the filter's column {0:?} has a value that its type did not have: subscribe again")]
    UnknownValue(Arc<str>),
}

#[derive(Debug)]
struct Column {
    name: Arc<str>,
    known: ColumnType,
    /// Where the column was last found; tables rarely change.
    place: AtomicUsize,
}

#[derive(Debug)]
enum Rule {
    Condition { column: usize, check: Check },
    Not(Box<Rule>),
    All(Vec<Rule>),
    Any(Vec<Rule>),
}

#[derive(Debug)]
enum Check {
    Compare(Comparison, Datum<'static>),
    /// In order.
    OneOf(Vec<Datum<'static>>),
    Distinct(Datum<'static>),
    Like(Matcher),
    Match(Regex),
    Is(Is),
}

impl Predicate {
    /// Makes a filter ready.
    ///
    /// Its constants are what `to_jsonb` prints for them, as [`scalar`] texts. `types` is asked for
    /// each condition's column, which the caller has looked up.
    ///
    /// # Errors
    /// [`Unsupported`] for the first condition that cannot be decided exactly.
    pub fn new(filter: &Filter, types: impl Fn(&str) -> ColumnType) -> Result<Self, Unsupported> {
        Self::limited(filter, None, types)
    }

    /// The same for a listener who may see only the rows that `limit` admits, of which `filter` is
    /// what it wants to see.
    ///
    /// A limit is a right, so nothing is shown that is not certain to be within it: neither a row,
    /// nor what it was before it came within, nor what it is after it left.
    ///
    /// # Errors
    /// As [`Predicate::new`].
    pub fn limited(
        filter: &Filter,
        limit: Option<&Filter>,
        types: impl Fn(&str) -> ColumnType,
    ) -> Result<Self, Unsupported> {
        let all = match limit {
            Some(limit) => filter.clone().and(limit.clone()),
            None => filter.clone(),
        };
        let mut columns: Vec<Column> = Vec::new();
        for condition in all.conditions() {
            if columns.iter().all(|column| column.name != condition.column) {
                let known = types(&condition.column);
                let place = AtomicUsize::new(0);
                columns.push(Column { name: Arc::clone(&condition.column), known, place });
            }
        }
        let root = Rule::new(&filter.root, &columns)?;
        let limit = limit.map(|limit| Rule::new(&limit.root, &columns)).transpose()?;
        let names = columns.iter().map(|column| (&column.name, &column.known));
        let demand = Demand::of(&all.root, names);
        Ok(Self { columns, root, limit, demand })
    }

    /// What it demands of the column of which it demands most; `None` when it demands nothing of
    /// any. A row that has something else there is not admitted.
    pub fn demand(&self) -> Option<&Demand> {
        self.demand.as_ref()
    }

    /// What a change means to the listener; `None` when it is not concerned.
    ///
    /// An insert counts by the new row, a delete by the old one, an update by both. A value that
    /// the change does not tell excludes nothing: a delete that tells only the key reaches every
    /// listener whose filter its key does not contradict, since a row that silently stays on a
    /// screen is worse than being told of one that was never there. Where the old row of an update
    /// is not told, an update that moves a row out is not seen as one. A truncate is everybody's.
    ///
    /// # Errors
    /// [`Altered`] when the table is not what the filter was made for.
    pub fn admits(&self, change: &Change) -> Result<Option<Movement>, Altered> {
        match self.within_limit(change)? {
            Within::Both => self.wants(change),
            Within::Neither => Ok(None),
            Within::New => {
                let seen = Change { old: None, ..change.clone() };
                Ok(self.wants(&seen)?.map(|_| Movement::Appears))
            }
            Within::Old => {
                let judged = self.judge(&self.root, &Told::of(change, change.old.as_ref()))?;
                Ok(judged.is_possible().then_some(Movement::Disappears))
            }
        }
    }

    /// Which of the rows of a change may be shown.
    fn within_limit(&self, change: &Change) -> Result<Within, Altered> {
        let (Some(limit), true) = (&self.limit, change.operation != Operation::Truncate) else {
            return Ok(Within::Both);
        };
        let (new, old) = (change.record.as_ref(), change.old.as_ref());
        for column in &self.columns {
            column.place(&change.relation)?;
        }
        let judge = |row, behind| -> Result<bool, Altered> {
            let told = Told { relation: &change.relation, row, behind };
            Ok(told.row.is_some() && self.judge(limit, &told)?.is_certain())
        };
        Ok(match (judge(new, old)?, judge(old, None)?) {
            (true, true) => Within::Both,
            (true, false) if old.is_none() => Within::Both,
            (false, true) if new.is_none() => Within::Both,
            (true, false) => Within::New,
            (false, true) => Within::Old,
            (false, false) => Within::Neither,
        })
    }

    /// What a change means to the listener that wants the rows of the filter.
    fn wants(&self, change: &Change) -> Result<Option<Movement>, Altered> {
        let new = change.record.as_ref();
        let old = change.old.as_ref();
        let mut is_untouched = true;
        for column in &self.columns {
            let place = column.place(&change.relation)?;
            is_untouched &= is_same(new, old, place);
        }
        let judge =
            |row, behind| self.judge(&self.root, &Told { relation: &change.relation, row, behind });
        let within = |verdict: Verdict| verdict.is_possible().then_some(Movement::Within);
        match change.operation {
            Operation::Truncate => Ok(Some(Movement::Within)),
            Operation::Insert => Ok(within(judge(new, None)?)),
            Operation::Delete => Ok(within(judge(old, None)?)),
            // Most updates change other columns than those a filter is about.
            Operation::Update if is_untouched => Ok(within(judge(new, old)?)),
            Operation::Update => Ok(movement(judge(old, None)?, judge(new, old)?)),
        }
    }

    fn judge(&self, rule: &Rule, told: &Told<'_>) -> Result<Verdict, Altered> {
        match rule {
            Rule::Condition { column, check } => self.columns[*column].judge(check, told),
            Rule::Not(inner) => Ok(!self.judge(inner, told)?),
            Rule::All(rules) => self.fold(rules, told, Verdict::YES, Verdict::and, Verdict::NO),
            Rule::Any(rules) => self.fold(rules, told, Verdict::NO, Verdict::or, Verdict::YES),
        }
    }

    /// Joins verdicts until one decides.
    fn fold(
        &self,
        rules: &[Rule],
        told: &Told<'_>,
        start: Verdict,
        join: fn(Verdict, Verdict) -> Verdict,
        decided: Verdict,
    ) -> Result<Verdict, Altered> {
        let mut verdict = start;
        for rule in rules {
            verdict = join(verdict, self.judge(rule, told)?);
            if verdict == decided {
                break;
            }
        }
        Ok(verdict)
    }
}

impl ColumnType {
    /// Checks that a condition on a column of this type can be decided exactly.
    ///
    /// # Errors
    /// [`Unsupported`] when it cannot.
    pub fn supports(&self, condition: &Condition) -> Result<(), Unsupported> {
        self.kind.supports(&condition.test).map_err(|why| self.refuse(condition, why))
    }

    fn refuse(&self, condition: &Condition, why: &'static str) -> Unsupported {
        Unsupported {
            column: Arc::clone(&condition.column),
            type_name: Arc::clone(&self.type_name),
            word: condition.test.word(),
            why,
        }
    }
}

/// Which of the rows of a change a listener may be shown.
enum Within {
    Both,
    New,
    Old,
    Neither,
}

/// What an update means to a listener, by the verdicts on the row before and after.
fn movement(old: Verdict, new: Verdict) -> Option<Movement> {
    match (old.is_possible(), new.is_possible()) {
        (true, true) => Some(Movement::Within),
        (false, true) => Some(Movement::Enters),
        _ if old.is_certain() => Some(Movement::Leaves),
        _ => None,
    }
}

/// Whether a value is known to be the same in both rows.
fn is_same(new: Option<&Row>, old: Option<&Row>, place: usize) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return false };
    match (new.value(place), old.value(place)) {
        (Some(Value::Json(new)), Some(Value::Json(old))) => new == old,
        (Some(Value::Unchanged), Some(Value::Json(_))) => true,
        _ => false,
    }
}

/// A row as far as a change tells it.
struct Told<'a> {
    relation: &'a Relation,
    row: Option<&'a Row>,
    /// Where a value that the statement did not change may be found.
    behind: Option<&'a Row>,
}

impl<'a> Told<'a> {
    fn of(change: &'a Change, row: Option<&'a Row>) -> Self {
        Self { relation: &change.relation, row, behind: None }
    }

    fn json(&self, place: usize) -> Option<&'a str> {
        match self.row?.value(place)? {
            Value::Json(text) => Some(text),
            Value::Unchanged => self.behind?.json(place),
            Value::Absent => None,
        }
    }
}

impl Column {
    fn place(&self, relation: &Relation) -> Result<usize, Altered> {
        let hint = self.place.load(Memory::Relaxed);
        let is_there = relation.columns().get(hint).is_some_and(|column| column.name == self.name);
        let place = match is_there {
            true => hint,
            false => relation
                .column(&self.name)
                .ok_or_else(|| Altered::MissingColumn(Arc::clone(&self.name)))?,
        };
        if !self.known.type_oids.contains(&relation.columns()[place].type_oid) {
            return Err(Altered::OtherType(Arc::clone(&self.name)));
        }
        if place != hint {
            self.place.store(place, Memory::Relaxed);
        }
        Ok(place)
    }

    fn judge(&self, check: &Check, told: &Told<'_>) -> Result<Verdict, Altered> {
        match told.json(self.place(told.relation)?) {
            None => Ok(Verdict::UNKNOWN),
            Some("null") => Ok(of_null(check)),
            Some(json) => self.judge_value(check, json).map(Verdict::from),
        }
    }

    fn judge_value(&self, check: &Check, json: &str) -> Result<bool, Altered> {
        Ok(match check {
            Check::Compare(comparison, constant) => {
                holds(*comparison, self.read(json)?.order(constant))
            }
            Check::OneOf(list) => {
                let value = self.read(json)?;
                list.binary_search_by(|constant| constant.order(&value)).is_ok()
            }
            Check::Distinct(constant) => self.read(json)?.order(constant).is_ne(),
            Check::Like(matcher) => matcher.matches(&scalar(json)),
            Check::Match(regex) => regex.is_match(&scalar(json)),
            Check::Is(Is::Null | Is::Unknown) => false,
            Check::Is(Is::True) => json == "true",
            Check::Is(Is::False) => json == "false",
        })
    }

    fn read<'j>(&self, json: &'j str) -> Result<Datum<'j>, Altered> {
        Datum::read(&self.known.kind, scalar(json))
            .ok_or_else(|| Altered::UnknownValue(Arc::clone(&self.name)))
    }
}

/// What SQL says of NULL.
fn of_null(check: &Check) -> Verdict {
    match check {
        Check::Is(is) => matches!(is, Is::Null | Is::Unknown).into(),
        Check::Distinct(_) => Verdict::YES,
        Check::Compare(..) | Check::OneOf(_) | Check::Like(_) | Check::Match(_) => Verdict::NULL,
    }
}

fn holds(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::AtMost => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::AtLeast => order.is_ge(),
    }
}

impl Rule {
    fn new(node: &Node, columns: &[Column]) -> Result<Self, Unsupported> {
        let each = |list: &[Node]| -> Result<Vec<Self>, Unsupported> {
            list.iter().map(|node| Self::new(node, columns)).collect()
        };
        Ok(match node {
            Node::Condition(condition) => Self::condition(condition, columns)?,
            Node::Not(inner) => Self::Not(Box::new(Self::new(inner, columns)?)),
            Node::All(list) => Self::All(each(list)?),
            Node::Any(list) => Self::Any(each(list)?),
        })
    }

    fn condition(condition: &Condition, columns: &[Column]) -> Result<Self, Unsupported> {
        let column = columns
            .iter()
            .position(|column| column.name == condition.column)
            .expect("the columns of all conditions were collected");
        let known = &columns[column].known;
        known.supports(condition)?;
        let check = Check::new(&condition.test, &known.kind).ok_or_else(|| {
            known.refuse(condition, "has a value that is not understood outside of PostgreSQL")
        })?;
        Ok(Self::Condition { column, check })
    }
}

impl Check {
    /// `None` when a constant is not as `to_jsonb` prints those of the kind.
    fn new(test: &Test, kind: &Kind) -> Option<Self> {
        let read = |text: &Arc<str>| Some(Datum::read(kind, Cow::Borrowed(text))?.into_owned());
        Some(match test {
            Test::Compare(comparison, constant) => Self::Compare(*comparison, read(constant)?),
            Test::Distinct(constant) => Self::Distinct(read(constant)?),
            Test::OneOf(list) => {
                let mut list = list.iter().map(read).collect::<Option<Vec<_>>>()?;
                list.sort_by(|a, b| a.order(b));
                Self::OneOf(list)
            }
            Test::Like(like) => Self::Like(like.matcher(fold_of(kind))),
            Test::Match(regular) => Self::Match(regular.compiled().clone()),
            Test::Is(is) => Self::Is(*is),
        })
    }
}

fn fold_of(kind: &Kind) -> &Fold {
    match kind {
        Kind::Text(Text { fold, .. }) | Kind::Padded(Text { fold, .. }) => fold,
        _ => &Fold::Ascii,
    }
}
