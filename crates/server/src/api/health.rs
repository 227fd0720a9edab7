//! `/health`: the process lives. `/ready`: every configured part works.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde_json::{Map, Value, json};
use tidewire_postgres::{NotifyStatus, SourceStatus};

use super::Api;

pub(super) async fn health() -> Response {
    std::future::ready(Json(json!({ "status": "ok" })).into_response()).await
}

pub(super) async fn ready(State(api): State<Api>) -> Response {
    let parts = parts(&api);
    let ready = parts.values().all(|part| part["ready"] == true);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Json(json!({ "ready": ready, "parts": parts }));
    std::future::ready((status, [(CACHE_CONTROL, "no-store")], body).into_response()).await
}

fn postgres(status: &NotifyStatus) -> Value {
    let ready = status.is_connected();
    // What went wrong before it worked again is history, and the log's.
    let error = status.last_error.as_ref().filter(|_| !ready);
    let since = status.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({ "ready": ready, "since": since, "error": error })
}

/// The source of row changes; before anyone listened to a table there is none, and that is well.
fn tables(status: Option<&SourceStatus>) -> Value {
    let Some(status) = status else { return json!({ "ready": true, "source": null }) };
    let error = status.last_error.as_ref().filter(|_| !status.connected);
    let since = status.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "ready": status.connected,
        "source": status.name,
        "tables": status.tables,
        "since": since,
        "error": error,
    })
}

/// Each configured part, whether it works, and if not, why.
fn parts(api: &Api) -> Map<String, Value> {
    let mut parts = Map::new();
    if let Some(notify) = &api.notify {
        parts.insert("postgres".to_owned(), postgres(&notify.status()));
    }
    if let Some(source) = &api.tables {
        parts.insert("tables".to_owned(), tables(source.status().as_ref()));
    }
    if !api.authentication.is_ready() {
        let error = "the key server has not answered yet";
        parts.insert("authentication".to_owned(), json!({ "ready": false, "error": error }));
    }
    parts
}
