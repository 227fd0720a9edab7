//! Settings that every session of ours begins with, so that neither the role's, the database's nor
//! the connection string's own change what our statements mean.
//!
//! They travel with the first message of a connection, where they outrank `ALTER ROLE … SET` and
//! `ALTER DATABASE … SET`: no statement ever runs without them. A pooler may refuse or drop them;
//! then they are set before anything else is asked.

use tokio_postgres::{Client, SimpleQueryMessage};

/// What names are looked up in: nothing that another role can write to. `pg_temp` is named last,
/// since PostgreSQL looks there first for tables and types when it is not named.
const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// The others, each by its name in `pg_settings`. The texts of values depend on most of them; see
/// [`values`](crate::values).
const SETTINGS: [(&str, &str); 11] = [
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A listening session is idle for as long as nothing is said.
    ("idle_session_timeout", "0"),
];

/// Those of a session that listens, as statements: a pooler that hands on sessions may refuse the
/// others in the first message, and nothing that is said on such a session depends on them.
pub(super) const LISTENING: &str =
    "SET search_path = pg_catalog, pg_temp; SET idle_session_timeout = 0";

/// They as the `options` of a startup message, behind those of the connection string: the later
/// setting counts.
pub(super) fn options(theirs: Option<&str>) -> String {
    let mut options = theirs.map(|theirs| format!("{theirs} ")).unwrap_or_default();
    options += &option("search_path", SEARCH_PATH);
    for (name, value) in SETTINGS {
        options.push(' ');
        options += &option(name, value);
    }
    options
}

/// A backslash keeps a space from ending the option.
fn option(name: &str, value: &str) -> String {
    format!("-c {name}={}", value.replace(' ', "\\ "))
}

/// The same for one transaction, which holds behind any pooler.
pub(crate) fn for_transaction() -> String {
    let all = [("search_path", SEARCH_PATH)].into_iter().chain(SETTINGS);
    // The isolation of the transaction that runs is said where it begins.
    let within =
        all.filter(|(name, _)| !name.starts_with("default_") && *name != "idle_session_timeout");
    within
        .map(|(name, value)| format!("SET LOCAL {name} = {}", quoted(name, value)))
        .collect::<Vec<_>>()
        .join("; ")
}

/// A list is written as one, anything else as a string.
fn quoted(name: &str, value: &str) -> String {
    match name {
        "search_path" => value.to_owned(),
        _ => format!("'{value}'"),
    }
}

/// Makes sure that a session has them: a pooler between may have dropped what the first message
/// said.
///
/// # Errors
/// When the server cannot be asked.
pub(super) async fn ensure(client: &Client) -> Result<(), tokio_postgres::Error> {
    if is_in_force(&client.simple_query("SHOW search_path").await?) {
        return Ok(());
    }
    client.batch_execute(&format!("SET search_path = {SEARCH_PATH}")).await?;
    let values: Vec<String> =
        SETTINGS.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
    // Older versions lack some; what they say to the doctor is that they are too old.
    let set = format!(
        "SELECT pg_catalog.set_config(s.name, v.value, false) FROM (VALUES {}) v (name, value) \
         JOIN pg_catalog.pg_settings s ON s.name OPERATOR(pg_catalog.=) v.name",
        values.join(", ")
    );
    client.batch_execute(&set).await
}

fn is_in_force(answer: &[SimpleQueryMessage]) -> bool {
    let shown = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    shown.is_some_and(|shown| shown.replace(' ', "") == SEARCH_PATH.replace(' ', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_come_behind_those_of_the_connection_string() {
        let options = options(Some("-c search_path=app -c work_mem=1MB"));
        assert!(
            options.starts_with("-c search_path=app -c work_mem=1MB -c search_path=pg_catalog,")
        );
        assert!(options.contains("-c default_transaction_isolation=read\\ committed"));
    }

    #[test]
    fn a_transaction_sets_what_the_texts_of_values_depend_on() {
        let set = for_transaction();
        assert!(set.starts_with("SET LOCAL search_path = pg_catalog, pg_temp; "));
        assert!(set.contains("SET LOCAL lc_monetary = 'C'"));
        assert!(!set.contains("default_"));
    }
}
