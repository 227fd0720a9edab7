//! `/`: a page for a browser, Alle's WebSocket for its clients.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderName, Method, StatusCode};

use super::Api;

const INDEX: &str = include_str!("../../page/index.html");
const APP: &str = include_str!("../../page/app.js");
const LOOK: &str = include_str!("../../page/style.css");

/// Kinds of files.
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(super) const STYLE: &str = "text/css; charset=utf-8";

/// Nothing from elsewhere, and connections to this server alone.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'";

pub(super) async fn index(State(api): State<Api>, request: Request) -> Response {
    if tidewire_axum::is_upgrade(&request) {
        return api.transports.alle(request).await;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let refused = tidewire_axum::method_not_allowed(request.uri().clone()).await;
        return ([(ALLOW, "GET, HEAD")], refused).into_response();
    }
    file(HTML, INDEX)
}

pub(super) async fn script() -> Response {
    std::future::ready(file(SCRIPT, APP)).await
}

pub(super) async fn style() -> Response {
    std::future::ready(file(STYLE, LOOK)).await
}

/// Browsers ask for one; there is none, and that is no error.
pub(super) async fn icon() -> StatusCode {
    std::future::ready(StatusCode::NO_CONTENT).await
}

/// A file of a page, with the rules that hold for all of them.
pub(super) fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        // The page's own address may carry a token.
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    (headers, text).into_response()
}
