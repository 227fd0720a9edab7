//! Words of others, made fit for a terminal.
//!
//! What a server or a payload says may hold control characters that a terminal would obey: they
//! are shown instead.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// The text with control characters escaped as JSON does; what is JSON stays the same JSON.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            control if control.is_control() => {
                // All of them are below U+00A0.
                let _ = write!(shown, "\\u{:04x}", u32::from(control));
            }
            other => shown.push(other),
        }
    }
    Cow::Owned(shown)
}

/// The sentence in a field of a frame.
pub(super) fn sentence(field: &Value) -> &str {
    field.as_str().unwrap_or("no reason was given")
}

/// An error with its causes, each said once: some libraries repeat the cause in their own text.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_that_is_in_the_text_already_is_not_repeated() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let text = format!("IO error: {refused}");
        let error = Err::<(), _>(refused).context(text).context("connecting").unwrap_err();
        assert_eq!(chain(&error), "connecting: IO error: connection refused");
    }
}
