//! An SQL function that says who a token's bearer is.
//!
//! `SELECT * FROM auth.check_token($1)` gives one row with `user_id` and `authenticated`, in any
//! order, or a single boolean. No row, NULL and `false` refuse, and so does an exception raised by
//! the function. Its answer is asked for anew each time: a cache would let a revoked token in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidewire::{Action, Authenticator, Credential, Grant, Identity};
use tidewire_protocol::topic::MAX_CHANNEL_BYTES as MAX_IDENTIFIER_BYTES;
use tidewire_protocol::{Code, Refusal, Token};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::connect::{ConnectError, Pool, Target};

/// Connections that ask; each answers hundreds of tokens in a second.
const POOL_SIZE: usize = 4;

/// How long a client waits for its turn, and how long the function may run. A client that
/// connects is waiting, so much longer is no use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks an SQL function who a token's bearer is.
#[derive(Clone)]
pub struct AuthFunction {
    pool: Pool,
    sql: Arc<str>,
}

impl AuthFunction {
    /// Will ask `function`, written as in SQL: `check_token`, `auth.check_token` or
    /// `"Auth"."checkToken"`.
    ///
    /// Does not connect; that happens with the first token.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when `function` is no name.
    pub fn new(target: &Target, function: &str) -> Result<Self, ConnectError> {
        let sql = statement(&quoted(function)?).into();
        Ok(Self { pool: Pool::new(target, POOL_SIZE, PATIENCE, PATIENCE), sql })
    }

    async fn ask(&self, token: &str) -> Result<Vec<Row>, Refusal> {
        let connection = self.pool.get().await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no connection for tokens");
            unavailable()
        })?;
        let sql = &*self.sql;
        let answer = connection
            .run(async |client| client.query_typed(sql, &[(&token, Type::TEXT)]).await)
            .await;
        match answer {
            Some(Ok(rows)) => Ok(rows),
            Some(Err(error)) => Err(refusal(&error)),
            None => Err(unavailable()),
        }
    }
}

/// As JSON, so that a `user_id` may be of any type and a single boolean needs no second statement.
fn statement(function: &str) -> String {
    format!("SELECT to_jsonb(answer)::text FROM {function}($1) AS answer LIMIT 2")
}

#[async_trait]
impl Authenticator for AuthFunction {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        // PostgreSQL's text has no NUL, so no function can know such a token.
        if token.expose().contains('\0') {
            return Err(invalid());
        }
        let rows = self.ask(token.expose()).await?;
        match rows.as_slice() {
            [row] => judge(row.get(0)),
            [] => Err(invalid()),
            _ => {
                tracing::error!("the auth function gives more than one row, so nobody is let in");
                Err(unavailable())
            }
        }
    }
}

/// Whom an answer lets in.
fn judge(answer: Option<&str>) -> Result<Identity, Refusal> {
    let answer =
        answer.map_or(Value::Null, |text| serde_json::from_str(text).expect("to_jsonb gives JSON"));
    match answer {
        Value::Null | Value::Bool(false) => Err(invalid()),
        Value::Bool(true) => Ok(somebody(None)),
        Value::Object(columns) => judge_columns(&columns),
        _ => Err(misshapen()),
    }
}

fn judge_columns(columns: &serde_json::Map<String, Value>) -> Result<Identity, Refusal> {
    let Some(authenticated) = columns.get("authenticated") else { return Err(misshapen()) };
    if authenticated != &Value::Bool(true) {
        return Err(invalid());
    }
    let subject = match columns.get("user_id") {
        Some(Value::String(id)) => Some(id.as_str().into()),
        Some(Value::Number(id)) => Some(id.to_string().into()),
        Some(Value::Null) | None => None,
        Some(_) => return Err(misshapen()),
    };
    Ok(somebody(subject))
}

/// A client that was let in. The function is the rule for NOTIFY channels: whom it lets in may do
/// everything on them.
fn somebody(subject: Option<Arc<str>>) -> Identity {
    let pattern = "notify:*".parse().expect("it is a pattern");
    let channels = Grant { pattern, actions: Action::ALL.to_vec(), rows: None };
    let subject = subject.filter(|subject| !subject.is_empty());
    let credential = Some(Credential::Word);
    Identity { subject, grants: Some(Arc::from([channels])), credential, ..Identity::default() }
}

