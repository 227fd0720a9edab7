//! JSON texts, read and written without building trees.
//!
//! A payload is passed on as it came, so frames are written by hand around it. What comes in is
//! checked once at the door (`check`), so that no publisher can send something that another
//! client's reader refuses.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::digits::Digits;
use crate::position::Position;
use crate::scan;

/// Levels of arrays and objects that a payload may have.
///
/// Common readers stop at 128, and frames and HTTP answers wrap a payload in a few levels of
/// their own.
pub(crate) const MAX_DEPTH: usize = 100;

/// One JSON object being written; its first field says its type.
pub(crate) struct Object(String);

impl Object {
    /// Begins `{"type":"…"`.
    pub(crate) fn new(kind: &str) -> Self {
        Self::with_room(kind, 96)
    }

    /// The same, with room for `bytes` of content.
    pub(crate) fn with_room(kind: &str, bytes: usize) -> Self {
        let mut out = String::with_capacity(bytes);
        out.push_str("{\"type\":\"");
        // The names of types are our own words and need no escapes.
        out.push_str(kind);
        out.push('"');
        Self(out)
    }

    /// Begins an object without a type: `{"key":"value"`.
    pub(crate) fn untyped(key: &str, value: &str, bytes: usize) -> Self {
        let mut out = String::with_capacity(bytes);
        out.push('{');
        string(&mut out, key);
        out.push(':');
        string(&mut out, value);
        Self(out)
    }

    /// Adds a string.
    pub(crate) fn string(self, key: &str, value: &str) -> Self {
        self.written(key, |out| string(out, value))
    }

    /// Adds a string that needs no escapes, such as base64.
    pub(crate) fn quoted(self, key: &str, value: &str) -> Self {
        self.written(key, |out| {
            out.push('"');
            out.push_str(value);
            out.push('"');
        })
    }

    /// Adds a place in a topic.
    pub(crate) fn position(self, position: Position) -> Self {
        self.quoted("position", &position.text())
    }

    /// Adds JSON text as it is.
    pub(crate) fn raw(self, key: &str, json: &str) -> Self {
        self.written(key, |out| out.push_str(json))
    }

    /// Adds a number.
    pub(crate) fn number(self, key: &str, number: impl Into<u64>) -> Self {
        self.written(key, |out| out.push_str(&Digits::decimal(number.into())))
    }

    /// Adds a number that may be below zero.
    pub(crate) fn signed(self, key: &str, number: i64) -> Self {
        self.written(key, |out| {
            if number < 0 {
                out.push('-');
            }
            out.push_str(&Digits::decimal(number.unsigned_abs()));
        })
    }

    /// Adds `true` or `false`.
    pub(crate) fn truth(self, key: &str, truth: bool) -> Self {
        self.raw(key, if truth { "true" } else { "false" })
    }

    /// Adds whatever `write` writes.
    pub(crate) fn written(mut self, key: &str, write: impl FnOnce(&mut String)) -> Self {
        self.0.push_str(",\"");
        self.0.push_str(key);
        self.0.push_str("\":");
        write(&mut self.0);
        self
    }

    /// Goes on with `add` when there is a value.
    pub(crate) fn with<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    /// Ends the object.
    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Appends `text` as a JSON string with its quotes, with the escapes that PostgreSQL's `jsonb` uses.
pub fn string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    content(out, text);
    out.push('"');
}

/// Appends what is between the quotes of a JSON string.
pub fn content(out: &mut String, text: &str) {
    let mut rest = text;
    // Bytes of longer characters are all above these, so `at` is always a boundary.
    while let Some(at) = scan::position(rest.as_bytes(), needs_escape) {
        out.push_str(&rest[..at]);
        escape(out, rest.as_bytes()[at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

fn escape(out: &mut String, byte: u8) {
    match byte {
        b'"' => out.push_str("\\\""),
        b'\\' => out.push_str("\\\\"),
        0x08 => out.push_str("\\b"),
        0x0C => out.push_str("\\f"),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        other => write!(out, "\\u{other:04x}").expect("a String takes everything"),
    }
}

/// Appends an array of what `write` writes for each item.
pub(crate) fn array<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// The same JSON text without the white space between its parts.
pub(crate) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = character == '"';
        }
        out.push(character);
    }
    out
}

/// Whether every usual reader can read `text`: it is JSON, at most [`MAX_DEPTH`] levels deep, its
/// numbers fit a double and its escapes are Unicode.
pub(crate) fn check(text: &str) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Sound { levels: MAX_DEPTH }.deserialize(&mut reader)?;
    reader.end()
}

/// Reads any value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Sound {
    levels: usize,
}

impl Sound {
    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels }),
            None => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_string_reads_as_itself(text in "\\PC*|[\\x00-\\x7f]*") {
            let mut out = String::new();
            string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }

        #[test]
        fn compact_text_means_the_same(text in "[a-z \\n\\t\"\\\\{}\\[\\],:]*") {
            let value = serde_json::json!({ "a b": [text, 1.5, null, { " ": " " }] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }

    #[test]
    fn only_what_every_reader_can_read_is_sound() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check(&deep(MAX_DEPTH)).is_ok());
        assert!(check(r#" {"a":[1,-2,1.5e3,"\ud83e\udd80",null,true]} "#).is_ok());
        assert!(check(&deep(MAX_DEPTH + 1)).is_err());
        let unsound = ["", "1 2", "1e999", r#""\ud800""#, r#"{"\ud800":1}"#, "[1,]", "01", "{1:2}"];
        for text in unsound {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
