//! `/v1/openapi.json`: the API described for tools.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

/// Written by hand; a test holds its paths against the router.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    std::future::ready(([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()).await
}