fn invalid() -> Refusal {
    Refusal::new(Code::TokenInvalid, "the token is not accepted")
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "tokens cannot be checked at the moment")
}

fn misshapen() -> Refusal {
    tracing::error!(
        "the auth function must give (user_id, authenticated) or one boolean: nobody is let in"
    );
    unavailable()
}

fn refusal(error: &tokio_postgres::Error) -> Refusal {
    let code = error.code().map_or("", |code| code.code());
    // RAISE EXCEPTION, and the classes for bad data and for authorization, are how functions that
    // decode tokens say no.
    if code == "P0001" || code.starts_with("22") || code.starts_with("28") {
        tracing::debug!(error = error as &dyn std::error::Error, "the auth function says no");
        return invalid();
    }
    tracing::error!(error = error as &dyn std::error::Error, "the auth function fails");
    unavailable()
}

/// The name with each part in quotes, so that it can be nothing but a name.
fn quoted(function: &str) -> Result<String, ConnectError> {
    let bad = || {
        ConnectError::configuration(format!(
            "the auth function {function:?} is not a name like check_token, auth.check_token or \
             \"Auth\".\"checkToken\""
        ))
    };
    let mut parts = Vec::new();
    let mut rest = function.trim();
    loop {
        let (part, after) = identifier(rest).ok_or_else(bad)?;
        if part.is_empty() || part.len() > MAX_IDENTIFIER_BYTES || part.contains('\0') {
            return Err(bad());
        }
        parts.push(format!("\"{}\"", part.replace('"', "\"\"")));
        match after.strip_prefix('.') {
            Some(next) if parts.len() < 2 => rest = next,
            None if after.is_empty() => return Ok(parts.join(".")),
            _ => return Err(bad()),
        }
    }
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_read_as_sql_reads_it() {
        for (written, expected) in [
            ("check_token", "\"check_token\""),
            ("Auth.Check", "\"auth\".\"check\""),
            ("\"Auth\".check", "\"Auth\".\"check\""),
            ("\"a\"\"b.c\"", "\"a\"\"b.c\""),
            (" prüfe ", "\"prüfe\""),
        ] {
            assert_eq!(quoted(written).unwrap(), expected);
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
            assert!(quoted(written).is_err(), "{written}");
        }
        assert!(quoted(&"x".repeat(64)).is_err());
    }

    #[test]
    fn an_answer_lets_in_only_when_it_clearly_says_so() {
        for (answer, subject) in [
            (r#"{"authenticated": true, "user_id": "u1"}"#, Some("u1")),
            (r#"{"user_id": 7, "authenticated": true}"#, Some("7")),
            (r#"{"user_id": null, "authenticated": true}"#, None),
            ("true", None),
        ] {
            assert_eq!(judge(Some(answer)).unwrap().subject.as_deref(), subject);
        }
        for (answer, code) in [
            (None, Code::TokenInvalid),
            (Some("null"), Code::TokenInvalid),
            (Some("false"), Code::TokenInvalid),
            (Some(r#"{"user_id": "u1", "authenticated": false}"#), Code::TokenInvalid),
            (Some(r#"{"user_id": "u1", "authenticated": null}"#), Code::TokenInvalid),
            (Some(r#"{"user_id": "u1"}"#), Code::Unavailable),
            (Some("\"true\""), Code::Unavailable),
            (Some("1"), Code::Unavailable),
        ] {
            assert_eq!(judge(answer).unwrap_err().code, code, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_name_never_ends_its_quotes(name in "\\PC{1,20}") {
            if let Ok(text) = quoted(&name) {
                for part in text.split("\".\"") {
                    let inside = part.trim_start_matches('"').trim_end_matches('"');
                    prop_assert!(inside.replace("\"\"", "").find('"').is_none(), "{}", text);
                }
            }
        }
    }
}
