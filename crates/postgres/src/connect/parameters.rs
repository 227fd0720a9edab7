//! Connection strings as libpq reads them: a URL or `key=value` words, into names and values.
//!
//! Pure; what the names mean is decided in [`connect`](super). Errors name the place and never
//! repeat the text, which holds a password.

use super::error::ConnectError;

/// Names and values in the order written; later ones win.
pub(super) type Parameters = Vec<(String, String)>;

/// Splits a connection string into parameters; a URL's parts get libpq's names for them.
pub(super) fn parse(text: &str) -> Result<Parameters, ConnectError> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) => url(rest),
        None => words(text),
    }
}

/// Reads what follows the scheme: `[user[:password]@][host[:port],…][/dbname][?name=value&…]`.
fn url(rest: &str) -> Result<Parameters, ConnectError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut parameters = Parameters::new();
    for (name, value) in [("user", user), ("password", password), ("dbname", dbname)] {
        if !value.is_empty() {
            parameters.push((name.to_owned(), decode(value, name)?));
        }
    }
    if !hosts.is_empty() {
        let (hosts, ports) = split_hosts(hosts)?;
        parameters.push(("host".to_owned(), hosts));
        parameters.push(("port".to_owned(), ports));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(ConnectError::configuration(
                "a parameter after the `?` of the PostgreSQL URL has no `=`",
            ));
        };
        let name = decode(name, "parameter name")?;
        let value = decode(value, &name)?;
        // JDBC's spelling, which libpq takes too.
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => parameters.push(("sslmode".to_owned(), "require".to_owned())),
            _ => parameters.push((name, value)),
        }
    }
    Ok(parameters)
}

/// `a:1,[::1],c` as libpq's lists `a,::1,c` and `1,,`.
fn split_hosts(text: &str) -> Result<(String, String), ConnectError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(inside) => {
                let (host, after) = inside.split_once(']').ok_or_else(|| {
                    ConnectError::configuration("the PostgreSQL URL has a `[` without its `]`")
                })?;
                (host, after.strip_prefix(':').unwrap_or(after))
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(decode(host, "host")?);
        ports.push(port);
    }
    Ok((hosts.join(","), ports.join(",")))
}

fn decode(text: &str, name: &str) -> Result<String, ConnectError> {
    let bad = || {
        ConnectError::configuration(format!(
            "the {name} in the PostgreSQL URL is not percent-encoded correctly: write `%` as `%25`, \
             `@` as `%40`, `/` as `%2F`"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = after;
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if text.contains('\0') { Err(bad()) } else { Ok(text) }
}

/// Reads `name = value` words; a value may stand in single quotes, `\` takes the next literally.
fn words(text: &str) -> Result<Parameters, ConnectError> {
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return Err(ConnectError::configuration(
                "the PostgreSQL connection string is neither a URL that begins with \
                 `postgresql://` nor words like `host=localhost dbname=app`",
            ));
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ConnectError::configuration(
                "the PostgreSQL connection string has a word without `=`: quote values with spaces",
            ));
        }
        let (value, after) = value(after.trim_start(), name)?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// One value of a word, and what follows it.
fn value<'t>(text: &'t str, name: &str) -> Result<(String, &'t str), ConnectError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices();
    if quoted {
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        let what = format!("the quote of `{name}` in the PostgreSQL connection string never ends");
        return Err(ConnectError::configuration(what));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Parameters =
            expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn a_url_gives_the_names_of_libpq() {
        check(
            "postgresql://me:p%40ss@db:5433/app?sslmode=verify-full&sslrootcert=/ca.pem",
            &[
                ("user", "me"),
                ("password", "p@ss"),
                ("dbname", "app"),
                ("host", "db"),
                ("port", "5433"),
                ("sslmode", "verify-full"),
                ("sslrootcert", "/ca.pem"),
            ],
        );
        check(
            "postgres://localhost/postgres",
            &[("dbname", "postgres"), ("host", "localhost"), ("port", "")],
        );
        check(
            "postgresql:///app?host=/run/pg&ssl=true",
            &[("dbname", "app"), ("host", "/run/pg"), ("sslmode", "require")],
        );
    }

    #[test]
    fn a_url_may_name_several_hosts_addresses_and_sockets() {
        check(
            "postgresql://a:1,[::1],%2Frun%2Fpg:3/",
            &[("host", "a,::1,/run/pg"), ("port", "1,,3")],
        );
    }

    #[test]
    fn a_password_may_hold_an_at_sign_and_colons() {
        check(
            "postgresql://me:a@b:c@h/d",
            &[("user", "me"), ("password", "a@b:c"), ("dbname", "d"), ("host", "h"), ("port", "")],
        );
    }

    #[test]
    fn words_may_be_quoted_and_spaced() {
        check(
            r"host = db  password='a \'b\\ c' user=x\ y",
            &[("host", "db"), ("password", r"a 'b\ c"), ("user", "x y")],
        );
        check("", &[]);
    }

    #[test]
    fn what_cannot_be_read_is_told_without_repeating_it() {
        for text in [
            "secret",
            "postgresql://u:secret%4@h",
            "postgresql://u:secret@[::1",
            "postgresql://h/?secret",
            "password='secret",
            "a secret=1",
        ] {
            let told = parse(text).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn any_value_survives_quoting(value in "[^\0]{0,20}") {
            let quoted = value.replace('\\', r"\\").replace('\'', r"\'");
            let read = parse(&format!("password='{quoted}' host=h")).unwrap();
            prop_assert_eq!(&read[0].1, &value);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgresql://{text}"));
        }
    }
}
