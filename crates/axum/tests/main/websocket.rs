//! The native dialect over a WebSocket, from end to end.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidewire::{Limits, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::server::{Server, Settings, soon, topic, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_reaches_a_subscriber_with_its_position() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    assert_eq!(client.hear().await["type"], "welcome");

    client.say(json!({"type": "subscribe", "id": 1, "topic": "room:42"})).await;
    assert_eq!(client.hear_type("subscribed").await["outcome"], "fresh");

    let position = server.say(&topic("room:42"), [7]).await;
    let event = client.hear_type("event").await;
    assert_eq!((&event["data"], &event["position"]), (&json!(7), &json!(position.to_string())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_arrive_once_and_in_order() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    client.say(json!({"type": "subscribe", "topic": "a"})).await;
    client.hear_type("subscribed").await;
    for number in 0..1_000 {
        server.say(&topic("a"), [number]).await;
    }
    for number in 0..1_000 {
        assert_eq!(client.hear_type("event").await["data"], number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_from_one_transport_resumes_on_another() {
    let server = Server::start().await;
    let first = server.say(&topic("a"), [1]).await;
    server.say(&topic("a"), [2, 3]).await;

    let mut stream = server.get(&format!("/v1/sse?topic=a&since={first}")).await;
    let (number, event) = stream.number().await;
    assert_eq!(number, 2);

    let mut client = server.websocket("/v1/ws").await;
    client.say(json!({"type": "subscribe", "topic": "a", "since": event.id.unwrap()})).await;
    assert_eq!(client.hear_type("subscribed").await["outcome"], "resumed");
    let event = client.hear_type("event").await;
    assert_eq!(event["data"], 3);

    server.say(&topic("a"), [4]).await;
    let since = event["position"].as_str().unwrap();
    let polled = server.get(&format!("/v1/poll?topic=a&since={since}")).await.json().await;
    assert_eq!(polled["events"][0]["data"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_in_the_address_are_subscribed_to_from_the_beginning() {
    let server = Server::start().await;
    let first = server.say(&topic("a"), [1]).await;
    server.say(&topic("a"), [2]).await;
    let path = format!("/v1/ws?topic=a&notify=b&since={first},-");

    let mut client = server.websocket(&path).await;
    assert_eq!(client.hear().await["type"], "welcome");
    let begun = client.hear_type("subscribed").await;
    assert_eq!((&begun["topic"], &begun["outcome"]), (&json!("a"), &json!("resumed")));
    assert_eq!(client.hear_type("event").await["data"], 2);

    client.say(json!({"type": "subscribe", "topic": "c"})).await;
    while client.hear_type("subscribed").await["topic"] != "c" {}
    server.say(&topic("c"), [3]).await;
    assert_eq!(client.hear_type("event").await["data"], 3);
    assert_eq!(server.node.stats().subscriptions, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_address_may_not_have_is_told_and_the_connection_lives_on() {
    let limits = Limits { subscriptions: 1, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut client = server.websocket("/v1/ws?topic=a&topic=b").await;
    assert_eq!(client.hear_type("subscribed").await["topic"], "a");
    assert_eq!(client.hear_type("error").await["topic"], "b");
    server.say(&topic("a"), [1]).await;
    assert_eq!(client.hear_type("event").await["data"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_costs_only_itself() {
    const OTHERS: usize = 99;
    const MESSAGES: usize = 3_000;
    let server = Server::start().await;
    let mut lazy = server.websocket("/v1/ws").await;
    lazy.say(json!({"type": "subscribe", "topic": "a"})).await;
    lazy.hear_type("subscribed").await;

    let mut readers = JoinSet::new();
    for _ in 0..OTHERS {
        let mut client = server.websocket("/v1/ws").await;
        client.say(json!({"type": "subscribe", "topic": "a"})).await;
        client.hear_type("subscribed").await;
        readers.spawn(count_marks(client, MESSAGES));
    }
    // Large enough that the lazy one's socket and mailbox are soon full.
    let payload = format!("\"!{}\"", "x".repeat(1_500));
    for _ in 0..MESSAGES {
        publish(&server, &topic("a"), &payload).await;
    }
    while let Some(counted) = soon("all messages at all readers", readers.join_next()).await {
        assert_eq!(counted.unwrap(), MESSAGES);
    }
    // And what it missed is there when it begins to read.
    let event = lazy.hear_type("event").await;
    assert!(event["position"].as_str().unwrap().ends_with("-1"), "{}", event["position"]);
}

async fn publish(server: &Server, topic: &Topic, json: &str) {
    use tidewire::Draft;
    use tidewire::protocol::Payload;
    let draft = Draft::message(topic.clone(), Payload::Json(json.into()));
    server.node.publisher().publish(vec![draft]).await[0].as_ref().unwrap();
}

/// Reads raw bytes, since a thousand messages at a hundred clients are many for a library in a
/// debug build; each message has one mark.
async fn count_marks(client: crate::server::Client, messages: usize) -> usize {
    let MaybeTlsStream::Plain(mut socket) = client.0.into_inner() else {
        unreachable!("these tests connect without TLS")
    };
    let mut buffer = vec![0; 64 << 10];
    let mut marks = 0;
    while marks < messages {
        let count = socket.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the connection ended after {marks}");
        marks += buffer[..count].iter().filter(|byte| **byte == b'!').count();
    }
    marks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_for_too_long_is_let_go() {
    let write_timeout = std::time::Duration::from_secs(1);
    let limits = Limits { write_timeout, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut lazy = server.websocket("/v1/ws").await;
    lazy.say(json!({"type": "subscribe", "topic": "a"})).await;
    lazy.hear_type("subscribed").await;
    soon("the end of the session", async {
        while server.sessions() > 0 {
            server.say(&topic("a"), 0..1_000).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_subscriptions_are_refused_beyond_the_limit_and_the_client_lives() {
    let limits = Limits { burst: 5_000, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut client = server.websocket("/v1/ws").await;
    for index in 0..1_001 {
        client.say(json!({"type": "subscribe", "id": index, "topic": format!("t{index}")})).await;
    }
    for index in 0..1_000 {
        assert_eq!(client.hear_type("subscribed").await["id"], index);
    }
    let error = client.hear_type("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!("too_many_subscriptions"), &json!(1_000)));
    server.say(&topic("t999"), [1]).await;
    assert_eq!(client.hear_type("event").await["topic"], "t999");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_floods_is_refused_and_then_let_go_while_others_do_not_notice() {
    let server = Server::start().await;
    let mut other = server.websocket("/v1/ws").await;
    other.say(json!({"type": "subscribe", "topic": "a"})).await;
    other.hear_type("subscribed").await;

    let flooding = server.websocket("/v1/ws").await;
    let (mut writer, mut reader) = flooding.0.split();
    let flood = tokio::spawn(async move {
        while writer.send(Message::text(r#"{"type":"ping"}"#)).await.is_ok() {}
    });
    let code = soon("the flooding client's end", async {
        let mut limited = false;
        loop {
            match reader.next().await {
                Some(Ok(Message::Text(text))) => limited |= text.contains("rate_limited"),
                Some(Ok(Message::Close(close))) => {
                    assert!(limited, "it is told before");
                    return u16::from(close.unwrap().code);
                }
                other => panic!("no close frame but {other:?}"),
            }
        }
    });
    assert_eq!(code.await, 4003);
    soon("the flood to notice", flood).await.unwrap();
    server.say(&topic("a"), [1]).await;
    assert_eq!(other.hear_type("event").await["data"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_frees_its_session() {
    let server = Server::start().await;
    let client = server.websocket("/v1/ws").await;
    until("the session", || server.sessions() == 1).await;
    drop(client);
    until("no session", || server.sessions() == 0).await;
    soon("no task", server.transports.ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_shutdown_clients_are_told_to_come_back() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    client.hear_type("welcome").await;
    let node = server.node.clone();
    let grace = std::time::Duration::from_secs(10);
    let down = tokio::spawn(async move { node.shutdown(grace, grace).await });
    assert_eq!(client.hear_type("close").await["name"], "restart");
    assert_eq!(client.close_code().await, 4000);
    soon("the node", down).await.unwrap();
    soon("all tasks", server.transports.ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_socket_ends_as_idle() {
    let second = std::time::Duration::from_secs(1);
    let limits = Limits { ping_interval: second, idle_timeout: 2 * second, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut silent = server.raw_websocket("/v1/ws").await;
    let heard = crate::server::read_to_end(&mut silent).await;
    assert!(heard.windows(2).any(|bytes| bytes == [0x89, 0]), "a ping came first");
    assert!(heard.ends_with(b"idle"), "then the close frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_pings_stays() {
    let second = std::time::Duration::from_secs(1);
    let limits = Limits { ping_interval: second, idle_timeout: 2 * second, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut client = server.websocket("/v1/ws").await;
    let mut pings = 0;
    // The library answers each ping by itself when it reads on.
    while pings < 3 {
        pings += usize::from(client.next().await.is_ping());
    }
    assert_eq!(server.sessions(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_taken_from_header_query_and_subprotocol() {
    let server = Server::with(Settings { authentication: true, ..Settings::default() }).await;
    let url = |path: &str| format!("ws://{}{path}", server.addr);

    let mut by_header = url("/v1/ws").into_client_request().unwrap();
    by_header.headers_mut().insert("authorization", "Bearer good".parse().unwrap());
    let by_query = url("/v1/ws?token=good").into_client_request().unwrap();
    let mut by_subprotocol = url("/v1/ws").into_client_request().unwrap();
    let offered = "bearer, good".parse().unwrap();
    by_subprotocol.headers_mut().insert("sec-websocket-protocol", offered);

    for request in [by_header, by_query, by_subprotocol] {
        let offers = request.headers().contains_key("sec-websocket-protocol");
        let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        let accepted = answer.headers().get("sec-websocket-protocol");
        assert_eq!(accepted.is_some_and(|name| name == "bearer"), offers);
        let welcome = crate::server::Client(socket).hear_type("welcome").await;
        assert_eq!(welcome["subject"], "ann");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_sent_along_with_the_handshake_are_heard() {
    let server = Server::start().await;
    let mut socket = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let mut bytes = crate::server::upgrade("/v1/ws", "").into_bytes();
    let ping = br#"{"type":"ping","id":5}"#;
    bytes.extend([0x81, 0x80 | ping.len() as u8, 0, 0, 0, 0]);
    bytes.extend(ping);
    socket.write_all(&bytes).await.unwrap();
    let head = crate::server::read_head(&mut socket).await;
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let mut heard = Vec::new();
    soon("the pong", async {
        while !String::from_utf8_lossy(&heard).contains(r#""type":"pong","id":5"#) {
            heard.push(socket.read_u8().await.unwrap());
        }
    })
    .await;
}
