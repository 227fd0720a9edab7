//! Fluxbase's door: a WebSocket whose refusals are in its own words, which clients compare.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tidewire_protocol::{Code, Refusal};

use crate::refusal;
use crate::router::Transports;
use crate::websocket::{self, Parameters};

/// `GET /realtime`, with a token in `?token=` or in `Authorization`.
pub(crate) async fn websocket(State(transports): State<Transports>, request: Request) -> Response {
    let dialect = Arc::clone(transports.fluxbase());
    let opened = websocket::try_open(&transports, dialect, Parameters::Any, request).await;
    opened.unwrap_or_else(|refusal| in_words(&transports, &refusal))
}

fn in_words(transports: &Transports, refused: &Refusal) -> Response {
    transports.node().metrics().refused(refused.code);
    let words = match refused.code {
        Code::TokenInvalid | Code::TokenExpired => "Invalid or expired token",
        _ => &refused.message,
    };
    let status = refusal::status(refused.code);
    let mut response = (status, Json(json!({ "error": words }))).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
