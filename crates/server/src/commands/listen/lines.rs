//! Frames as lines for a person, values as they came: read into a number, `7.00` would be `7.0`, and
//! a long one would lose digits.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::escaped;

/// What is printed of a frame.
#[derive(Default, Deserialize)]
struct Shown<'a> {
    op: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    rows: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The lines of an event, a change, or the rows of a snapshot; without line ends.
pub(super) fn of(frame: &str) -> Vec<String> {
    let shown: Shown<'_> = serde_json::from_str(frame).unwrap_or_default();
    match (&shown.op, &shown.rows) {
        (Some(op), _) => vec![change(op, &shown)],
        (None, Some(rows)) => rows.iter().map(|row| format!("ROW\t{}", one_line(row))).collect(),
        (None, None) => vec![shown.data.map_or_else(|| "null".to_owned(), one_line)],
    }
}

/// JSON on one line that a terminal shows and does not obey; still the same JSON.
pub(super) fn json(text: &str) -> String {
    // Outside of strings these are space; inside of strings JSON has them escaped.
    let on_one_line = text.replace(['\n', '\r', '\t'], " ");
    escaped(&on_one_line).into_owned()
}

/// What was done to a row, and the row: as it is now, or what is known of the one that is gone.
fn change(op: &str, shown: &Shown<'_>) -> String {
    let op = escaped(op);
    match shown.record.or(shown.old).or(shown.key) {
        Some(row) => format!("{op}\t{}", one_line(row)),
        None => op.into_owned(),
    }
}

/// A payload on one line: text with its line ends, tabs and other control characters escaped,
/// anything else as JSON.
fn one_line(data: &RawValue) -> String {
    match serde_json::from_str::<Cow<'_, str>>(data.get()) {
        Ok(text) => escaped(&text.replace('\\', "\\\\")).into_owned(),
        Err(_) => json(data.get()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn line(data: &str) -> String {
        of(&format!(r#"{{"type":"event","data":{data}}}"#)).remove(0)
    }

    #[test]
    fn a_change_is_one_line_and_so_is_each_row() {
        let change = r#"{"type":"change","op":"UPDATE","record":{"id":1},"key":{"id":1}}"#;
        assert_eq!(of(change), ["UPDATE\t{\"id\":1}"]);
        let gone = r#"{"type":"change","op":"DELETE","old":{"id":1},"key":{"id":1}}"#;
        assert_eq!(of(gone), ["DELETE\t{\"id\":1}"]);
        assert_eq!(of(r#"{"type":"change","op":"TRUNCATE"}"#), ["TRUNCATE"]);
        let rows = r#"{"type":"rows","rows":[{"id":1},{"id":2}],"last":true}"#;
        assert_eq!(of(rows), ["ROW\t{\"id\":1}", "ROW\t{\"id\":2}"]);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        assert_eq!(line("[7.00, 12345678901234567890.5]"), "[7.00, 12345678901234567890.5]");
        assert_eq!(super::json(r#"{"n":1e400}"#), r#"{"n":1e400}"#);
    }

    #[test]
    fn a_payload_is_printed_on_one_line() {
        assert_eq!(line(r#""a\nb\\""#), "a\\nb\\\\");
        assert_eq!(line("{\"a\":\n1}"), r#"{"a": 1}"#);
        assert_eq!(line("null"), "null");
    }

    #[test]
    fn a_payload_does_not_command_the_terminal() {
        let red = "\u{1b}[31m\t\r\u{7f}\u{9b}31m é";
        assert_eq!(line(&json!(red).to_string()), r"\u001b[31m\t\r\u007f\u009b31m é");
        let printed = line(&json!({ "a": red }).to_string());
        assert_eq!(printed, r#"{"a":"\u001b[31m\t\r\u007f\u009b31m é"}"#);
        assert_eq!(serde_json::from_str::<Value>(&printed).expect("still JSON")["a"], red);
    }
}
