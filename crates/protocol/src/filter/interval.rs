//! Stretches of a [`Scale`](super::Scale), from one edge to another, and sets of them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::point::Point;

/// A place between values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Before all values.
    Bottom,
    /// Just before a value.
    Before(Arc<Point<'static>>),
    /// Just after a value.
    After(Arc<Point<'static>>),
    /// After all values.
    Top,
}

impl Edge {
    /// Whether the value is after this place.
    pub fn is_before(&self, value: &Point<'_>) -> bool {
        match self {
            Self::Bottom => true,
            Self::Before(point) => **point <= *value,
            Self::After(point) => **point < *value,
            Self::Top => false,
        }
    }
}

impl PartialOrd for Edge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Edge {
    fn cmp(&self, other: &Self) -> Ordering {
        use Edge::{After, Before, Bottom, Top};
        match (self, other) {
            (Bottom, Bottom) | (Top, Top) => Ordering::Equal,
            (Bottom, _) | (_, Top) => Ordering::Less,
            (Top, _) | (_, Bottom) => Ordering::Greater,
            (Before(a), Before(b)) | (After(a), After(b)) => a.cmp(b),
            (Before(a), After(b)) => a.cmp(b).then(Ordering::Less),
            (After(a), Before(b)) => a.cmp(b).then(Ordering::Greater),
        }
    }
}

/// All values between two edges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// Where it begins.
    pub from: Edge,
    /// Where it ends, after `from`.
    pub to: Edge,
}

impl Interval {
    /// Whether the value is in it.
    pub fn contains(&self, value: &Point<'_>) -> bool {
        self.from.is_before(value) && !self.to.is_before(value)
    }

    /// Just one value.
    pub(super) fn at(value: Point<'static>) -> Self {
        let value = Arc::new(value);
        Self { from: Edge::Before(Arc::clone(&value)), to: Edge::After(value) }
    }

    /// The value, where it is just one.
    pub(super) fn value(&self) -> Option<&Point<'static>> {
        match (&self.from, &self.to) {
            (Edge::Before(a), Edge::After(b)) if a == b => Some(a),
            _ => None,
        }
    }

    /// Whether it has both ends.
    pub(super) fn is_bounded(&self) -> bool {
        self.from != Edge::Bottom && self.to != Edge::Top
    }
}

/// Intervals in order, none of which touch: the one way to write a set of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<Interval>);

impl Intervals {
    pub(super) fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    /// Values that are in any of the intervals.
    pub(super) fn any_of(intervals: impl IntoIterator<Item = Interval>) -> Self {
        let mut list: Vec<Interval> =
            intervals.into_iter().filter(|interval| interval.from < interval.to).collect();
        list.sort();
        let mut joined: Vec<Interval> = Vec::with_capacity(list.len());
        for next in list {
            match joined.last_mut() {
                Some(last) if next.from <= last.to => last.to = next.to.max(last.to.clone()),
                _ => joined.push(next),
            }
        }
        Self(joined)
    }

    /// Values that are in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&a), Some(&b)) = (ours.peek(), theirs.peek()) {
            let from = a.from.clone().max(b.from.clone());
            let to = a.to.clone().min(b.to.clone());
            both.push(Interval { from, to });
            // Whichever ends first meets nothing that comes later.
            if a.to < b.to {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self::any_of(both)
    }

    /// Whether they are all values.
    pub(super) fn is_everything(&self) -> bool {
        matches!(&self.0[..], [Interval { from: Edge::Bottom, to: Edge::Top }])
    }
}
