//! `/health`: the process lives. `/ready`: every configured part works.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde_json::{Map, Value, json};

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

/// Each configured part, whether it works, and if not, why.
fn parts(api: &Api) -> Map<String, Value> {
    let mut parts = Map::new();
    if let Some(notify) = &api.notify {
        let status = notify.status();
        parts.insert(
            "postgres".to_owned(),
            json!({ "ready": status.is_connected(), "error": status.last_error }),
        );
    }
    if !api.authentication.is_ready() {
        let error = "the key server has not answered yet";
        parts.insert("authentication".to_owned(), json!({ "ready": false, "error": error }));
    }
    parts
}
