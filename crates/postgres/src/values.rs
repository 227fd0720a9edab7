//! From what PostgreSQL prints to what its `to_jsonb` gives; pure but for [`catalog`].
//!
//! A [`Shape`] says how a type is turned to JSON, as `jsonb_categorize_type` in PostgreSQL decides
//! it: numbers stay numbers without loss, NaN and the infinities become strings, times are ISO
//! 8601, arrays and composites are taken apart, and everything else is a string of its text. The
//! JSON has the white space and the order of keys that `jsonb` prints, so equal values are equal
//! texts whichever source saw them.
//!
//! The text must come from a session with `DateStyle` ISO, `TimeZone` UTC, `IntervalStyle`
//! postgres, `extra_float_digits` 1 and `bytea_output` hex.

mod array;
mod catalog;
mod composite;
mod hstore;
mod json;
mod number;
mod object;
mod string;
mod time;

use std::borrow::Cow;
use std::sync::Arc;

pub(crate) use catalog::{Catalog, TypeInfo};
pub(crate) use string::quote;

/// How a type is turned to JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `t` or `f`.
    Bool,
    /// Integers and numeric.
    Number,
    /// float4 and float8, which may be printed with an exponent.
    Float,
    /// A day, a moment, or a moment with its zone; they are printed almost as ISO 8601.
    Time,
    /// Text of JSON as somebody wrote it; it becomes `jsonb`.
    Json,
    /// JSON as `jsonb` prints it, which is passed on as it is.
    Jsonb,
    /// An array: what it holds, and what is between two of them.
    Array(Arc<Shape>, u8),
    /// int2vector and oidvector: numbers with spaces between.
    Vector(Arc<Shape>),
    /// Attributes in order.
    Composite(Arc<[Attribute]>),
    /// An `hstore`, which has a cast to JSON.
    Hstore,
    /// A string of its text.
    Text,
}

/// One attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: Arc<str>,
    pub(crate) shape: Arc<Shape>,
}

/// The text is not a value of the shape: the type was altered since the shape was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value does not have the shape of its type")]
pub(crate) struct Misshapen;

/// Appends the JSON of a value that PostgreSQL printed.
///
/// # Errors
/// [`Misshapen`], and a part of it may have been appended; a string of the text can still be
/// delivered then.
pub(crate) fn to_json(shape: &Shape, text: &str, out: &mut String) -> Result<(), Misshapen> {
    write(shape, text, out)
}

fn write(shape: &Shape, text: &str, out: &mut String) -> Result<(), Misshapen> {
    match shape {
        Shape::Bool => out.push_str(match text {
            "t" => "true",
            "f" => "false",
            _ => return Err(Misshapen),
        }),
        Shape::Number | Shape::Float if has_n(text) => quote(text, out),
        Shape::Number => out.push_str(text),
        Shape::Float => number::expand(text, out)?,
        Shape::Time => time::write(text, out),
        Shape::Json => json::write(text, out),
        Shape::Jsonb => out.push_str(text),
        Shape::Array(element, delimiter) => array::write(element, *delimiter, text, out)?,
        Shape::Vector(element) => array::write_vector(element, text, out)?,
        Shape::Composite(attributes) => composite::write(attributes, text, out)?,
        Shape::Hstore => hstore::write(text, out)?,
        Shape::Text => quote(text, out),
    }
    Ok(())
}

/// Whether a printed number is none: PostgreSQL itself looks for an N, as in NaN and Infinity.
fn has_n(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'N' | b'n'))
}

/// A list with what is between its items.
fn separate(first: &mut bool, out: &mut String) {
    if !std::mem::replace(first, false) {
        out.push_str(", ");
    }
}

/// Takes a piece up to one of the `ends` apart, undoing quotes and escapes; true when any part of
/// it was quoted. What ends it is left.
fn piece<'t>(rest: &mut &'t str, ends: &[u8]) -> Result<(Cow<'t, str>, bool), Misshapen> {
    let bytes = rest.as_bytes();
    let plain = bytes.iter().position(|b| ends.contains(b) || matches!(b, b'"' | b'\\'));
    let plain = plain.ok_or(Misshapen)?;
    if ends.contains(&bytes[plain]) {
        let (taken, left) = rest.split_at(plain);
        *rest = left;
        return Ok((Cow::Borrowed(taken), false));
    }
    let mut taken = String::new();
    let mut inside = false;
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if inside && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                chars.next();
                taken.push('"');
            }
            '"' => inside = !inside,
            '\\' => taken.push(chars.next().ok_or(Misshapen)?.1),
            _ if !inside && c.is_ascii() && ends.contains(&(c as u8)) => {
                *rest = &rest[at..];
                return Ok((Cow::Owned(taken), true));
            }
            _ => taken.push(c),
        }
    }
    Err(Misshapen)
}

#[cfg(test)]
mod tests;
