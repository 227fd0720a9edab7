//! `docs/config.md`, made from the table of keys.

use std::fmt::Write as _;

use super::keys::{API_KEYS, KEYS, Key, NAMESPACES, OTHER_VARIABLES, SECTIONS, Section};
use super::units::print_size;
use super::value::{Kind, print_millis};

/// What stands before the tables.
const HEAD: &str = include_str!("docs/head.md");

/// The whole page.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in &SECTIONS {
        write_section(&mut page, section);
    }
    page.push_str("\n## Other environment variables\n\n| variable | meaning |\n|---|---|\n");
    for (name, meaning) in OTHER_VARIABLES {
        writeln!(page, "| `{name}` | {meaning} |").expect("a String takes all text");
    }
    page
}

fn write_section(page: &mut String, section: &Section) {
    let title = if section.prefix.is_empty() { "At the top" } else { section.prefix };
    write!(page, "\n## {title}\n\n{}\n\n", section.doc).expect("a String takes all text");
    let keys: Vec<&Key> =
        KEYS.iter().filter(|key| section_of(key).prefix == section.prefix).collect();
    write_table(page, &keys, true);
    for (list, title, fields) in [
        ("auth.keys", "Each entry of `auth.keys`", API_KEYS),
        ("namespaces", "Each entry", NAMESPACES),
    ] {
        if keys.iter().any(|key| key.path() == list) {
            write!(page, "\n### {title}\n\n").expect("a String takes all text");
            write_table(page, &fields.iter().collect::<Vec<_>>(), false);
        }
    }
}

/// The section with the longest beginning of the key.
fn section_of(key: &Key) -> &'static Section {
    SECTIONS
        .iter()
        .filter(|section| begins(key.path(), section.prefix))
        .max_by_key(|section| section.prefix.len())
        .expect("the section at the top takes all keys")
}

fn begins(path: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn write_table(page: &mut String, keys: &[&Key], has_variables: bool) {
    let (names, dashes) = if has_variables {
        ("| key | value | default | variables | SIGHUP | meaning |", "|---|---|---|---|---|---|")
    } else {
        ("| key | value | default | meaning |", "|---|---|---|---|")
    };
    writeln!(page, "{names}\n{dashes}").expect("a String takes all text");
    for key in keys {
        let default = key.default().map(|default| format!("`{default}`")).unwrap_or_default();
        write!(page, "| `{}` | {} | {default} |", key.path(), value(key.kind()))
            .expect("a String takes all text");
        if has_variables {
            let names: Vec<_> = key.variables().iter().map(|name| format!("`{name}`")).collect();
            let live = if key.is_live() { "yes" } else { "" };
            write!(page, " {} | {live} |", names.join(" ")).expect("a String takes all text");
        }
        writeln!(page, " {} |", key.doc()).expect("a String takes all text");
    }
}

/// What may be written, in a few words.
fn value(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Switch => "`true`, `false`".to_owned(),
        Kind::Number(min, max) => format!("{min} to {max}"),
        Kind::Time(min, max) => format!("time, {} to {}", print_millis(min), print_millis(max)),
        Kind::Size(min, max) => format!("size, {} to {}", print_size(min), print_size(max)),
        Kind::Word(words) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Texts => "list".to_owned(),
        Kind::Addresses => "addresses".to_owned(),
        Kind::File => "file".to_owned(),
        Kind::Filter => "log filter".to_owned(),
        Kind::Function => "SQL name".to_owned(),
        Kind::Web => "`https://…`".to_owned(),
        Kind::Secret => "text, never printed".to_owned(),
        Kind::PostgresUrl => "`postgresql://…`".to_owned(),
        Kind::Records(_) => "list of tables".to_owned(),
    }
}
