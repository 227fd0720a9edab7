//! The accept loop: who knocks, TLS, HTTP/2, and stopping.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, Full};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tidewire::{Budgets, Limits};
use tidewire_axum::{Listening, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::server::{SILENT, Server, Settings, read_head, read_to_end, soon, topic, until};

fn hurried() -> Listening {
    Listening { handshake_timeout: Duration::from_millis(100), ..Listening::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_finish_its_first_request_in_time_is_cut_off() {
    let listening = hurried();
    let cut_off = listening.metrics.cut_off.clone();
    let server = Server::with(Settings { listening, ..Settings::default() }).await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n\r\n", "GET /v1/ws HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(read_to_end(&mut socket).await, b"", "{said}");
    }
    assert_eq!(cut_off.get(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_are_in_are_not_cut_off() {
    let server = Server::with(Settings { listening: hurried(), ..Settings::default() }).await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    let mut client = server.websocket("/v1/ws").await;
    client.say(json!({"type": "subscribe", "topic": "a"})).await;
    client.hear_type("subscribed").await;
    // Someone else's handshake times out meanwhile.
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    read_to_end(&mut silent).await;
    server.say(&topic("a"), [1]).await;
    assert_eq!(stream.number().await.0, 1);
    assert_eq!(client.hear_type("event").await["data"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_hold_up_nobody() {
    let limits =
        Limits { budgets: Budgets { handshakes: 4, ..Budgets::default() }, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    assert_eq!(server.get("/v1/poll?topic=a&timeout=0").await.status, 200);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_refused() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let _ = socket.write_all(request.as_bytes()).await;
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_drips_is_not_waited_for() {
    let listening = Listening { body_timeout: Duration::from_millis(100), ..Listening::default() };
    let server = Server::with(Settings { listening, ..Settings::default() }).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let head = "POST /notify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused() {
    let limits = tidewire::Limits { body_bytes: 1_000, ..tidewire::Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let body = format!(r#"{{"channel":"a","payload":"{}"}}"#, "x".repeat(2_000));
    let headers = [("content-type", "application/json")];
    let refused = server.send(Method::POST, "/notify", &headers, &body).await;
    assert_eq!(refused.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_know_the_address_of_the_client() {
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() };
    let more = Router::new().route("/peer", get(peer));
    let server = Server::with(Settings { more, ..Settings::default() }).await;
    assert_eq!(server.get("/peer").await.rest().await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_closes_the_port_and_lets_requests_in_flight_end() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go_on));
    let slow = move || async move {
        tell.notify_one();
        wait.notified().await;
        "done"
    };
    let more = Router::new().route("/slow", post(slow));
    let mut server = Server::with(Settings { more, ..Settings::default() }).await;
    let (addr, stop) = (server.addr, server.stop.clone());
    let stopping = async {
        begun.notified().await;
        stop.cancel();
        soon("a closed port", async {
            while TcpStream::connect(addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        go_on.notify_one();
    };
    let (answer, ()) = tokio::join!(server.send(Method::POST, "/slow", &[], ""), stopping);
    assert_eq!(answer.rest().await, "done");
    soon("the end", &mut server.task).await.unwrap();
}

/// A certificate of our own for `localhost`, in files.
struct Certificate {
    der: CertificateDer<'static>,
    folder: std::path::PathBuf,
}

impl Certificate {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidewire-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let der = Self::write(&folder);
        Self { der, folder }
    }

    fn write(folder: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    fn tls(&self) -> Tls {
        Tls::from_files(self.folder.join("cert.pem"), self.folder.join("key.pem")).unwrap()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn connect_tls(
    addr: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let socket = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

async fn with_tls(certificate: &Certificate) -> (Server, Tls) {
    let tls = certificate.tls();
    let listening = Listening { tls: Some(tls.clone()), ..Listening::default() };
    (Server::with(Settings { listening, ..Settings::default() }).await, tls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_works_inside_tls() {
    let certificate = Certificate::new("websocket");
    let (server, _) = with_tls(&certificate).await;
    let stream = connect_tls(server.addr, &certificate.der, "http/1.1").await.unwrap();
    let (socket, _) =
        tokio_tungstenite::client_async("wss://localhost/v1/ws", stream).await.unwrap();
    talk(&server, socket).await;
    let stream = connect_tls(server.addr, &certificate.der, "http/1.1").await.unwrap();
    let (socket, _) =
        tokio_tungstenite::client_async("wss://localhost/v1/ws", stream).await.unwrap();
    talk_beside_a_request(&server, socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_holds_up_nothing_on_a_plain_websocket() {
    let server = Server::start().await;
    let socket = server.websocket("/v1/ws").await.0;
    talk_beside_a_request(&server, socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_works_on_a_stream_of_an_http2_connection_inside_tls() {
    let certificate = Certificate::new("extended-connect");
    let (server, _) = with_tls(&certificate).await;
    let stream = connect_tls(server.addr, &certificate.der, "h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    // An ordinary request first, so that the server's settings have come.
    let ready = Request::get("https://localhost/v1/none").body(Empty::<bytes::Bytes>::new());
    sender.send_request(ready.unwrap()).await.unwrap();
    let mut request = Request::connect("https://localhost/v1/ws")
        .header("sec-websocket-version", "13")
        .body(Empty::new())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let answer = soon("the upgrade", sender.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    let io = TokioIo::new(upgraded);
    talk(&server, WebSocketStream::from_raw_socket(io, Role::Client, None).await).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_inside_tls_that_takes_nothing_for_too_long_is_let_go() {
    let certificate = Certificate::new("lazy");
    let write_timeout = Duration::from_millis(200);
    let limits = tidewire::Limits { write_timeout, ..tidewire::Limits::default() };
    let listening = Listening { tls: Some(certificate.tls()), ..Listening::default() };
    let server = Server::with(Settings { limits, listening, ..Settings::default() }).await;
    let stream = connect_tls(server.addr, &certificate.der, "http/1.1").await.unwrap();
    let (mut socket, _) =
        tokio_tungstenite::client_async("wss://localhost/v1/ws", stream).await.unwrap();
    let subscribe = json!({"type": "subscribe", "topic": "a"}).to_string();
    socket.send(Message::text(subscribe)).await.unwrap();
    while !next_text(&mut socket).await.contains("subscribed") {}
    soon("the end of the session", async {
        while server.sessions() > 0 {
            server.say(&topic("a"), 0..1_000).await;
        }
    })
    .await;
    drop(socket);
}

/// Has a request under way that is never answered, while which all else goes on: deliveries, pings,
/// and in the end the close frame.
async fn talk_beside_a_request<IO>(server: &Server, mut socket: WebSocketStream<IO>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let say = |text: serde_json::Value| Message::text(text.to_string());
    socket.send(say(json!({"type": "subscribe", "topic": "a"}))).await.unwrap();
    while !next_text(&mut socket).await.contains("subscribed") {}
    socket.send(say(json!({"type": "publish", "notify": SILENT, "data": 1}))).await.unwrap();
    socket.send(Message::Ping("there?".into())).await.unwrap();
    while !matches!(soon("a pong", socket.next()).await, Some(Ok(Message::Pong(_)))) {}
    server.say(&topic("a"), [7]).await;
    assert!(next_text(&mut socket).await.contains("\"data\":7"));
    let (stop, brief) = (server.node.clone(), Duration::from_secs(1));
    let stopping = tokio::spawn(async move { stop.shutdown(Duration::ZERO, 10 * brief).await });
    let ended =
        async { while !matches!(socket.next().await, Some(Ok(Message::Close(Some(_)))) | None) {} };
    tokio::time::timeout(2 * brief, ended).await.expect("the close frame waits for nothing");
    stopping.abort();
}

/// Subscribes, hears a burst that is larger than any buffer, pings, and closes.
async fn talk<IO>(server: &Server, mut socket: WebSocketStream<IO>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let subscribe = json!({"type": "subscribe", "topic": "a"}).to_string();
    socket.send(Message::text(subscribe)).await.unwrap();
    while !next_text(&mut socket).await.contains("subscribed") {}
    let node = server.node.clone();
    let burst = tokio::spawn(async move {
        for _ in 0..200 {
            let payload = format!("\"{}\"", "x".repeat(10_000)).into();
            let payload = tidewire::protocol::Payload::Json(payload);
            node.publisher().publish(vec![tidewire::Draft::message(topic("a"), payload)]).await;
        }
    });
    for number in 1..=200 {
        let text = next_text(&mut socket).await;
        assert!(text.contains(&format!("-{number}\"")), "{}", &text[..100]);
    }
    burst.await.unwrap();
    socket.send(Message::Ping("hm".into())).await.unwrap();
    let pong = soon("the pong", socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("hm".into()));
    socket.send(Message::binary(vec![0u8; 100 << 10])).await.unwrap();
    loop {
        if let Message::Close(close) = soon("the close", socket.next()).await.unwrap().unwrap() {
            assert_eq!(u16::from(close.unwrap().code), 1009);
            break;
        }
    }
    drop(socket);
    until("no session", || server.sessions() == 0).await;
}

async fn next_text<IO>(socket: &mut WebSocketStream<IO>) -> String
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let message = soon("a message", socket.next()).await.unwrap().unwrap();
        if let Message::Text(text) = message {
            return text.to_string();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_offered_inside_tls() {
    let certificate = Certificate::new("alpn");
    let (server, _) = with_tls(&certificate).await;
    let stream = connect_tls(server.addr, &certificate.der, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    let request = Request::get("https://localhost/v1/poll?topic=a&timeout=0");
    let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_after_a_reload_and_a_bad_one_is_not() {
    let mut certificate = Certificate::new("reload");
    let (server, tls) = with_tls(&certificate).await;
    let old = certificate.der.clone();
    certificate.der = Certificate::write(&certificate.folder);
    tls.reload().unwrap();
    assert!(connect_tls(server.addr, &old, "h2").await.is_err());
    connect_tls(server.addr, &certificate.der, "h2").await.unwrap();

    std::fs::write(certificate.folder.join("key.pem"), "no key").unwrap();
    let refused = tls.reload().unwrap_err();
    assert!(refused.to_string().starts_with("cannot read a private key"), "{refused}");
    connect_tls(server.addr, &certificate.der, "h2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_handshake_that_stalls_is_cut_off() {
    let certificate = Certificate::new("stall");
    let listening = Listening { tls: Some(certificate.tls()), ..hurried() };
    let server = Server::with(Settings { listening, ..Settings::default() }).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(&[0x16, 3, 1]).await.unwrap();
    assert_eq!(read_to_end(&mut socket).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_from_its_header() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let head = "POST /notify HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_with_a_small_body_leaves_the_connection_open() {
    let server = Server::start().await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    for _ in 0..2 {
        let head = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n";
        // Its body comes by itself, so the request is not read in one go.
        for part in [head, "{", "}"] {
            socket.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = read_head(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let length = answer.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        socket.read_exact(&mut body).await.unwrap();
    }
}
