//! Values of columns as something that compares.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::kind::Kind;
use super::{decimal, moment};

/// A JSON text as the text of one value: a string without its quotes and escapes, anything else as
/// it is.
pub fn scalar(json: &str) -> Cow<'_, str> {
    let inside = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inside {
        None => Cow::Borrowed(json),
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        Some(_) => serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned),
    }
}

fn unpadded(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(' ')),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches(' ').to_owned()),
    }
}

/// A value that compares with others of its kind.
#[derive(Clone, Debug)]
pub(super) enum Datum<'a> {
    Text(Cow<'a, str>),
    Bool(bool),
    Integer(i64),
    Decimal(Cow<'a, str>),
    Float(f64),
    /// Days or microseconds.
    Moment(i64),
    /// The place of an enum's label.
    Rank(usize),
}

impl<'a> Datum<'a> {
    /// Reads a value's text; `None` when it is not one of the kind.
    pub(super) fn read(kind: &Kind, text: Cow<'a, str>) -> Option<Self> {
        match kind {
            Kind::Bool => text.parse().ok().map(Self::Bool),
            Kind::Integer => text.parse().ok().map(Self::Integer),
            Kind::Decimal => decimal::is_number(&text).then_some(Self::Decimal(text)),
            Kind::Single => text.parse::<f32>().ok().map(|number| Self::Float(number.into())),
            Kind::Double => text.parse().ok().map(Self::Float),
            Kind::Text(_) | Kind::Label { .. } => Some(Self::Text(text)),
            Kind::Padded(_) => Some(Self::Text(unpadded(text))),
            Kind::Date => moment::date(&text).map(Self::Moment),
            Kind::Timestamp => moment::timestamp(&text).map(Self::Moment),
            Kind::Enum(labels) => labels.iter().position(|l| **l == *text).map(Self::Rank),
            Kind::Other { .. } => None,
        }
    }

    /// The same, holding its text itself.
    pub(super) fn into_owned(self) -> Datum<'static> {
        match self {
            Self::Text(text) => Datum::Text(Cow::Owned(text.into_owned())),
            Self::Decimal(text) => Datum::Decimal(Cow::Owned(text.into_owned())),
            Self::Bool(truth) => Datum::Bool(truth),
            Self::Integer(number) => Datum::Integer(number),
            Self::Float(number) => Datum::Float(number),
            Self::Moment(number) => Datum::Moment(number),
            Self::Rank(rank) => Datum::Rank(rank),
        }
    }

    /// PostgreSQL's order; of texts, by bytes.
    pub(super) fn order(&self, other: &Datum<'_>) -> Ordering {
        match (self, other) {
            (Self::Text(a), Datum::Text(b)) => a.cmp(b),
            (Self::Bool(a), Datum::Bool(b)) => a.cmp(b),
            (Self::Integer(a), Datum::Integer(b)) | (Self::Moment(a), Datum::Moment(b)) => a.cmp(b),
            (Self::Decimal(a), Datum::Decimal(b)) => decimal::compare(a, b),
            (Self::Float(a), Datum::Float(b)) => order_of_floats(*a, *b),
            (Self::Rank(a), Datum::Rank(b)) => a.cmp(b),
            _ => unreachable!("a column and its constants are of one kind"),
        }
    }
}

/// NaN is equal to itself and above everything, and there is one zero.
fn order_of_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
