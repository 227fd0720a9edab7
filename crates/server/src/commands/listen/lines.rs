//! Frames as lines for a person.

use serde_json::Value;

use super::escaped;

/// The lines of an event, a change, or the rows of a snapshot; without line ends.
pub(super) fn of(frame: &Value) -> Vec<String> {
    match frame["type"].as_str() {
        Some("change") => vec![change(frame)],
        Some("rows") => {
            let rows = frame["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
            rows.iter().map(|row| format!("ROW\t{}", one_line(row))).collect()
        }
        _ => vec![one_line(&frame["data"])],
    }
}

/// What was done to a row, and the row: as it is now, or what is known of the one that is gone.
fn change(frame: &Value) -> String {
    let done = frame["op"].as_str().unwrap_or("?");
    let row = ["record", "old", "key"].iter().find_map(|field| frame.get(field));
    match row {
        Some(row) => format!("{}\t{}", escaped(done), one_line(row)),
        None => escaped(done).into_owned(),
    }
}

/// A payload on one line that a terminal shows and does not obey: text with its line ends, tabs
/// and other control characters escaped, anything else as JSON.
fn one_line(data: &Value) -> String {
    match data {
        Value::String(text) => escaped(&text.replace('\\', "\\\\")).into_owned(),
        other => escaped(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_one_line_and_so_is_each_row() {
        let change =
            json!({"type": "change", "op": "UPDATE", "record": {"id": 1}, "key": {"id": 1}});
        assert_eq!(of(&change), ["UPDATE\t{\"id\":1}"]);
        let gone = json!({"type": "change", "op": "DELETE", "old": {"id": 1}, "key": {"id": 1}});
        assert_eq!(of(&gone), ["DELETE\t{\"id\":1}"]);
        assert_eq!(of(&json!({"type": "change", "op": "TRUNCATE"})), ["TRUNCATE"]);
        let rows = json!({"type": "rows", "rows": [{"id": 1}, {"id": 2}], "last": true});
        assert_eq!(of(&rows), ["ROW\t{\"id\":1}", "ROW\t{\"id\":2}"]);
    }

    #[test]
    fn a_payload_is_printed_on_one_line() {
        assert_eq!(one_line(&json!("a\nb\\")), "a\\nb\\\\");
        assert_eq!(one_line(&json!({"a": 1})), r#"{"a":1}"#);
    }

    #[test]
    fn a_payload_does_not_command_the_terminal() {
        let red = "\u{1b}[31m\t\r\u{7f}\u{9b}31m é";
        assert_eq!(one_line(&json!(red)), r"\u001b[31m\t\r\u007f\u009b31m é");
        let printed = one_line(&json!({ "a": red }));
        assert_eq!(printed, r#"{"a":"\u001b[31m\t\r\u007f\u009b31m é"}"#);
        assert_eq!(serde_json::from_str::<Value>(&printed).expect("still JSON")["a"], red);
    }
}
