//! A WebSocket client of a library that is not ours.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::soon;

/// Connects in the native dialect, and reads the welcome.
pub(crate) async fn client(address: SocketAddr) -> Client {
    let mut client = client_with(address, "/v1/ws", &[]).await.expect("an upgrade");
    assert_eq!(client.hear().await["type"], "welcome");
    client
}

/// Connects; the status where that is refused.
pub(crate) async fn client_with(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Client, u16> {
    match connect(address, path, headers).await {
        Ok(client) => Ok(client),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Connects in the native dialect to a server that may be gone, or may go.
pub(crate) async fn try_client(address: SocketAddr) -> Option<Client> {
    let mut client = connect(address, "/v1/ws", &[]).await.ok()?;
    client.try_hear().await?;
    Some(client)
}

async fn connect(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Client, Error> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("an address");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a good header"));
    }
    let connected = soon("the upgrade", tokio_tungstenite::connect_async(request)).await;
    connected.map(|(socket, _)| Client(socket))
}

/// A connected client.
pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("the connection lives");
    }

    /// Queues a frame; [`Client::flush`] sends all that are queued. `false` when it is over.
    pub(crate) async fn feed(&mut self, frame: &Value) -> bool {
        self.0.feed(Message::text(frame.to_string())).await.is_ok()
    }

    pub(crate) async fn flush(&mut self) -> bool {
        self.0.flush().await.is_ok()
    }

    /// The next message that is no ping; `None` when the connection broke.
    async fn next(&mut self) -> Option<Message> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return other.and_then(Result::ok),
                }
            }
        };
        soon("a frame", next).await
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn try_hear(&mut self) -> Option<String> {
        loop {
            match self.next().await? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next frame.
    pub(crate) async fn hear(&mut self) -> Value {
        let text = self.try_hear().await.expect("the connection lives");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The next frame of a type.
    pub(crate) async fn hear_type(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.hear().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Asks for something and waits for the answer; other frames are passed over.
    pub(crate) async fn ask(&mut self, mut request: Value) -> Value {
        request["id"] = json!("asked");
        self.say(&request).await;
        loop {
            let frame = self.hear().await;
            if frame["id"] == "asked" {
                return frame;
            }
        }
    }

    /// The code of a request's refusal, or the type of its answer.
    pub(crate) async fn outcome(&mut self, request: Value) -> String {
        let answer = self.ask(request).await;
        let word = if answer["type"] == "error" { &answer["code"] } else { &answer["type"] };
        word.as_str().expect("a word").to_owned()
    }

    /// Subscribes to what the request names; the answer.
    pub(crate) async fn subscribe(&mut self, what: Value) -> Value {
        let mut request = what;
        request["type"] = json!("subscribe");
        let answer = self.ask(request).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Reads on until the server ends the connection: the last frame before, and code and reason.
    pub(crate) async fn end(&mut self) -> (Value, u16, String) {
        let mut last = Value::Null;
        loop {
            match self.next().await.expect("a close frame before the end") {
                Message::Text(text) => last = serde_json::from_str(&text).expect("JSON"),
                Message::Close(close) => {
                    let close = close.expect("a code");
                    return (last, close.code.into(), close.reason.as_str().to_owned());
                }
                _ => {}
            }
        }
    }
}
