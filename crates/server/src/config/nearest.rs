//! What somebody probably meant: the known name closest to one that is not known.

/// The nearest of `known` to `unknown`, or `None` when nothing is close.
///
/// Dots, dashes and underscores count as the same, and a name that ends like a known one is
/// close to it: `postgres_url` and `jwt.secret` both find their key. What all our variables begin
/// with does not make two of them alike.
pub(super) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let unknown = plain(unknown);
    known
        .into_iter()
        .map(|candidate| (closeness(&unknown, &plain(candidate)), candidate))
        .filter(|(closeness, _)| *closeness >= ENOUGH)
        // The first of equals wins, which is the order of the documentation.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, candidate)| candidate)
}

/// How alike two names must be to be worth a suggestion, between 0 and 1.
///
/// At 0.6 a typing error or two in a short word still find it (`lisen`, `prot`), and a name that
/// shares only a prefix such as `postgres.` does not.
const ENOUGH: f64 = 0.6;

/// How alike a name and the end of a longer one are held to be; below any one-letter mistake.
const SAME_ENDING: f64 = 0.8;

fn closeness(unknown: &str, known: &str) -> f64 {
    let alike = strsim::normalized_damerau_levenshtein(unknown, known);
    let same_ending =
        known.ends_with(&format!(".{unknown}")) || unknown.ends_with(&format!(".{known}"));
    if same_ending { alike.max(SAME_ENDING) } else { alike }
}

fn plain(name: &str) -> String {
    let name = name.strip_prefix("TIDEWIRE_").unwrap_or(name);
    name.to_ascii_lowercase().replace(['_', '-'], ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["listen", "postgres.url", "postgres.pool_size", "auth.jwt.secret"];

    #[test]
    fn a_typing_error_finds_its_key() {
        assert_eq!(nearest("lisen", KNOWN), Some("listen"));
        assert_eq!(nearest("postgres.poolsize", KNOWN), Some("postgres.pool_size"));
    }

    #[test]
    fn other_separators_and_a_missing_beginning_find_the_key() {
        assert_eq!(nearest("postgres_url", KNOWN), Some("postgres.url"));
        assert_eq!(nearest("postgres-url", KNOWN), Some("postgres.url"));
        assert_eq!(nearest("jwt.secret", KNOWN), Some("auth.jwt.secret"));
    }

    #[test]
    fn something_else_altogether_finds_nothing() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("TIDEWIRE_VALKEY_URL", ["TIDEWIRE_POSTGRES_URL"]), None);
    }
}
