//! A connection to a server in the native dialect, for the commands that are clients.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Time for the TCP connection, TLS and the upgrade together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which the server is taken for gone: it pings far more often.
const SILENCE: Duration = Duration::from_secs(90);

/// A connection whose welcome was read.
pub(super) struct Remote {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Remote {
    /// Connects to the server at a base address, `http://…` or `https://…`.
    pub(super) async fn connect(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let mut request = websocket_address(url)?.into_client_request()?;
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .context("the token has characters that no token has")?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let connected =
            tokio::time::timeout(CONNECT_TIMEOUT, tokio_tungstenite::connect_async(request)).await;
        let (socket, _) = connected
            .with_context(|| format!("no answer from {url}"))?
            .with_context(|| format!("connecting to {url}"))?;
        let mut remote = Self { socket };
        let welcome = remote.next().await?;
        if welcome["type"] != "welcome" {
            bail!("{url} does not speak Tidewire's language");
        }
        Ok(remote)
    }

    /// Sends one request.
    pub(super) async fn send(&mut self, request: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(request.to_string())).await?)
    }

    /// The next frame of the server. Cancel safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.next_text().await?)?)
    }

    /// The next frame as it came: in a [`Value`], a number would lose digits. Cancel safe.
    pub(super) async fn next_text(&mut self) -> anyhow::Result<Utf8Bytes> {
        loop {
            let message = tokio::time::timeout(SILENCE, self.socket.next()).await;
            match message.context("the server is silent")? {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(_))) | None => bail!("the server ended the connection"),
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Ends the connection.
    pub(super) async fn close(mut self) {
        // The server notices either way.
        let _ = self.socket.close(None).await;
    }
}

fn websocket_address(url: &str) -> anyhow::Result<String> {
    let base = url.trim_end_matches('/');
    for (http, websocket) in [("http://", "ws://"), ("https://", "wss://")] {
        if let Some(rest) = base.strip_prefix(http) {
            return Ok(format!("{websocket}{rest}/v1/ws"));
        }
    }
    bail!("the server's address begins with http:// or https://, not {url:?}")
}
