//! Which rows of a table a listener wants: `column=op.value`, in the words of PostgREST.
//!
//! A text is read into a [`Filter`]. Whoever knows the table replaces its constants by what
//! PostgreSQL makes of them and says of which [`Kind`] each column is; the result is a
//! [`Predicate`], which judges changes without asking anybody. The same [`Filter`] is translated to
//! SQL for a snapshot, so both must mean the same: what cannot be judged here exactly as PostgreSQL
//! would is refused, never approximated. `docs/filters.md` has the grammar and the rules.

mod decimal;
mod demand;
mod interval;
mod kind;
mod like;
mod moment;
mod parse;
mod point;
mod predicate;
mod regular;
mod scalar;
mod verdict;

use std::sync::Arc;

use thiserror::Error;

pub use demand::{Demand, Extent};
pub use interval::{Edge, Interval};
pub use kind::{Fold, FoldTable, Kind, Text, Unsupported};
pub use like::Like;
pub use point::{Point, Scale};
pub use predicate::{Altered, ColumnType, Predicate};
pub use regular::Regular;
pub use scalar::scalar;

/// Longest filter in bytes.
///
/// Two full lists of UUIDs fit; ten thousand such filters stay under a hundred megabytes.
pub const MAX_BYTES: usize = 8_192;

/// Most conditions in a filter; each is judged for every row that has what the filter demands.
pub const MAX_CONDITIONS: usize = 32;

/// Most values in one list.
pub const MAX_LIST: usize = 100;

/// Deepest nesting of `and` and `or`; deeper ones are written by mistake or malice.
pub const MAX_DEPTH: usize = 4;

/// A filter as it was written, not yet held against a table.
///
/// ```
/// use tidewire_protocol::filter::Filter;
///
/// let filter = Filter::parse("status=in.(open,\"on hold\"),or=(total.gt.100,urgent.is.true)")?;
/// assert_eq!(filter.conditions().len(), 3);
/// # Ok::<(), tidewire_protocol::filter::FilterError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// What must hold.
    pub root: Node,
}

/// A condition, or several joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// One condition.
    Condition(Condition),
    /// Not this.
    Not(Box<Node>),
    /// All of these.
    All(Vec<Node>),
    /// At least one of these.
    Any(Vec<Node>),
}

/// Something said of one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The column's name.
    pub column: Arc<str>,
    /// What is said.
    pub test: Test,
}

/// What is said of a column's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// How it compares with a constant.
    Compare(Comparison, Arc<str>),
    /// It equals one of these.
    OneOf(Vec<Arc<str>>),
    /// It differs from a constant; NULL does.
    Distinct(Arc<str>),
    /// It looks like a pattern.
    Like(Like),
    /// It matches a regular expression.
    Match(Regular),
    /// It is one of SQL's words.
    Is(Is),
}

/// How a value compares with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `eq`
    Equal,
    /// `neq`
    NotEqual,
    /// `lt`
    Less,
    /// `lte`
    AtMost,
    /// `gt`
    Greater,
    /// `gte`
    AtLeast,
}

impl Comparison {
    /// SQL's operator.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether it needs an order, not only equality.
    pub fn is_ordering(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// What SQL says with `IS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Is {
    /// `is.null`
    Null,
    /// `is.true`
    True,
    /// `is.false`
    False,
    /// `is.unknown`, which is NULL for a column of booleans.
    Unknown,
}

impl Is {
    /// SQL's word.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::True => "TRUE",
            Self::False => "FALSE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Test {
    /// The operator as a client writes it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Compare(Comparison::Equal, _) => "eq",
            Self::Compare(Comparison::NotEqual, _) => "neq",
            Self::Compare(Comparison::Less, _) => "lt",
            Self::Compare(Comparison::AtMost, _) => "lte",
            Self::Compare(Comparison::Greater, _) => "gt",
            Self::Compare(Comparison::AtLeast, _) => "gte",
            Self::OneOf(_) => "in",
            Self::Distinct(_) => "isdistinct",
            Self::Like(like) if like.any_case() => "ilike",
            Self::Like(_) => "like",
            Self::Match(regular) if regular.any_case() => "imatch",
            Self::Match(_) => "match",
            Self::Is(_) => "is",
        }
    }

    /// The constants, which must be of the column's type.
    pub fn constants(&self) -> &[Arc<str>] {
        match self {
            Self::Compare(_, constant) | Self::Distinct(constant) => std::slice::from_ref(constant),
            Self::OneOf(list) => list,
            Self::Like(_) | Self::Match(_) | Self::Is(_) => &[],
        }
    }

    /// The same, to be replaced.
    pub fn constants_mut(&mut self) -> &mut [Arc<str>] {
        match self {
            Self::Compare(_, constant) | Self::Distinct(constant) => std::slice::from_mut(constant),
            Self::OneOf(list) => list,
            Self::Like(_) | Self::Match(_) | Self::Is(_) => &mut [],
        }
    }
}

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("filter, at character {at}: {message}")]
pub struct FilterError {
    /// Which character, counted from 1.
    pub at: usize,
    /// What is wrong; begins with a small letter.
    pub message: String,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`FilterError`] when it is not of the grammar, over a limit, or has a pattern that
    /// PostgreSQL would understand otherwise than we do.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::filter(text)
    }

    /// Admits every row.
    pub fn everything() -> Self {
        Self { root: Node::All(Vec::new()) }
    }

    /// The two that were joined by [`Filter::and`].
    pub fn into_both(self) -> Option<(Self, Self)> {
        let Node::All(list) = self.root else { return None };
        let [one, other] = <[Node; 2]>::try_from(list).ok()?;
        Some((Self { root: one }, Self { root: other }))
    }

    /// What both admit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { root: Node::All(vec![self.root, other.root]) }
    }

    /// What any of several admits.
    #[must_use]
    pub fn any_of(filters: Vec<Self>) -> Self {
        Self { root: Node::Any(filters.into_iter().map(|filter| filter.root).collect()) }
    }

    /// All conditions, in the order written.
    pub fn conditions(&self) -> Vec<&Condition> {
        let mut found = Vec::new();
        self.root.visit(&mut found);
        found
    }

    /// Bytes of memory that its regular expressions take at most, roughly; all else is about as
    /// large as the filter's text.
    pub fn weight(&self) -> usize {
        let weights = self.conditions().into_iter().map(|condition| match &condition.test {
            Test::Match(regular) => regular.weight(),
            _ => 0,
        });
        weights.sum()
    }

    /// The same, to be changed.
    pub fn conditions_mut(&mut self) -> Vec<&mut Condition> {
        let mut found = Vec::new();
        self.root.visit_mut(&mut found);
        found
    }
}

impl Node {
    fn visit<'a>(&'a self, found: &mut Vec<&'a Condition>) {
        match self {
            Self::Condition(condition) => found.push(condition),
            Self::Not(inner) => inner.visit(found),
            Self::All(list) | Self::Any(list) => list.iter().for_each(|node| node.visit(found)),
        }
    }

    fn visit_mut<'a>(&'a mut self, found: &mut Vec<&'a mut Condition>) {
        match self {
            Self::Condition(condition) => found.push(condition),
            Self::Not(inner) => inner.visit_mut(found),
            Self::All(list) | Self::Any(list) => {
                list.iter_mut().for_each(|node| node.visit_mut(found));
            }
        }
    }
}

#[cfg(test)]
mod tests;
