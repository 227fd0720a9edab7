//! `GET /v1/stats`: counts for people; `/metrics` has more, for machines.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde_json::{Value, json};
use tidewire_axum::Caller;
use tidewire_protocol::{Code, Refusal};
use tokio::time::Instant;

use super::Api;

/// When the process first served; the first request of any kind comes soon after the start.
pub(crate) static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) async fn stats(State(api): State<Api>, request: Parts) -> Response {
    match answer(&api, &request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => api.refuse(&refusal),
    }
}

async fn answer(api: &Api, request: &Parts) -> Result<Value, Refusal> {
    let caller = Caller::of(&api.transports, request, &[]).await?;
    if !caller.identity.has_token() {
        return Err(Refusal::new(Code::Unauthorized, "a token is needed to see statistics"));
    }
    if caller.identity.is_anonymous() {
        let message = "this token has no subject (the claim \"sub\"), which statistics need";
        return Err(Refusal::new(Code::Forbidden, message));
    }
    let stats = api.transports.node().stats();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": STARTED.elapsed().as_secs(),
        "connections": stats.connections,
        "topics": stats.topics,
        "subscriptions": stats.subscriptions,
        "events": stats.events,
        "deliveries": stats.deliveries,
    }))
}
