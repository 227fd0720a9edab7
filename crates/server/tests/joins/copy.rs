//! A client's copy of what its subscription admits, kept by the rules of `docs/dialects/native.md`
//! and nothing else. It is strict: a change that does not fit what is known fails the test.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Rows by their key, the columns in the order of their names.
pub(super) type Rows = BTreeMap<i64, Map<String, Value>>;

/// The copy.
pub(super) struct Copy {
    /// What was asked for, for messages.
    wish: String,
    /// The columns asked for and the key; empty for all.
    columns: Vec<String>,
    pub(super) rows: Rows,
    /// The first rows were told.
    is_begun: bool,
    /// All of them were.
    pub(super) is_complete: bool,
    pub(super) changes: usize,
    /// Rows that entered the filter or left it.
    pub(super) moves: usize,
}

impl Copy {
    pub(super) fn new(wish: String, columns: &[&str]) -> Self {
        let key = (!columns.is_empty()).then_some(&"id");
        let columns = columns.iter().chain(key).map(|name| (*name).to_owned()).collect();
        let (is_begun, is_complete, changes, moves) = (false, false, 0, 0);
        Self { wish, columns, rows: Rows::new(), is_begun, is_complete, changes, moves }
    }

    pub(super) fn wish(&self) -> &str {
        &self.wish
    }

    pub(super) fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().expect("a type") {
            "rows" => {
                assert!(!self.is_complete, "{}: rows after the last ones", self.wish);
                for row in frame["rows"].as_array().expect("rows") {
                    let row = object(row);
                    let before = self.rows.insert(id(&row), row);
                    assert_eq!(before, None, "{}: told twice", self.wish);
                }
                (self.is_begun, self.is_complete) = (true, frame["last"] == true);
            }
            "change" => {
                assert!(self.is_begun, "{}: before the rows: {frame}", self.wish);
                self.apply(frame);
            }
            // Where everything was told although none of it was wanted.
            "bookmark" => {}
            other => panic!("{}: unexpected {other}: {frame}", self.wish),
        }
    }

    fn apply(&mut self, frame: &Value) {
        let wish = &self.wish;
        let movement = frame["move"].as_str();
        self.changes += 1;
        self.moves += usize::from(movement.is_some());
        let operation = frame["op"].as_str().expect("an operation");
        if operation == "TRUNCATE" {
            return self.rows.clear();
        }
        let key = frame["key"]["id"].as_i64().expect("a key");
        // An update of the key itself leaves the old one.
        let old_key = frame["old"]["id"].as_i64().unwrap_or(key);
        let before = self.rows.remove(&old_key);
        let was_known = operation != "INSERT" && movement != Some("enter");
        assert_eq!(before.is_some(), was_known, "{wish}: {frame}");
        if let Some(before) = before {
            assert_eq!(before, self.told(object(&frame["old"])), "{wish}: {frame}");
        }
        if operation != "DELETE" && movement != Some("leave") {
            let before = self.rows.insert(key, object(&frame["record"]));
            assert_eq!(before, None, "{wish}: {frame}");
        }
    }

    /// Of a row, what this subscription is told.
    pub(super) fn told(&self, mut row: Map<String, Value>) -> Map<String, Value> {
        row.retain(|name, _| self.columns.is_empty() || self.columns.contains(name));
        row
    }

    /// In what it is not the table, in words.
    pub(super) fn difference(&self, truth: &Rows) -> String {
        let mut keys: Vec<_> = self.rows.keys().chain(truth.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.rows.get(key) != truth.get(key));
        let pair = |key: &&i64| (**key, self.rows.get(key), truth.get(key));
        let some: Vec<_> = keys.iter().take(4).map(pair).collect();
        format!("{}: {} rows (have, should): {some:?}", self.wish, keys.len())
    }
}

pub(super) fn object(row: &Value) -> Map<String, Value> {
    row.as_object().expect("a row").clone()
}

pub(super) fn id(row: &Map<String, Value>) -> i64 {
    row["id"].as_i64().expect("a key")
}
