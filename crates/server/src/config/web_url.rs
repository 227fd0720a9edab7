//! Addresses on the web, printed without what may be a credential in them.

/// Stands where a credential was.
const HIDDEN: &str = "***";

/// The address without its user part and without its query: both may hold a password or a token.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('@') {
        // Part of a password that holds a question mark, or of a parameter: it cannot be told.
        return format!("{scheme}://{HIDDEN}");
    }
    // The last @, because a password that was not escaped may hold one, or a slash.
    let place = match place.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => place.to_owned(),
    };
    let query = if query.is_empty() { String::new() } else { format!("?{HIDDEN}") };
    format!("{scheme}://{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_credential_is_hidden_and_the_rest_is_not() {
        for (url, shown) in [
            ("https://keys.example/jwks.json", "https://keys.example/jwks.json"),
            ("https://me:tide@keys.example/jwks", "https://***@keys.example/jwks"),
            ("https://token@keys.example", "https://***@keys.example"),
            ("https://me:a@b/c@keys.example/x", "https://***@keys.example/x"),
            ("https://me:a?b@keys.example/x?k=1", "https://***"),
            ("https://keys.example/x?mail=a@b", "https://***"),
            ("https://keys.example/jwks?token=tide", "https://keys.example/jwks?***"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
