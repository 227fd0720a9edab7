//! JSON objects with the order of keys that `jsonb` has: shorter ones first, then by bytes, and the
//! last of equal ones.

use super::{quote, separate};

/// Members in the order they came: a key, and its value as JSON.
#[derive(Default)]
pub(super) struct Object(Vec<(String, String)>);

impl Object {
    pub(super) fn add(&mut self, key: impl Into<String>, value: String) {
        self.0.push((key.into(), value));
    }

    pub(super) fn write(mut self, out: &mut String) {
        // Stable, so that the last of equal keys is the one before a different one.
        self.0.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        out.push('{');
        let mut first = true;
        let mut members = self.0.iter().peekable();
        while let Some((key, value)) = members.next() {
            if members.peek().is_some_and(|(next, _)| next == key) {
                continue;
            }
            separate(&mut first, out);
            quote(key, out);
            out.push_str(": ");
            out.push_str(value);
        }
        out.push('}');
    }
}
