//! Names and strings inside of statements that take no parameters.

/// An SQL identifier that keeps case and every character.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table with its schema.
pub(super) fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(table))
}

/// An SQL string.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table the way a person would type it: quoted only where PostgreSQL needs it.
pub(super) fn readable(schema: &str, table: &str) -> String {
    format!("{}.{}", readable_part(schema), readable_part(table))
}

/// A name the way a person would type it.
pub(super) fn readable_part(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if plain { name.to_owned() } else { identifier(name) }
}
