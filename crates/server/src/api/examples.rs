//! `/examples/fluxbase`: the React example of Fluxbase's documentation, running.

use axum::Router;
use axum::routing::get;

use super::Api;
use super::page::{self, HTML, SCRIPT, STYLE};

/// A path, the kind of its file, and the file.
const FILES: [(&str, &str, &str); 5] = [
    ("/examples/fluxbase", HTML, include_str!("../../page/examples/fluxbase.html")),
    ("/examples/fluxbase.js", SCRIPT, include_str!("../../page/examples/fluxbase.js")),
    ("/examples/fluxbase.css", STYLE, include_str!("../../page/examples/fluxbase.css")),
    (
        "/examples/vendor/react.js",
        SCRIPT,
        include_str!("../../page/vendor/react.production.min.js"),
    ),
    (
        "/examples/vendor/react-dom.js",
        SCRIPT,
        include_str!("../../page/vendor/react-dom.production.min.js"),
    ),
];

/// The paths of the examples.
pub(super) fn router() -> Router<Api> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(async move || page::file(kind, text)))
    })
}
