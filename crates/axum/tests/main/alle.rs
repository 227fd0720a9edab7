//! Alle's paths.

use http::Method;
use serde_json::json;

use crate::server::{Server, Settings, until};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_frames_of_its_readme_work_on_a_websocket() {
    let server = Server::start().await;
    let mut client = server.websocket("/alle?any=parameter").await;
    client.say(json!({"type": "subscribe", "channel": "Orders"})).await;
    assert_eq!(client.hear().await, json!({"type": "subscribed", "channel": "Orders"}));
    client.say(json!({"type": "notify", "channel": "Orders", "payload": "New order #123"})).await;
    let expected =
        json!({"type": "notification", "channel": "Orders", "payload": "New order #123"});
    assert_eq!(client.hear().await, expected);
    client.say(json!({"type": "unsubscribe", "channel": "Orders"})).await;
    assert_eq!(client.hear().await, json!({"type": "unsubscribed", "channel": "Orders"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_streams_begin_with_a_comment_and_carry_ids_to_resume_from() {
    let server = Server::start().await;
    for path in ["/events?channels=orders,x%20y,orders", "/sse?channels=orders,x%20y"] {
        let mut stream = server.get(path).await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.block().await, ":");
        server.send(Method::POST, "/notify", &[JSON], r#"{"channel":"x y","payload":"1"}"#).await;
        let event = stream.sse().await;
        assert_eq!(event.event.as_deref(), Some("message"));
        assert_eq!(event.json(), json!({"channel": "x y", "payload": "1"}));
        drop(stream);

        server
            .send(Method::POST, "/notify", &[JSON], r#"{"channel":"orders","payload":"2"}"#)
            .await;
        let id = event.id.unwrap();
        let mut stream = server.get_with(path, &[("last-event-id", &id)]).await;
        assert_eq!(stream.sse().await.json(), json!({"channel": "orders", "payload": "2"}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_go_on_is_told_so_as_an_event() {
    let server = Server::start().await;
    let headers = [("last-event-id", "dead-1")];
    let mut stream = server.get_with("/events?channels=orders", &headers).await;
    let event = stream.sse().await;
    assert_eq!(event.event.as_deref(), Some("gap"));
    assert_eq!(event.json(), json!({"channel": "orders", "reason": "epoch_changed"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_channel_names_are_all_named() {
    let server = Server::start().await;
    let answer = server.get("/events?channels=ok,,a%00b").await;
    assert_eq!(answer.status, 400);
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert_eq!(
        answer.rest().await,
        "Invalid channel names: '': a notify name must not be empty, \
         'a\0b': a notify name must not contain control characters"
    );
    let answer = server.get("/events").await;
    assert_eq!((answer.status.as_u16(), answer.rest().await.contains("channels")), (400, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notify_answers_in_its_words_and_statuses() {
    let server = Server::start().await;
    let post = |body: &'static str| server.send(Method::POST, "/notify", &[JSON], body);
    let said = post(r#"{"channel":"orders","payload":"hi"}"#).await;
    assert_eq!((said.status.as_u16(), said.json().await), (200, json!({"success": true})));
    for body in [
        "{",
        "[]",
        r#"{"channel":"orders"}"#,
        r#"{"channel":"orders","payload":{"a":1}}"#,
        r#"{"channel":"","payload":"x"}"#,
    ] {
        assert_eq!(post(body).await.status, 422, "{body}");
    }
    let refused = |code| server.counted("refusals", code);
    assert_eq!((refused("bad_json"), refused("bad_field"), refused("bad_topic")), (1, 3, 1));
    let long = format!(r#"{{"channel":"orders","payload":"{}"}}"#, "x".repeat(8_000));
    let refused = server.send(Method::POST, "/notify", &[JSON], &long).await;
    assert_eq!(refused.status, 200);
    assert_eq!(refused.json().await["success"], false);
    assert_eq!(server.send(Method::POST, "/notify", &[], "{}").await.status, 415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_refused_on_all_of_them() {
    let server = Server::with(Settings { authentication: true, ..Settings::default() }).await;
    let body = r#"{"channel":"orders","payload":"hi"}"#;
    let refused = server.send(Method::POST, "/notify", &[JSON], body).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json().await, json!({"success": false, "error": "Authentication required"}));
    let bearer = ("authorization", "Bearer good");
    assert_eq!(server.send(Method::POST, "/notify", &[JSON, bearer], body).await.status, 200);

    let refused = server.get("/events?channels=orders").await;
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(refused.rest().await, "Authentication required");
    let refused = server.get("/events?channels=orders&token=bad").await;
    assert_eq!(refused.rest().await, "Authentication failed");
    assert_eq!(server.get("/events?channels=orders&token=good").await.status, 200);

    // On a WebSocket a token may still come in-band.
    let mut client = server.websocket("/alle").await;
    client.say(json!({"type": "subscribe", "channel": "orders"})).await;
    assert_eq!(client.hear().await["message"], "Authentication required");
    client.say(json!({"type": "authenticate", "token": "good"})).await;
    assert_eq!(client.hear().await, json!({"type": "authenticated", "user_id": "ann"}));
    client.say(json!({"type": "subscribe", "channel": "orders"})).await;
    assert_eq!(client.hear().await["type"], "subscribed");
    drop(client);
    until("no session", || server.sessions() == 0).await;
}
