//! What a filter demands of one column, by which its listener is found.
//!
//! For each column there are values outside of which the filter cannot be true, however the other
//! columns are. Where those are few, listeners are found by the value and the others cost nothing.
//! NULL is never among them: no condition that counts here is true of it.

use std::sync::Arc;

use super::interval::{Edge, Interval, Intervals};
use super::point::{Point, Scale};
use super::predicate::ColumnType;
use super::{Comparison, Condition, Is, Node, Test};

/// What a column must have for a row to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The column's name.
    pub column: Arc<str>,
    /// The oids that its type may have: a change in which it has another is for nobody to judge
    /// by this.
    pub type_oids: [u32; 2],
    /// How its values are read.
    pub scale: Scale,
    /// Which values.
    pub extent: Extent,
}

/// Some of the values of a scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These, in order; none at all when a filter contradicts itself.
    Values(Vec<Point<'static>>),
    /// What is in any of these, which are in order and do not touch.
    Within(Vec<Interval>),
}

impl Demand {
    /// Whether a row with this JSON text in the column may be admitted; also where it cannot be
    /// read, because whoever is concerned must learn of it.
    pub fn may_admit(&self, json: &str) -> bool {
        json != "null" && self.scale.read(json).is_none_or(|value| self.extent.contains(&value))
    }

    /// What is demanded by a listener that is content with either; `None` when that is not one
    /// column's values.
    pub fn or(&self, other: &Self) -> Option<Self> {
        let alike = self.column == other.column
            && self.type_oids == other.type_oids
            && self.scale == other.scale;
        let either = Intervals::any_of(self.extent.intervals().chain(other.extent.intervals()));
        (alike && !either.is_everything()).then(|| self.with(&either))
    }

    fn with(&self, intervals: &Intervals) -> Self {
        Self { extent: Extent::of(intervals), ..self.clone() }
    }

    /// What a filter demands of the column where it demands most.
    pub(super) fn of<'a>(
        root: &Node,
        columns: impl Iterator<Item = (&'a Arc<str>, &'a ColumnType)>,
    ) -> Option<Self> {
        let demands = columns.filter_map(|(name, known)| {
            let scale = Scale::of(&known.kind)?;
            let demanded = OfColumn { name, scale: &scale }.by(root, false)?;
            let extent = (!demanded.is_everything()).then(|| Extent::of(&demanded))?;
            let column = Arc::clone(name);
            Some(Self { column, type_oids: known.type_oids, scale, extent })
        });
        demands.min_by_key(Self::rank)
    }

    /// The smaller, the fewer rows are likely to have one of the values.
    fn rank(&self) -> (u8, usize) {
        match &self.extent {
            Extent::Values(values) if !self.scale.is_bool() || values.is_empty() => {
                (0, values.len())
            }
            Extent::Within(list) if list.iter().all(Interval::is_bounded) => (1, list.len()),
            // Half of a table's rows may be true.
            Extent::Values(values) => (2, values.len()),
            // What has one end may be nearly everything.
            Extent::Within(list) => (3, list.len()),
        }
    }
}

impl Extent {
    fn of(intervals: &Intervals) -> Self {
        let list = intervals.as_slice();
        let values: Option<Vec<_>> = list.iter().map(|one| one.value().cloned()).collect();
        values.map_or_else(|| Self::Within(list.to_vec()), Self::Values)
    }

    /// Whether the value is one of them.
    pub fn contains(&self, value: &Point<'_>) -> bool {
        match self {
            Self::Values(values) => values.binary_search_by(|held| held.cmp(value)).is_ok(),
            Self::Within(list) => list.iter().any(|interval| interval.contains(value)),
        }
    }

    fn intervals(&self) -> impl Iterator<Item = Interval> {
        let (values, list) = match self {
            Self::Values(values) => (&values[..], &[][..]),
            Self::Within(list) => (&[][..], &list[..]),
        };
        values.iter().cloned().map(Interval::at).chain(list.iter().cloned())
    }
}

/// What is demanded of one column.
struct OfColumn<'a> {
    name: &'a Arc<str>,
    scale: &'a Scale,
}

impl OfColumn<'_> {
    /// The values outside of which the node, or its negation, cannot be true; `None` for no such.
    fn by(&self, node: &Node, negated: bool) -> Option<Intervals> {
        match node {
            Node::Condition(condition) => self.by_condition(condition, negated),
            Node::Not(inner) => self.by(inner, !negated),
            // By De Morgan, the negation of several is the other sort of their negations.
            Node::All(list) if !negated => self.by_all(list, negated),
            Node::Any(list) if negated => self.by_all(list, negated),
            Node::All(list) | Node::Any(list) => {
                let each: Option<Vec<_>> = list.iter().map(|node| self.by(node, negated)).collect();
                let each = each?;
                Some(Intervals::any_of(each.iter().flat_map(Intervals::as_slice).cloned()))
            }
        }
    }

    fn by_all(&self, list: &[Node], negated: bool) -> Option<Intervals> {
        let each = list.iter().filter_map(|node| self.by(node, negated));
        each.reduce(|all, more| all.and(&more))
    }

    fn by_condition(&self, condition: &Condition, negated: bool) -> Option<Intervals> {
        if condition.column != *self.name {
            return None;
        }
        let values = match (&condition.test, negated) {
            (Test::Compare(comparison, constant), _) => {
                let comparison = if negated { turned(*comparison) } else { *comparison };
                return self.by_comparison(comparison, constant);
            }
            (Test::OneOf(list), false) => list.iter().map(|text| &**text).collect(),
            (Test::Distinct(constant), true) => vec![&**constant],
            (Test::Is(Is::True), false) => vec!["true"],
            (Test::Is(Is::False), false) => vec!["false"],
            _ => return None,
        };
        let points: Option<Vec<_>> =
            values.into_iter().map(|text| self.scale.constant(text)).collect();
        Some(Intervals::any_of(points?.into_iter().map(Interval::at)))
    }

    fn by_comparison(&self, comparison: Comparison, constant: &str) -> Option<Intervals> {
        let value = Arc::new(self.scale.constant(constant)?);
        let (before, after) = (Edge::Before(Arc::clone(&value)), Edge::After(value));
        let (from, to) = match comparison {
            Comparison::Equal => (before, after),
            // Nearly everything.
            Comparison::NotEqual => return None,
            Comparison::Less => (Edge::Bottom, before),
            Comparison::AtMost => (Edge::Bottom, after),
            Comparison::Greater => (after, Edge::Top),
            Comparison::AtLeast => (before, Edge::Top),
        };
        Some(Intervals::any_of([Interval { from, to }]))
    }
}

/// The comparison that is true where the given one is false.
fn turned(comparison: Comparison) -> Comparison {
    use Comparison::{AtLeast, AtMost, Equal, Greater, Less, NotEqual};
    match comparison {
        Equal => NotEqual,
        NotEqual => Equal,
        Less => AtLeast,
        AtMost => Greater,
        Greater => AtMost,
        AtLeast => Less,
    }
}
