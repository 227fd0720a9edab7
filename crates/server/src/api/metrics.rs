//! `/metrics`: what the parts count, in the text format that Prometheus reads.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;

use super::Api;

/// OpenMetrics 1.0, which prometheus-client writes.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let mut text = String::new();
    let encoded = encode(&mut text, &api.registry.lock());
    let response = match encoded {
        Ok(()) => ([(CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    std::future::ready(response).await
}
