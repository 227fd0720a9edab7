//! `GET /api/realtime/stats`: Fluxbase's counts, in its words and without a token, as it has it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use serde_json::json;

use super::Api;

/// Parameters are ignored, as the program does whose clients ask.
pub(super) async fn stats(State(api): State<Api>) -> Response {
    let stats = api.transports.node().stats();
    let body = Json(json!({ "connections": stats.connections, "channels": stats.topics }));
    std::future::ready(([(CACHE_CONTROL, "no-store")], body).into_response()).await
}
