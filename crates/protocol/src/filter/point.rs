//! Values of a column as something to look up by: they compare and hash as PostgreSQL compares
//! them.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::decimal;
use super::kind::{Fold, Kind, Text};
use super::scalar::{Datum, scalar};

/// How values of a column are read and ordered; equal for columns whose values may be held
/// against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale(Kind);

/// A value on a [`Scale`]. Only points of one scale compare: others would not mean the same.
#[derive(Clone, Debug)]
pub struct Point<'a>(Datum<'a>);

impl Scale {
    /// The scale of columns of a kind; `None` where values cannot be told from each other.
    pub fn of(kind: &Kind) -> Option<Self> {
        // How patterns and capitals are understood makes no difference to what equals what.
        let plain = Text { ordered: true, patterns: false, fold: Fold::Ascii, ascii_case: true };
        Some(Self(match kind {
            Kind::Other { .. } => return None,
            Kind::Text(_) => Kind::Text(plain),
            Kind::Padded(_) => Kind::Padded(plain),
            other => other.clone(),
        }))
    }

    /// The value of a JSON text; `None` when it is not one of the scale, such as a label that an
    /// enum did not have. NULL is not on any scale, so the caller asks for it first.
    pub fn read<'j>(&self, json: &'j str) -> Option<Point<'j>> {
        Datum::read(&self.0, scalar(json)).map(Point)
    }

    /// The value of a constant, which is a scalar's text already.
    pub(super) fn constant(&self, text: &str) -> Option<Point<'static>> {
        Datum::read(&self.0, text.into()).map(|datum| Point(datum).into_owned())
    }

    /// Whether there are only two values.
    pub(super) fn is_bool(&self) -> bool {
        self.0 == Kind::Bool
    }
}

impl Point<'_> {
    /// The same, holding its text itself.
    pub fn into_owned(self) -> Point<'static> {
        Point(self.0.into_owned())
    }
}

impl PartialEq for Point<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Point<'_> {}

impl PartialOrd for Point<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Point<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order(&other.0)
    }
}

impl Hash for Point<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Datum::Text(text) => text.hash(state),
            Datum::Bool(truth) => truth.hash(state),
            Datum::Integer(number) | Datum::Moment(number) => number.hash(state),
            Datum::Decimal(text) => decimal::canonical(text).hash(state),
            Datum::Float(number) => bits(*number).hash(state),
            Datum::Rank(rank) => rank.hash(state),
        }
    }
}

/// The same for all that are equal: there is one zero and one NaN.
fn bits(number: f64) -> u64 {
    match number {
        0.0 => 0,
        nan if nan.is_nan() => f64::NAN.to_bits(),
        other => other.to_bits(),
    }
}
