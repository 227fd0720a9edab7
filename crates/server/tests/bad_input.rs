//! Input that no honest client sends: each has an answer, and nobody else notices.

use http::Method;
use serde_json::{Value, json};

use crate::budgets::Peer;
use crate::support::{Server, client, client_with, get, post, request};

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_and_the_connection_lives_on() {
    let server = Server::start(&[]).await;
    let mut client = client(server.address).await;
    let name = "n".repeat(256);
    let requests = [
        (json!([1, 2]), "bad_json"),
        (json!({ "id": 1 }), "unknown_type"),
        (json!({ "type": "subscrib", "topic": "a" }), "unknown_type"),
        (json!({ "type": 7 }), "unknown_type"),
        (json!({ "type": "subscribe" }), "bad_field"),
        (json!({ "type": "subscribe", "topic": "a", "notify": "a" }), "bad_field"),
        (json!({ "type": "subscribe", "topic": "a", "sinse": "x" }), "bad_field"),
        (json!({ "type": "subscribe", "topic": 3 }), "bad_field"),
        (json!({ "type": "subscribe", "topic": "a\0b" }), "bad_topic"),
        (json!({ "type": "subscribe", "notify": "a\0b" }), "bad_topic"),
        (json!({ "type": "subscribe", "topic": name }), "bad_topic"),
        (json!({ "type": "subscribe", "topic": "a", "since": "yesterday" }), "bad_position"),
        (json!({ "type": "subscribe", "notify": "a" }), "not_configured"),
        (json!({ "type": "track", "topic": "a" }), "not_subscribed"),
        (json!({ "type": "publish", "topic": "a" }), "missing_field"),
        (json!({ "type": "authenticate", "token": "x" }), "authentication_off"),
    ];
    for (request, code) in requests {
        client.say(&request).await;
        let answer = client.hear().await;
        let told = (&answer["type"], &answer["code"]);
        let also = code == "bad_field" && answer["code"] == "missing_field";
        assert!(also || told == (&json!("error"), &json!(code)), "{request}: {answer}");
    }
    assert_eq!(client.outcome(json!({ "type": "ping" })).await, "pong");
}

#[tokio::test]
async fn alles_clients_are_told_in_alles_words() {
    let server = Server::start(&[]).await;
    let mut alle = client_with(server.address, "/", &[]).await.expect("an upgrade");
    for request in [
        json!({ "type": "dance" }),
        json!({ "type": "subscribe" }),
        json!({ "type": "subscribe", "channel": 3 }),
        json!([]),
    ] {
        alle.say(&request).await;
        let answer = alle.hear().await;
        let message = answer["message"].as_str().expect("a message");
        assert!(message.starts_with("Error: Failed to parse client message"), "{answer}");
    }
    for request in [
        json!({ "type": "subscribe", "channel": "" }),
        json!({ "type": "subscribe", "channel": "a\0b" }),
        json!({ "type": "subscribe", "channel": "c".repeat(64) }),
    ] {
        alle.say(&request).await;
        assert_eq!(alle.hear().await["type"], "error", "{request}");
    }
    alle.say(&json!({ "type": "authenticate", "token": "x" })).await;
    assert_eq!(alle.hear().await["message"], "Authentication not configured");
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_its_connection_alone() {
    let server = Server::start(&[]).await;
    let mut large = client(server.address).await;
    let mut other = client(server.address).await;
    let data = "x".repeat(70_000);
    large.feed(&json!({ "type": "publish", "topic": "a", "data": data })).await;
    large.flush().await;
    let (_, code, name) = large.end().await;
    assert_eq!((code, &*name), (1009, "too_large"));
    assert_eq!(other.outcome(json!({ "type": "ping" })).await, "pong");
}

#[tokio::test]
async fn streams_and_polls_refuse_what_they_do_not_know() {
    let server = Server::start(&[]).await;
    for (path, status, code) in [
        ("/v1/sse", 400, "missing_field"),
        ("/v1/sse?topic=a%00b", 400, "bad_topic"),
        ("/v1/poll?topic=a%00b", 400, "bad_topic"),
        ("/v1/sse?topic=a&colour=red", 400, "bad_field"),
        ("/v1/poll?topic=a&since=yesterday", 400, "bad_position"),
        ("/v1/poll?topic=a&timeout=-1", 400, "bad_field"),
        ("/v1/poll?notify=a", 501, "not_configured"),
        ("/v1/presence?topic=a%00b", 400, "bad_topic"),
        ("/v1/nothing", 404, "not_found"),
    ] {
        let answer = get(server.address, path).await.refused().await;
        assert_eq!(answer, (status, code.to_owned()), "{path}");
    }
    let answer = get(server.address, "/events?channels=a%00b").await;
    assert_eq!(answer.status, 400);
    for body in ["", "{", "{}", r#"{"channel":3,"payload":"x"}"#, r#"{"channel":"","payload":""}"#]
    {
        let headers = [("content-type", "application/json")];
        let answer = request(server.address, Method::POST, "/notify", &headers, body).await;
        assert_eq!(answer.status, 422, "{body}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let keys = [("origins", "https://shop.example")];
    let server = Server::start(&keys).await;
    for (origin, allowed) in [("https://shop.example", true), ("https://evil.example", false)] {
        let headers = [("origin", origin)];
        let upgraded = client_with(server.address, "/v1/ws", &headers).await.err();
        assert_eq!(upgraded, (!allowed).then_some(403), "{origin}");
        let answer = request(server.address, Method::GET, "/v1/stats", &headers, "").await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 });
        let allows = answer.header("access-control-allow-origin").to_owned();
        assert_eq!(allows == origin, allowed);
        let body: Value = answer.json().await;
        assert!(allowed || body["error"]["code"] == "origin_forbidden", "{body}");
    }
}

#[tokio::test]
async fn a_request_names_exactly_one_valid_host() {
    let server = Server::start(&[]).await;
    for (hosts, expected) in [
        ("Host: localhost\r\n", 200),
        ("Host: [::1]:80\r\n", 200),
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        ("Host:\r\n", 400),
        ("Host: local host\r\n", 400),
        ("Host: localhost/\r\n", 400),
        ("Host: localhost:x\r\n", 400),
    ] {
        // Answered without hyper, and by it.
        for more in ["", "Connection: close\r\n", "TE: trailers\r\n"] {
            let head = format!("GET /health HTTP/1.1\r\n{hosts}{more}\r\n");
            assert_eq!(status_of(server.address, &head, false).await, expected, "{head}");
        }
    }
}

#[tokio::test]
async fn who_has_nothing_more_to_send_is_answered() {
    let server = Server::start(&[]).await;
    let path = "/v1/poll?topic=a&timeout=1";
    for more in ["", "TE: trailers\r\n"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        assert_eq!(status_of(server.address, &head, true).await, 200, "{head}");
    }
}

/// The status of the answer to these bytes; with `finish` nothing more is sent after them.
async fn status_of(address: std::net::SocketAddr, bytes: &str, finish: bool) -> u16 {
    let mut peer = Peer::connect("127.0.0.1", address).await;
    peer.send(bytes.as_bytes()).await;
    if finish {
        peer.finish().await;
    }
    peer.status().await
}

#[tokio::test]
async fn an_array_is_taken_for_no_object() {
    let server = Server::start(&[]).await;
    let item = json!(["t", null, false, null, 5, null]);
    let answer = post(server.address, "/v1/publish", &json!([item])).await.good().await;
    assert_eq!(answer["results"][0]["error"]["code"], "bad_field", "{answer}");
    let refused = post(server.address, "/notify", &json!(["c", "p"])).await;
    assert_eq!(refused.status, 422);
}
