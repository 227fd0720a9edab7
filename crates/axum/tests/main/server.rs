//! A server on a port of its own, and clients for it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tidewire::protocol::change::{Change, Column, Operation, Relation, Row, Snapshot, Transaction};
use tidewire::protocol::{Code, Draft, Interest, Payload, Refusal, Token, TopicKind};
use tidewire::upstream::{Prepared, TableRows};
use tidewire::{
    Action, Authenticator, Grant, Identity, Limits, Node, Position, Publisher, Topic, Upstream,
};
use tidewire_axum::{Listening, Origins, Transports, finish, router, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// Longest any single thing may take; generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// How a server is to be.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) listening: Listening,
    pub(crate) origins: Origins,
    pub(crate) authentication: bool,
    pub(crate) more: Router,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) transports: Transports,
    pub(crate) addr: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let mut builder = Node::builder().limits(settings.limits);
        if settings.authentication {
            builder = builder.authenticator(Arc::new(Tokens));
        }
        let prepared = builder.prepare();
        let channels = Arc::new(Channels(prepared.publisher().clone()));
        let prepared = prepared.upstream(TopicKind::Notify, channels);
        let node = prepared.upstream(TopicKind::Table, Arc::new(Tables)).start();
        let transports = Transports::new(node.clone(), settings.origins);
        let app = finish(router(&transports).merge(settings.more), &transports);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(vec![listener], app, settings.listening, stop.clone()));
        Self { node, transports, addr, stop, task }
    }

    pub(crate) async fn websocket(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.addr);
        let connected = soon("the upgrade", tokio_tungstenite::connect_async(url)).await;
        Client(connected.unwrap().0)
    }

    /// A connection that is a WebSocket already, to write raw bytes on.
    pub(crate) async fn raw_websocket(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        socket.write_all(upgrade(path, "").as_bytes()).await.unwrap();
        let head = read_head(&mut socket).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, "").await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let socket = TcpStream::connect(self.addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) });
        let request = request(method, path, headers, body);
        let response = soon("an answer", sender.send_request(request)).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body, text: String::new(), task }
    }

    /// Says numbers on a topic; where the last one stands.
    pub(crate) async fn say(
        &self,
        topic: &Topic,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Position {
        let drafts = numbers
            .into_iter()
            .map(|number| Draft::message(topic.clone(), Payload::Json(number.to_string().into())));
        let results = self.node.publisher().publish(drafts.collect()).await;
        results.last().unwrap().as_ref().unwrap().position
    }

    /// What a counter with a name for each kind shows.
    pub(crate) fn counted(&self, counter: &str, name: &str) -> u64 {
        let (mut registry, mut text) =
            (prometheus_client::registry::Registry::default(), String::new());
        self.node.metrics().register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let begin = format!("{counter}_total{{name=\"{name}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&begin));
        count.map_or(0, |count| count.parse().unwrap())
    }

    pub(crate) fn sessions(&self) -> usize {
        self.node.stats().connections
    }
}

pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("host", HeaderValue::from_static("tidewire.test"));
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::application(name).unwrap()
}

/// A WebSocket handshake as bytes.
pub(crate) fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: tidewire.test\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Reads to the end of an HTTP answer's headers.
pub(crate) async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("an answer", socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads until the server ends the connection, by whatever means.
pub(crate) async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = soon("the end of the connection", socket.read_to_end(&mut all)).await;
    all
}

/// An HTTP answer being read; dropping it ends its connection.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// What was read of the body and not yet looked at.
    pub(crate) text: String,
    task: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sse {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: String,
}

impl Sse {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.data).unwrap()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The rest of the body as text.
    pub(crate) async fn rest(mut self) -> String {
        while self.read().await {}
        std::mem::take(&mut self.text)
    }

    pub(crate) async fn json(self) -> Json {
        let text = self.rest().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn read(&mut self) -> bool {
        let frame = soon("more of the body", self.body.frame()).await;
        let Some(Ok(frame)) = frame else { return false };
        if let Ok(data) = frame.into_data() {
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
        true
    }

    /// The next block of a stream of events, comments and all.
    pub(crate) async fn block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return block;
            }
            assert!(self.read().await, "the stream ended");
        }
    }

    /// The next block that a browser would hand to a listener.
    pub(crate) async fn sse(&mut self) -> Sse {
        loop {
            let mut event = Sse::default();
            let mut data = Vec::new();
            for line in self.block().await.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = Some(id.into()),
                    Some(("event", name)) => event.event = Some(name.into()),
                    Some(("data", line)) => data.push(line.to_owned()),
                    _ => {}
                }
            }
            event.data = data.join("\n");
            if !event.data.is_empty() {
                return event;
            }
        }
    }

    /// The next event that reaches `onmessage`, with its number.
    pub(crate) async fn number(&mut self) -> (u64, Sse) {
        loop {
            let event = self.sse().await;
            if event.event.is_none() {
                return (event.json()["data"].as_u64().unwrap(), event);
            }
        }
    }
}

