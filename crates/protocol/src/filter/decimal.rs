//! Numbers of any length, compared as text.
//!
//! `numeric` has up to 131,072 digits before the point, more than any number type here; its text
//! compares in a few nanoseconds.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The one text of a number: `1.50` and `1.5` are the same.
pub(super) fn canonical(text: &str) -> Cow<'_, str> {
    let short = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    Cow::Borrowed(if short == "-0" { "0" } else { short })
}

/// Whether the text is a number as `numeric` prints it.
pub(super) fn is_number(text: &str) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// PostgreSQL's order: NaN above all, equal to itself.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Rank::Finite, Rank::Finite) => compare_finite(a, b),
        (a, b) => a.cmp(&b),
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NegativeInfinity,
    Finite,
    Infinity,
    NotANumber,
}

fn rank(text: &str) -> Rank {
    match text {
        "-Infinity" => Rank::NegativeInfinity,
        "Infinity" => Rank::Infinity,
        "NaN" => Rank::NotANumber,
        _ => Rank::Finite,
    }
}

fn compare_finite(a: &str, b: &str) -> Ordering {
    let (a, b) = (canonical(a), canonical(b));
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        (None, None) => compare_magnitude(&a, &b),
        (Some(a), Some(b)) => compare_magnitude(b, a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
    }
}

fn compare_magnitude(a: &str, b: &str) -> Ordering {
    let ((a, a_fraction), (b, b_fraction)) = (split(a), split(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| a_fraction.cmp(b_fraction))
}

fn split(text: &str) -> (&str, &str) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    (whole.trim_start_matches('0'), fraction)
}
