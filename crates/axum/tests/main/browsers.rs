//! What a web page of another origin may do.

use http::Method;
use tidewire_axum::Origins;

use crate::server::{Server, Settings};

const APP: (&str, &str) = ("origin", "https://app.example.com");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn server() -> Server {
    let origins = Origins::Listed(vec![APP.1.parse().unwrap()]);
    Server::with(Settings { origins, ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_page_is_told_so_and_gets_no_credentials() {
    let server = server().await;
    let stream = server.get_with("/v1/sse?topic=a", &[APP]).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("access-control-allow-origin"), APP.1);
    assert_eq!(stream.header("access-control-allow-credentials"), "");
    assert!(stream.header("vary").contains("origin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_is_refused_even_a_request_it_need_not_ask_for() {
    let server = server().await;
    for path in ["/v1/sse?topic=a", "/v1/poll?topic=a&timeout=0", "/events?channels=a"] {
        let refused = server.get_with(path, &[EVIL]).await;
        assert_eq!(refused.status, 403, "{path}");
        assert_eq!(refused.json().await["error"]["code"], "origin_forbidden");
    }
    let body = r#"{"channel":"a","payload":"b"}"#;
    let refused = server.send(Method::POST, "/notify", &[EVIL, JSON], body).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_answered_by_the_same_rule() {
    let server = server().await;
    let ask = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,idempotency-key"),
    ];
    let asked = |origin| {
        let server = &server;
        async move {
            let headers = [&[origin], &ask[..]].concat();
            server.send(Method::OPTIONS, "/notify", &headers, "").await
        }
    };
    let allowed = asked(APP).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), APP.1);
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    assert!(allowed.header("access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(asked(EVIL).await.header("access-control-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_origin_may_where_that_is_configured() {
    let settings = Settings { origins: Origins::Any, ..Settings::default() };
    let server = Server::with(settings).await;
    let stream = server.get_with("/v1/sse?topic=a", &[EVIL]).await;
    assert_eq!(stream.header("access-control-allow-origin"), "*");
}