/// A WebSocket client of a library that is not ours.
pub(crate) struct Client(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn say(&mut self, frame: Json) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next message of any kind.
    pub(crate) async fn next(&mut self) -> Message {
        soon("a message", self.0.next()).await.unwrap().unwrap()
    }

    /// The next text message as JSON.
    pub(crate) async fn hear(&mut self) -> Json {
        loop {
            if let Message::Text(text) = self.next().await {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The next frame of the given type.
    pub(crate) async fn hear_type(&mut self, kind: &str) -> Json {
        loop {
            let frame = self.hear().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The code with which the server ends the connection.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(close) = self.next().await {
                return close.unwrap().code.into();
            }
        }
    }
}

/// Channels that bring back what is said on them, as PostgreSQL does.
struct Channels(Publisher);

#[async_trait::async_trait]
impl Upstream for Channels {
    async fn attach(&self, _topic: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _topic: &Topic) {}

    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
        if payload.len() > 7_999 {
            return Err(Refusal::new(Code::TooLarge, "too long for a notification"));
        }
        if topic.name() == SILENT {
            std::future::pending::<()>().await;
        }
        self.0.publish(vec![Draft::message(topic.clone(), payload.clone())]).await;
        Ok(())
    }
}

/// A channel whose database does not answer.
pub(crate) const SILENT: &str = "silent";

/// Tables of two columns, `id` and `name`, in which there is always one row.
struct Tables;

#[async_trait::async_trait]
impl Upstream for Tables {
    async fn attach(&self, _topic: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _topic: &Topic) {}

    async fn emit(&self, _topic: &Topic, _payload: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "nothing is said on tables"))
    }

    async fn prepare(&self, _topic: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        assert!(interest.filter.is_none() && interest.columns.is_empty(), "nobody asks so here");
        let operations = interest.operations.clone().into();
        Ok(Prepared { operations, columns: None, rows: None })
    }

    async fn snapshot(&self, topic: &Topic, _interest: &Interest) -> Result<TableRows, Refusal> {
        let seen = Snapshot { xmin: 1, xmax: 1, running: Vec::new() };
        Ok(TableRows { relation: relation(topic), rows: Arc::new(vec![row(1, "one")]), seen })
    }
}

fn relation(table: &Topic) -> Arc<Relation> {
    let (schema, table) = table.name().split_once('.').unwrap();
    let column = |name: &str, type_name: &str, key| Column {
        name: name.into(),
        type_oid: 25,
        type_name: type_name.into(),
        key,
    };
    let columns = vec![column("id", "int8", true), column("name", "text", false)];
    Arc::new(Relation::new(1, schema, table, columns))
}

/// A row of any of the tables.
pub(crate) fn row(id: u32, name: &str) -> Row {
    Row::of_json([id.to_string(), format!("{name:?}")])
}

/// A row of a table that changed in a transaction of its own; the number is the transaction's.
pub(crate) fn change(
    table: &Topic,
    transaction: u64,
    operation: Operation,
    old: Option<Row>,
    record: Option<Row>,
) -> Draft {
    let transaction = Transaction { id: transaction, lsn: None, committed_at: 0 };
    let (relation, transaction) = (relation(table), Arc::new(transaction));
    let change = Change { operation, relation, record, old, transaction, index: 0, last: true };
    Draft::change(table.clone(), change)
}

/// To listen to channels and to publish on them, which nobody may without a right.
fn channels() -> Grant {
    let pattern = "notify:*".parse().unwrap();
    Grant { pattern, actions: vec![Action::Subscribe, Action::Publish], rows: None }
}

/// Knows one good token.
struct Tokens;

#[async_trait::async_trait]
impl Authenticator for Tokens {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        match token.expose() {
            "good" => Ok(Identity {
                subject: Some("ann".into()),
                grants: Some(vec![channels()].into()),
                ..Identity::anonymous()
            }),
            "old" => Err(Refusal::new(Code::TokenExpired, "the token has run out")),
            _ => Err(Refusal::new(Code::TokenInvalid, "not a token")),
        }
    }
}
