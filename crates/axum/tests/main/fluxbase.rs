//! Fluxbase's door and its frames from end to end.

use http::Method;
use serde_json::{Value, json};
use tidewire::Topic;
use tidewire::protocol::change::Operation;
use tokio_tungstenite::tungstenite::Error;

use crate::server::{Client, Server, Settings, change, row, soon};

const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn products() -> Topic {
    Topic::table("public.products").unwrap()
}

/// Asks and gives the next frame.
async fn ask(client: &mut Client, frame: Value) -> Value {
    client.say(frame).await;
    client.hear().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_frames_of_its_readme_work_on_realtime() {
    let server = Server::start().await;
    let mut client = server.websocket("/realtime?any=parameter").await;
    let subscribe = json!({"type": "subscribe", "channel": "table:public.products"});
    let ack = json!({"type": "ack", "channel": "table:public.products"});
    assert_eq!(ask(&mut client, subscribe).await, ack);

    let (one, two) = (row(1, "one"), row(1, "two"));
    let drafts = vec![
        change(&products(), 7, Operation::Insert, None, Some(one.clone())),
        change(&products(), 8, Operation::Update, Some(one), Some(two.clone())),
        change(&products(), 9, Operation::Delete, Some(two), None),
    ];
    server.node.publisher().publish(drafts).await;
    let (one, two) = (json!({"id": 1, "name": "one"}), json!({"id": 1, "name": "two"}));
    for said in [
        json!({"type": "INSERT", "record": one}),
        json!({"type": "UPDATE", "record": two, "old_record": one}),
        json!({"type": "DELETE", "old_record": two}),
    ] {
        let mut payload = said.clone();
        payload["table"] = json!("products");
        payload["schema"] = json!("public");
        let frame =
            json!({"type": "broadcast", "channel": "table:public.products", "payload": payload});
        assert_eq!(client.hear().await, frame);
    }
    let unsubscribe = json!({"type": "unsubscribe", "channel": "table:public.products"});
    assert_eq!(ask(&mut client, unsubscribe).await, ack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_of_a_client_is_not_answered() {
    let server = Server::start().await;
    let mut client = server.websocket("/realtime").await;
    client.say(json!({"type": "heartbeat"})).await;
    let error = json!({"type": "error", "error": "unknown message type"});
    assert_eq!(ask(&mut client, json!({"type": "no such thing"})).await, error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broadcast_on_a_channel_reaches_its_sender_and_all_others() {
    let server = Server::start().await;
    let mut listener = server.websocket("/realtime").await;
    let ack = ask(&mut listener, json!({"type": "subscribe", "channel": "room-1"})).await;
    assert_eq!(ack["payload"]["subscribed"], true);

    let mut sender = server.websocket("/realtime").await;
    let broadcast = json!({
        "type": "broadcast", "channel": "room-1", "event": "moved", "payload": {"x": 1},
    });
    sender.say(broadcast).await;
    let said = json!({"event": "moved", "payload": {"x": 1}});
    for client in [&mut listener, &mut sender] {
        let heard = client.hear_type("broadcast").await;
        assert_eq!((&heard["broadcast"], &heard["payload"]["broadcast"]), (&said, &said));
    }
    let mut native = server.websocket("/v1/ws").await;
    native.say(json!({"type": "subscribe", "topic": "room-1", "since": "earliest"})).await;
    assert_eq!(native.hear_type("event").await["event"], "moved");

    sender.say(json!({"type": "broadcast", "channel": "room-1", "messageId": "m2"})).await;
    let ack = sender.hear_type("ack").await;
    assert_eq!((&ack["messageId"], &ack["status"]), (&json!("m2"), &json!("ok")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_tracked_on_a_channel_is_told_to_all_and_to_those_who_come_later() {
    let server = Server::start().await;
    let mut watcher = server.websocket("/realtime").await;
    ask(&mut watcher, json!({"type": "subscribe", "channel": "room-1"})).await;
    let mut client = server.websocket("/realtime").await;
    let state = json!({"status": "online"});
    let track = json!({
        "type": "presence", "channel": "room-1", "event": "track",
        "payload": {"key": "user-1", "state": state},
    });
    client.say(track).await;
    for client in [&mut watcher, &mut client] {
        let heard = client.hear_type("presence").await;
        assert_eq!(
            (&heard["presence"]["event"], &heard["presence"]["key"]),
            (&json!("join"), &json!("user-1"))
        );
        assert_eq!(heard["presence"]["newPresences"], json!([state]));
        assert_eq!(heard["presence"]["currentPresences"], json!({"user-1": [state]}));
        assert_eq!(heard["payload"]["presence"], heard["presence"]);
    }
    // Listening already is no reason to be told everything again.
    client.say(json!({"type": "broadcast", "channel": "room-1", "payload": 1})).await;
    assert_eq!(client.hear().await["type"], "broadcast");

    let mut late = server.websocket("/realtime").await;
    ask(&mut late, json!({"type": "subscribe", "channel": "room-1"})).await;
    let sync = late.hear().await["presence"].clone();
    assert_eq!(sync, json!({"event": "sync", "currentPresences": {"user-1": [state]}}));
    drop(client);
    let leave = late.hear_type("presence").await["presence"].clone();
    assert_eq!((&leave["event"], &leave["currentPresences"]), (&json!("leave"), &json!({})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_refused_before_the_upgrade_in_the_words_clients_compare() {
    let server = Server::with(Settings { authentication: true, ..Settings::default() }).await;
    for token in ["old", "nonsense"] {
        let path = format!("/realtime?token={token}");
        let answer = server.get_with(&path, &UPGRADE).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"));
        assert_eq!(answer.json().await, json!({"error": "Invalid or expired token"}));

        let url = format!("ws://{}{path}", server.addr);
        let refused = soon("a refusal", tokio_tungstenite::connect_async(url)).await;
        assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 401));
    }
    server.websocket("/realtime?token=good").await;
    let mut client = server.websocket("/realtime?token=").await;
    let token = json!({"type": "access_token", "token": "old"});
    let error = json!({"type": "error", "error": "invalid token"});
    assert_eq!(ask(&mut client, token).await, error);
    let token = json!({"type": "access_token", "token": "good"});
    let ack = json!({"type": "ack", "payload": {"type": "access_token", "updated": true}});
    assert_eq!(ask(&mut client, token).await, ack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_no_upgrade_is_told_so() {
    let server = Server::start().await;
    let answer = server.get("/realtime").await;
    assert_eq!((answer.status.as_u16(), answer.header("upgrade")), (426, "websocket"));
    assert_eq!(server.send(Method::POST, "/realtime", &[], "").await.status, 426);
}
