//! An SQL function that says who a token's bearer is.
//!
//! `SELECT * FROM auth.check_token($1)` gives one row with `user_id` and `authenticated`, in any
//! order, or a single boolean. No row, NULL and `false` refuse, and so does an exception raised by
//! the function. Its answer is asked for anew each time: a cache would let a revoked token in.
//!
//! Which function the name means is found out once, by `lookup`; from then on it is called by its
//! whole name with exactly its argument's type, so that no function that somebody makes later can
//! take its place.

mod lookup;
mod name;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidewire::{Action, Authenticator, Credential, Grant, Identity};
use tidewire_protocol::{Code, Refusal, Token};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_postgres::Row;

use lookup::Function;
use name::Name;

use crate::connect::{ConnectError, Pool, Target};

/// Connections that ask; each answers hundreds of tokens in a second.
const POOL_SIZE: usize = 4;

/// How long a client waits for its turn, and how long the function may run. A client that
/// connects is waiting, so much longer is no use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks an SQL function who a token's bearer is; cheap to clone.
#[derive(Clone)]
pub struct AuthFunction(Arc<Inner>);

struct Inner {
    target: Target,
    pool: Pool,
    name: Name,
    function: OnceCell<Function>,
}

impl AuthFunction {
    /// Will ask `function`, written as in SQL: `check_token`, `auth.check_token` or
    /// `"Auth"."checkToken"`.
    ///
    /// Does not wait for the database. Which function the name means is looked up in the background,
    /// where this is called inside a Tokio runtime and the database answers, and else with the first
    /// token: in the schema that is named, or in those of the role's own search path.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when `function` is no name.
    pub fn new(target: &Target, function: &str) -> Result<Self, ConnectError> {
        let asker = Self(Arc::new(Inner {
            target: target.clone(),
            pool: Pool::new(target, POOL_SIZE, PATIENCE, PATIENCE),
            name: Name::read(function)?,
            function: OnceCell::new(),
        }));
        if let Ok(runtime) = Handle::try_current() {
            let early = asker.clone();
            // Ends by itself: every step has a limit of time.
            runtime.spawn(async move { early.function().await.map(drop) });
        }
        Ok(asker)
    }

    /// The function that is meant, for people: its name with its argument, and its owner.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) async fn describe(&self) -> Result<(String, String), String> {
        let function = self.look_up().await?;
        Ok((function.call("text"), function.owner.clone()))
    }

    async fn look_up(&self) -> Result<Function, String> {
        lookup::function(&self.0.target, &self.0.pool, &self.0.name).await
    }

    async fn function(&self) -> Result<&Function, Refusal> {
        let found = self.0.function.get_or_try_init(|| async {
            let function = self.look_up().await?;
            let (call, owner) = (function.call("text"), &function.owner);
            tracing::info!(function = call, owner, "tokens are checked by an SQL function");
            Ok(function)
        });
        found.await.map_err(|why: String| {
            tracing::error!(why, "the auth function cannot be asked, so nobody is let in");
            unavailable()
        })
    }

    async fn ask(&self, token: &str) -> Result<Vec<Row>, Refusal> {
        let function = self.function().await?;
        let connection = self.0.pool.get().await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no connection for tokens");
            unavailable()
        })?;
        let answer = connection.run(async |client| function.ask(client, token).await).await;
        match answer {
            Some(Ok(rows)) => Ok(rows),
            Some(Err(error)) => Err(refusal(&error)),
            None => Err(unavailable()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
