//! HTTP requests, one connection each, and answers that may be streams.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::soon;

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, Method::GET, path, &[], "").await
}

pub(crate) async fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(address, Method::GET, path, headers, "").await
}

/// Posts JSON.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    post_with(address, path, &[], body).await
}

pub(crate) async fn post_with(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    request(address, Method::POST, path, &all, &body.to_string()).await
}

/// The same of a server that may be gone, or may go before it answers.
pub(crate) async fn try_get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Answer> {
    try_request(address, Method::GET, path, headers, "").await
}

pub(crate) async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    try_request(address, method, path, headers, body).await.expect("an answer")
}

async fn try_request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let socket = soon("a connection", TcpStream::connect(address)).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.ok()?;
    let task = tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a good address");
    let host = HeaderValue::try_from(address.to_string()).expect("an address is a host");
    request.headers_mut().insert("host", host);
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a good header");
        let value = value.parse().expect("a good header");
        match name.as_str() {
            "host" => drop(request.headers_mut().insert(name, value)),
            _ => drop(request.headers_mut().append(name, value)),
        }
    }
    let response = soon("an answer", sender.send_request(request)).await.ok()?;
    let (head, body) = response.into_parts();
    let (status, headers) = (head.status.as_u16(), head.headers);
    let (text, looked_at, searched) = (String::new(), 0, 0);
    Some(Answer { status, headers, body, text, looked_at, searched, task })
}

/// A value for a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// An answer being read; dropping it ends its connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Incoming,
    /// What was read of the body.
    text: String,
    /// Bytes of it that were looked at.
    looked_at: usize,
    /// Bytes of it in which no end of an event is; one may be very long.
    searched: usize,
    task: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The rest of the body as text.
    pub(crate) async fn rest(mut self) -> String {
        while self.read().await {}
        self.text.split_off(self.looked_at)
    }

    /// The body of an answer that is whole, as JSON; `None` when the connection broke.
    pub(crate) async fn try_json(self) -> Option<Value> {
        serde_json::from_str(&self.rest().await).ok()
    }

    pub(crate) async fn json(self) -> Value {
        let text = self.rest().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The body of an answer that is 200.
    pub(crate) async fn good(self) -> Value {
        let status = self.status;
        let body = self.json().await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Status and code of a refusal.
    pub(crate) async fn refused(self) -> (u16, String) {
        let status = self.status;
        let body = self.json().await;
        (status, body["error"]["code"].as_str().unwrap_or("no refusal").to_owned())
    }

    async fn read(&mut self) -> bool {
        let frame = soon("more of the body", self.body.frame()).await;
        let Some(Ok(frame)) = frame else { return false };
        if let Ok(data) = frame.into_data() {
            self.text.drain(..std::mem::take(&mut self.looked_at));
            // The last byte may be the first half of an end.
            self.searched = self.text.strip_suffix('\n').unwrap_or(&self.text).len();
            self.text.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
        true
    }

    /// The next event of a stream; `None` at its end.
    pub(crate) async fn next_sse(&mut self) -> Option<Sse> {
        loop {
            while let Some(at) = self.text[self.searched..].find("\n\n") {
                let end = self.searched + at;
                let event = Sse::read(&self.text[self.looked_at..end]);
                (self.looked_at, self.searched) = (end + 2, end + 2);
                if event.data.is_some() || event.retry.is_some() {
                    return Some(event);
                }
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next event that reaches `onmessage`.
    pub(crate) async fn message(&mut self) -> Sse {
        loop {
            let event = self.next_sse().await.expect("the stream goes on");
            if event.data.is_some() && matches!(event.name.as_deref(), None | Some("message")) {
                return event;
            }
        }
    }

    /// The next event of the given name.
    pub(crate) async fn named(&mut self, name: &str) -> Sse {
        loop {
            let event = self.next_sse().await.expect("the stream goes on");
            if event.name.as_deref() == Some(name) {
                return event;
            }
        }
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sse {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) retry: Option<u64>,
    data: Option<String>,
}

impl Sse {
    fn read(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => event.id = Some(id.into()),
                Some(("event", name)) => event.name = Some(name.into()),
                Some(("retry", pause)) => event.retry = pause.parse().ok(),
                Some(("data", line)) => event.data.get_or_insert_default().push_str(line),
                _ => {}
            }
        }
        event
    }

    pub(crate) fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }

    pub(crate) fn text(&self) -> &str {
        self.data().expect("data")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).expect("JSON")
    }
}
