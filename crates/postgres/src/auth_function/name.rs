//! The name of a function as SQL writes it.

use tidewire_protocol::topic::MAX_CHANNEL_BYTES as MAX_IDENTIFIER_BYTES;

use crate::connect::ConnectError;

/// `function`, or `schema.function`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) schema: Option<String>,
    pub(super) function: String,
}

impl Name {
    /// Reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when it is no name.
    pub(super) fn read(written: &str) -> Result<Self, ConnectError> {
        let bad = || {
            ConnectError::configuration(format!(
                "the auth function {written:?} is not a name like check_token, auth.check_token or \
                 \"Auth\".\"checkToken\""
            ))
        };
        let (first, rest) = identifier(written.trim()).filter(is_usable).ok_or_else(bad)?;
        if rest.is_empty() {
            return Ok(Self { schema: None, function: first });
        }
        let second = rest.strip_prefix('.').and_then(identifier).filter(is_usable);
        match second {
            Some((function, "")) => Ok(Self { schema: Some(first), function }),
            _ => Err(bad()),
        }
    }
}

fn is_usable((part, _): &(String, &str)) -> bool {
    !part.is_empty() && part.len() <= MAX_IDENTIFIER_BYTES && !part.contains('\0')
}

/// One identifier as SQL reads it, and what follows: in quotes as it is, else in lower case.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else { return plain(text) };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => return Some((name, after)),
        }
    }
}

fn plain(text: &str) -> Option<(String, &str)> {
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return None;
    }
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    Some((text[..end].to_ascii_lowercase(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> Option<(Option<String>, String)> {
        Name::read(written).ok().map(|name| (name.schema, name.function))
    }

    #[test]
    fn a_name_is_read_as_sql_reads_it() {
        for (written, schema, function) in [
            ("check_token", None, "check_token"),
            ("Auth.Check", Some("auth"), "check"),
            ("\"Auth\".check", Some("Auth"), "check"),
            ("\"a\"\"b.c\"", None, "a\"b.c"),
            (" prüfe ", None, "prüfe"),
        ] {
            let expected = Some((schema.map(str::to_owned), function.to_owned()));
            assert_eq!(read(written), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for written in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "a b",
            "a()",
            "a;drop table b",
            "1a",
            "\"a",
            "\"\"",
            "a--",
            "a\"b\"",
            "\"a\"b",
        ] {
            assert_eq!(read(written), None, "{written}");
        }
        assert_eq!(read(&"x".repeat(64)), None);
    }
}
