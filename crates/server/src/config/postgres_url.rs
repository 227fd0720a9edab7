//! A PostgreSQL connection string that is printed without its password.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// A connection string as libpq understands it: `postgresql://…` or `host=… user=…`.
///
/// `Debug` and `Display` leave out every password in it.
///
/// ```
/// use tidewire_server::config::PostgresUrl;
///
/// let url = PostgresUrl::parse("postgresql://app:tide@db/shop?sslmode=require")?;
/// assert_eq!(url.to_string(), "postgresql://app:***@db/shop?sslmode=require");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
pub struct PostgresUrl(SecretString);

/// Stands where a password was.
const HIDDEN: &str = "***";

/// Parameters whose values are secret.
const SECRET_PARAMETERS: [&str; 2] = ["password", "sslpassword"];

impl PostgresUrl {
    /// Takes a connection string; only its form is looked at, the driver reads the rest.
    ///
    /// # Errors
    /// What would have fitted, in words, without repeating the text: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_url = text.starts_with("postgresql://") || text.starts_with("postgres://");
        let has_pairs = !text.contains("://") && text.contains('=');
        if is_url || has_pairs {
            return Ok(Self(text.into()));
        }
        Err("not a connection string: begin with postgresql://, or write host=… user=… dbname=…"
            .to_owned())
    }

    /// The whole string with its password, for the driver.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let shown = match text.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", without_password(rest)),
            None => without_secret_pairs(text),
        };
        f.write_str(&shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// `user:password@host/database?parameters` with passwords hidden.
fn without_password(rest: &str) -> String {
    match rest.split_once('?').filter(|(_, query)| query.split('&').any(is_secret_pair)) {
        Some((place, query)) => {
            format!("{}?{}", without_user_password(place), without_secret_parameters(query))
        }
        None => without_user_password(rest),
    }
}

fn without_user_password(place: &str) -> String {
    // The last @ ends the user part, so that an unescaped @ in a password hides with it; it is
    // looked for everywhere, because a password may as well hold a slash or a question mark.
    let parts =
        place.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)));
    match parts {
        Some((user, host)) => format!("{user}:{HIDDEN}@{host}"),
        None => place.to_owned(),
    }
}

fn without_secret_parameters(query: &str) -> String {
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret_pair(pair) => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        })
        .collect();
    pairs.join("&")
}

/// `host=db password='a b' dbname=shop` with passwords hidden.
fn without_secret_pairs(text: &str) -> String {
    let mut shown = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim();
        let after = after.trim_start();
        let (value, after) = after.split_at(value_end(after));
        shown.push(format!("{name}={}", if is_secret(name) { HIDDEN } else { value }));
        rest = after.trim_start();
    }
    shown.join(" ")
}

/// Where a value ends: after its closing quote, or at the first space; a backslash escapes.
fn value_end(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return at + 1,
            _ if !quoted && c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_secret_pair(pair: &str) -> bool {
    pair.split_once('=').is_some_and(|(name, _)| is_secret(name))
}

fn is_secret(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, shown: &str) {
        let url = PostgresUrl::parse(written).unwrap();
        assert_eq!(url.to_string(), shown);
        assert_eq!(url.expose(), written);
        assert!(!format!("{url:?}").contains("sesame"));
    }

    #[test]
    fn a_password_is_hidden_wherever_it_stands() {
        check("postgresql://localhost/postgres", "postgresql://localhost/postgres");
        check("postgres://app@db:5432/shop", "postgres://app@db:5432/shop");
        check("postgresql://app:sesame@db/shop", "postgresql://app:***@db/shop");
        check("postgresql://app:se:sesame@db/shop", "postgresql://app:***@db/shop");
        check("postgresql://app:p@sesame@db/shop", "postgresql://app:***@db/shop");
        check("postgresql://app:a/sesame?@db/shop", "postgresql://app:***@db/shop");
        check("postgresql://db/s?user=a&password=sesame", "postgresql://db/s?user=a&password=***");
        check(
            "postgresql://a:sesame@db/s?password=x@sesame",
            "postgresql://a:***@db/s?password=***",
        );
        check("postgresql://db:5432/s?password=x@sesame", "postgresql://db:5432/s?password=***");
        check(
            "postgresql:///s?host=/run&sslpassword=sesame",
            "postgresql:///s?host=/run&sslpassword=***",
        );
    }

    #[test]
    fn a_password_among_pairs_is_hidden() {
        check("host=db dbname=shop", "host=db dbname=shop");
        check("host=db password=sesame dbname=shop", "host=db password=*** dbname=shop");
        check("host=db PASSWORD = 'open \\' sesame' user='a b'", "host=db PASSWORD=*** user='a b'");
        check("password='sesame", "password=***");
    }

    #[test]
    fn what_is_no_connection_string_is_refused_and_not_repeated() {
        for wrong in ["", "localhost", "mysql://app:sesame@db/shop"] {
            let refused = PostgresUrl::parse(wrong).unwrap_err();
            assert!(!refused.contains("sesame"), "{refused}");
        }
    }
}
