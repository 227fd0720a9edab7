//! A refused request as an HTTP answer.
//!
//! One shape for every transport and for the HTTP API:
//! `{"error":{"code":"…","message":"…","retry":"…"}}` with the status of the code.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode, Uri};
use serde_json::json;
use tidewire_protocol::{Code, Refusal, Retry};

/// Seconds in `Retry-After` where asking again later may help.
///
/// Limits on rates are per second, and a part that is down is tried again within a few.
const RETRY_AFTER_SECONDS: u16 = 1;

/// The HTTP answer for a refusal; 401 says how to authenticate, and where a pause helps
/// `Retry-After` says so.
pub fn response(refusal: &Refusal) -> Response {
    with_status(status(refusal.code), refusal)
}

/// The same with a status of its own, where HTTP has a better one than the code's.
pub(crate) fn with_status(status: StatusCode, refusal: &Refusal) -> Response {
    let body = json!({"error": {
        "code": refusal.code.word(),
        "message": refusal.message,
        "retry": refusal.code.retry().word(),
    }});
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refusal.code.retry() == Retry::Later {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    }
    response
}

pub(crate) fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("every code's status is a valid one")
}

/// The answer for a path that is not there.
pub(crate) async fn not_found(uri: Uri) -> Response {
    let message = format!("there is nothing at {}", uri.path());
    std::future::ready(response(&Refusal::new(Code::NotFound, message))).await
}

/// The answer for a path that is there but not with this method.
pub async fn method_not_allowed(uri: Uri) -> Response {
    let message = format!("{} does not take this method; see the Allow header", uri.path());
    let refusal = Refusal::new(Code::NotFound, message);
    std::future::ready(with_status(StatusCode::METHOD_NOT_ALLOWED, &refusal)).await
}

/// The answer where a WebSocket is due and the request is not one.
pub(crate) fn upgrade_required(message: &str) -> Response {
    let refusal = Refusal::new(Code::BadField, message);
    let mut response = with_status(StatusCode::UPGRADE_REQUIRED, &refusal);
    let headers = response.headers_mut();
    headers.insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(http::header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(ALLOW, HeaderValue::from_static("GET"));
    response
}
