//! What a WebSocket client may not do, and how it is told.

use serde_json::json;
use tidewire::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use futures_util::SinkExt;

use crate::server::{Server, Settings, read_head, read_to_end, soon, upgrade};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_make_no_sense_are_answered_and_the_connection_lives() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    for (frame, code) in [
        (Message::text("{"), "bad_json"),
        (Message::text("[]"), "bad_json"),
        (Message::text(r#"{"type":"dance"}"#), "unknown_type"),
        (Message::text(r#"{"type":"subscribe"}"#), "missing_field"),
        (Message::text(r#"{"type":"subscribe","topic":"a\u0000b"}"#), "bad_topic"),
        (Message::binary(vec![1, 2, 3]), "binary_frame"),
    ] {
        client.0.send(frame).await.unwrap();
        assert_eq!(client.hear_type("error").await["code"], code);
    }
    client.say(json!({"type": "ping", "id": 1})).await;
    assert_eq!(client.hear_type("pong").await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_quotes_and_emoji_are_names() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    let name = "o'Brien \"x\" 🦀";
    client.say(json!({"type": "subscribe", "topic": name})).await;
    assert_eq!(client.hear_type("subscribed").await["topic"], name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_comes_back_as_a_pong_even_between_fragments() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    let fragment = |text: &'static str, data, last| {
        Message::Frame(Frame::message(text, OpCode::Data(data), last))
    };
    client.0.send(fragment(r#"{"type":"#, Data::Text, false)).await.unwrap();
    client.0.send(Message::Ping("hm".into())).await.unwrap();
    client.0.send(fragment(r#""ping","id":9}"#, Data::Continue, true)).await.unwrap();
    loop {
        if let Message::Pong(payload) = client.next().await {
            assert_eq!(payload, "hm");
            break;
        }
    }
    assert_eq!(client.hear_type("pong").await["id"], 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_end_the_connection_by_name() {
    let server = Server::start().await;
    for (bytes, ending) in [
        // Not masked.
        (&[0x81, 1, b'x'][..], "protocol_error"),
        // A reserved bit, a reserved opcode, a continuation of nothing, a fragmented ping.
        (&[0xC1, 0x80, 0, 0, 0, 0], "protocol_error"),
        (&[0x83, 0x80, 0, 0, 0, 0], "protocol_error"),
        (&[0x80, 0x80, 0, 0, 0, 0], "protocol_error"),
        (&[0x09, 0x80, 0, 0, 0, 0], "protocol_error"),
        // Text that is not UTF-8.
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], "bad_utf8"),
        // A terabyte to come.
        (&[0x82, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "too_large"),
    ] {
        let mut socket = server.raw_websocket("/v1/ws").await;
        socket.write_all(bytes).await.unwrap();
        let heard = read_to_end(&mut socket).await;
        assert!(heard.ends_with(ending.as_bytes()), "{bytes:x?}: {}", heard.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_frame_is_refused_though_the_client_goes_on_sending() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    let huge = Message::text("x".repeat(300 << 10));
    // It may fail to write it all, since the server does not read that much.
    let _ = client.0.send(huge).await;
    assert_eq!(client.close_code().await, 1009);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_close_is_echoed_and_the_connection_ends() {
    let server = Server::start().await;
    let mut client = server.websocket("/v1/ws").await;
    let close = CloseFrame { code: 4999.into(), reason: "done".into() };
    client.0.close(Some(close)).await.unwrap();
    assert_eq!(client.close_code().await, 4999);
    soon("the end of the task", server.transports.ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_is_refused_with_a_status() {
    let server = Server::start().await;
    let good = upgrade("/v1/ws", "");
    for (request, status) in [
        ("GET /v1/ws HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        (good.replace("Version: 13", "Version: 8"), "426"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400"),
        (good.replace("Connection: Upgrade", "Connection: keep-alive"), "400"),
        (good.replace("GET ", "POST "), "400"),
        (good.replace("/v1/ws", "/v1/ws?tokn=x"), "400"),
        (good.replace("/v1/ws", "/v1/ws?token=a&token=b"), "400"),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi"), "400"),
        (good.replace("/v1/ws", "/v1/ws?topic="), "400"),
        (good.replace("/v1/ws", "/v1/ws?since=a-1"), "400"),
        (good.replace("/v1/ws", "/v1/ws?topic=a&topic=b&since=a-1"), "400"),
        (good.replace("/v1/ws", "/v1/ws?topic=a&columns=id"), "400"),
        (upgrade("/v1/ws", "Origin: https://evil.example\r\n"), "403"),
        (upgrade("/v1/nothing", ""), "404"),
    ] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut socket).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{head}");
    }
    assert_eq!(server.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_refused_before_the_upgrade() {
    let server = Server::with(Settings { authentication: true, ..Settings::default() }).await;
    for (token, code) in [("bad", "token_invalid"), ("old", "token_expired")] {
        let headers = [("authorization", format!("Bearer {token}"))];
        let [(name, value)] = &headers;
        let more = format!("{name}: {value}\r\n");
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        let request = upgrade("/v1/ws", &format!("{more}Connection: close\r\n"));
        socket.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut socket).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains(code), "{answer}");
        assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_says_so_before_the_upgrade() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut first = server.websocket("/v1/ws").await;
    first.hear_type("welcome").await;
    let url = format!("ws://{}/v1/ws", server.addr);
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    let refused = server.get("/v1/sse?topic=a").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
}
