//! The effective configuration as TOML: each value with its origin, nothing secret.
//!
//! What is printed is a configuration file: it reads back as the same settings, but for what is
//! hidden, which stands in comments.

use std::fmt::Write as _;

use super::keys::Key;
use super::settings::{IN_FILES, Settings};
use super::values::{Entry, Values};

/// All keys in the order of the documentation; those that nobody set stand in comments.
pub(super) fn print(settings: &Settings) -> String {
    let values = &settings.values;
    // Below the first header nothing can belong to the top any more.
    let (below, top): (Vec<&Key>, Vec<&Key>) =
        values.keys().iter().partition(|key| key.path().contains('.'));
    let mut text = String::new();
    let mut section = "";
    for key in top.into_iter().chain(below) {
        let (prefix, name) = key.path().rsplit_once('.').unwrap_or(("", key.path()));
        if prefix != section {
            section = prefix;
            writeln!(text, "\n[{section}]").expect("a String takes all text");
        }
        writeln!(text, "{}", line(values, key, name)).expect("a String takes all text");
    }
    text
}

fn line(values: &Values, key: &Key, name: &str) -> String {
    let in_file = IN_FILES.iter().find(|(direct, _)| *direct == key.path());
    let in_file = in_file.and_then(|(_, in_file)| Some((*in_file, values.entry(in_file)?)));
    match (values.entry(key.path()), in_file) {
        (_, Some((in_file, _))) => format!("# {name} is read from {in_file}"),
        (None, None) => format!("# {name} is not set"),
        (Some(Entry { value, origin }), None) => {
            // Where something secret is left out the line must not be read back.
            let comment = if key.kind().is_cut(value) { "# " } else { "" };
            format!("{comment}{name} = {}  # {origin}", key.kind().shown(value))
        }
    }
}
