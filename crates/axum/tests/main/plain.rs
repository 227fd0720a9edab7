//! Requests on plain TCP: what is answered without hyper, and what is left to it.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use http::Method;
use serde_json::json;
use tidewire_axum::{Listening, Origins, Threads};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Server, Settings, read_head, read_to_end, soon, topic, until, upgrade};

fn echo() -> Router {
    let endless = || async {
        let parts = ["one ", "two"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        Body::from_stream(stream::iter(parts))
    };
    let echo = post(|body: String| async move { body });
    Router::new().route("/echo", echo).route("/stream", get(endless))
}

async fn server() -> Server {
    Server::with(Settings { more: echo(), ..Settings::default() }).await
}

fn said(body: &str) -> String {
    let length = body.len();
    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The body of the next answer on the connection.
async fn answer(socket: &mut TcpStream) -> String {
    let head = read_head(socket).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().unwrap()];
    soon("the body", socket.read_exact(&mut body)).await.unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_request_after_request() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    for number in 0..100 {
        let body = number.to_string();
        socket.write_all(said(&body).as_bytes()).await.unwrap();
        assert_eq!(answer(&mut socket).await, body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_pieces_in_chunks_or_behind_each_other_are_answered_in_order() {
    let server = server().await;
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let in_two = [said("plain"), said("ab")[..30].to_owned(), said("ab")[30..].to_owned()];
    for (pieces, expected) in [
        (vec![said("plain"), chunked.to_owned(), said("after")], vec!["plain", "abc", "after"]),
        (in_two.to_vec(), vec!["plain", "ab"]),
        (vec![said("1") + &said("2") + &said("3")], vec!["1", "2", "3"]),
        (vec![said(&"x".repeat(100_000)), said("y")], vec![&*"x".repeat(100_000), "y"]),
    ] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        let mut answers = Vec::new();
        for piece in &pieces {
            socket.write_all(piece.as_bytes()).await.unwrap();
        }
        for _ in &expected {
            answers.push(answer(&mut socket).await);
        }
        assert_eq!(answers, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_unknown_length_ends_with_the_connection() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let head = read_head(&mut socket).await;
    assert!(head.contains("connection: close\r\n") && !head.contains("content-length"), "{head}");
    assert_eq!(read_to_end(&mut socket).await, b"one two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_router_adds_to_every_answer_is_there() {
    let server = Server::with(Settings { origins: Origins::Any, ..Settings::default() }).await;
    let headers = [("origin", "https://anywhere.example")];
    for path in ["/v1/poll?topic=a&timeout=0", "/v1/sse?topic=a", "/nowhere"] {
        let answer = server.send(Method::GET, path, &headers, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert!(answer.header("date").ends_with("GMT"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_sent_while_another_waits_is_answered_after_it() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let poll = "GET /v1/poll?topic=a&timeout=30 HTTP/1.1\r\nHost: a\r\n\r\n";
    socket.write_all(poll.as_bytes()).await.unwrap();
    until("the poll", || server.node.stats().subscriptions == 1).await;
    socket.write_all(said("next").as_bytes()).await.unwrap();
    server.say(&topic("a"), [1]).await;
    assert!(answer(&mut socket).await.contains("\"events\""));
    assert_eq!(answer(&mut socket).await, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_threads_of_their_own_are_served_and_end_with_the_server() {
    let threads = Some(Threads::start(3).unwrap());
    let listening = Listening { threads, ..Listening::default() };
    let server = Server::with(Settings { listening, more: echo(), ..Settings::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..7 {
        let mut client = server.websocket("/v1/ws").await;
        client.say(json!({"type": "subscribe", "topic": "a"})).await;
        client.hear_type("subscribed").await;
        clients.push(client);
    }
    let mut stream = server.get("/v1/sse?topic=a").await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(said("x").as_bytes()).await.unwrap();
    assert_eq!(answer(&mut idle).await, "x");
    server.say(&topic("a"), [1]).await;
    for client in &mut clients {
        assert_eq!(client.hear_type("event").await["data"], 1);
    }
    assert_eq!(stream.number().await.0, 1);
    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_behind_a_poll_is_heard_when_it_is_over() {
    const FRAMES: usize = 300;
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let poll = "GET /v1/poll?topic=a&timeout=30 HTTP/1.1\r\nHost: a\r\n\r\n";
    socket.write_all(poll.as_bytes()).await.unwrap();
    until("the poll", || server.node.stats().subscriptions == 1).await;
    // Far more than is kept while a request is answered, in two pieces.
    let text = format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "x".repeat(90));
    let frame = masked(&text);
    let mut sent = upgrade("/v1/ws", "").into_bytes();
    sent.extend(frame.repeat(FRAMES));
    let (first, second) = sent.split_at(9_000);
    for piece in [first, second] {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    server.say(&topic("a"), [1]).await;
    assert!(answer(&mut socket).await.contains("\"events\""));
    let head = read_head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (mut heard, mut buffer) = (0, vec![0; 64 << 10]);
    while heard < FRAMES {
        let count = soon("all answers", socket.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0, "the connection ended after {heard} answers");
        heard += buffer[..count].iter().filter(|byte| **byte == b'}').count();
    }
}

/// A text frame as a client sends it, with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 126);
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_lines_after_a_body_are_no_request() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    for body in ["a", "b"] {
        socket.write_all(format!("{}\r\n", said(body)).as_bytes()).await.unwrap();
        assert_eq!(answer(&mut socket).await, body);
    }
    server.stop.cancel();
    assert_eq!(read_to_end(&mut socket).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_does_not_hold_up_a_server_that_stops() {
    let mut server = server().await;
    let mut sockets = Vec::new();
    for begun in ["GET / HT", "POST /echo HTTP/1.1\r\nHost: a\r\n"] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(format!("{}{begun}", said("x")).as_bytes()).await.unwrap();
        assert_eq!(answer(&mut socket).await, "x");
        sockets.push(socket);
    }
    server.stop.cancel();
    soon("the end of the server", &mut server.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_that_vanishes_after_sending_much_is_noticed_when_it_is_answered() {
    let server = server().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let poll = "GET /v1/poll?topic=a&timeout=60 HTTP/1.1\r\nHost: a\r\n\r\n";
    socket.write_all(poll.as_bytes()).await.unwrap();
    until("the poll", || server.node.stats().subscriptions == 1).await;
    socket.write_all(&[b'x'; 40_000]).await.unwrap();
    drop(socket);
    // Until then it may as well be a client that has nothing more to send.
    server.say(&topic("a"), [1]).await;
    until("the end of the poll", || server.sessions() == 0).await;
}
