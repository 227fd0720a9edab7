//! `/health`: the process lives. `/ready`: every configured part works.
//!
//! Everybody is told which part does not work and what kind of failure it is; the reason in words,
//! which may name hosts, roles and files, is for [operators](super::operators).

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use serde_json::{Map, Value, json};
use tidewire_postgres::{NotifyStatus, SourceStatus};

use super::Api;
use super::operators::is_operator;

pub(super) async fn health() -> Response {
    std::future::ready(Json(json!({ "status": "ok" })).into_response()).await
}

pub(super) async fn ready(State(api): State<Api>, request: Parts) -> Response {
    let parts = parts(&api);
    let ready = parts.iter().all(|(_, part)| part.is_ready());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = is_operator(&api, &request).await;
    let parts: Map<String, Value> =
        parts.into_iter().map(|(name, part)| (name, part.told(told))).collect();
    let body = Json(json!({ "ready": ready, "parts": parts }));
    (status, [(CACHE_CONTROL, "no-store")], body).into_response()
}

/// A part of the server, as it is.
#[derive(Default)]
struct Part {
    /// The kind of failure, if it does not work.
    failure: Option<&'static str>,
    /// The reason in words.
    error: Option<String>,
    since: Option<SystemTime>,
    /// Of tables: by which source, and how many.
    source: Option<(&'static str, usize)>,
}

impl Part {
    fn is_ready(&self) -> bool {
        self.failure.is_none()
    }

    /// What is said of it, to an operator or to a stranger.
    fn told(&self, operator: bool) -> Value {
        let mut told = json!({ "ready": self.is_ready(), "failure": self.failure });
        if !operator {
            return told;
        }
        // What went wrong before it worked again is history, and the log's.
        told["error"] = json!(self.error.as_ref().filter(|_| !self.is_ready()));
        if let Some(since) = self.since {
            told["since"] = json!(since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        }
        if let Some((source, tables)) = self.source {
            told["source"] = json!(source);
            told["tables"] = json!(tables);
        }
        told
    }
}

fn postgres(status: NotifyStatus) -> Part {
    let failure = (!status.is_connected()).then_some("unreachable");
    Part { failure, error: status.last_error, since: Some(status.since), source: None }
}

/// The source of row changes; before anyone listened to a table there is none, and that is well.
fn tables(status: Option<SourceStatus>) -> Part {
    let Some(status) = status else { return Part::default() };
    Part {
        failure: (!status.connected).then_some("no_changes"),
        error: status.last_error,
        since: Some(status.since),
        source: Some((status.name, status.tables)),
    }
}

/// Each configured part, whether it works, and if not, why.
fn parts(api: &Api) -> Vec<(String, Part)> {
    let mut parts = Vec::new();
    if let Some(notify) = &api.notify {
        parts.push(("postgres".to_owned(), postgres(notify.status())));
    }
    if let Some(source) = &api.tables {
        parts.push(("tables".to_owned(), tables(source.status())));
    }
    if let Some(disk) = &api.disk {
        let trouble = disk.trouble();
        let failure = trouble.is_some().then_some("not_writable");
        let error = trouble.map(|error| in_words(&error));
        parts.push(("history".to_owned(), Part { failure, error, ..Part::default() }));
    }
    if !api.authentication.is_ready() {
        let error = Some("the key server has not answered yet".to_owned());
        let part = Part { failure: Some("no_keys"), error, ..Part::default() };
        parts.push(("authentication".to_owned(), part));
    }
    parts
}

/// An error with its causes.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
