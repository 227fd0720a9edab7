//! A key server on loopback that counts requests, and can be slow or broken.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::{Signer, soon};

/// Serves one answer at every path until dropped.
pub(crate) struct KeyServer {
    url: String,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    answer: watch::Sender<Answer>,
    requests: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    location: Option<String>,
    body: Bytes,
}

impl KeyServer {
    /// Publishes the keys of these signers.
    pub(crate) async fn of(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let state = Arc::new(State {
            answer: watch::Sender::new(ok(key_set(signers).to_string())),
            requests: watch::Sender::new(0),
            is_open: watch::Sender::new(true),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { url, state, task }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// How many requests have come in.
    pub(crate) fn requests(&self) -> usize {
        *self.state.requests.borrow()
    }

    /// Waits until so many requests have come in.
    pub(crate) async fn has_requests(&self, count: usize) {
        let mut requests = self.state.requests.subscribe();
        let reached = requests.wait_for(|requests| *requests >= count);
        soon(&format!("request {count} at the key server"), reached).await.unwrap();
    }

    /// Publishes the keys of these signers from now on.
    pub(crate) fn publish(&self, signers: &[&Signer]) {
        self.answer_with(key_set(signers).to_string());
    }

    /// Answers with this body from now on.
    pub(crate) fn answer_with(&self, body: String) {
        self.state.answer.send_replace(ok(body));
    }

    /// Answers with this status, and the right keys.
    pub(crate) fn fail_with(&self, status: u16) {
        self.state.answer.send_modify(|answer| answer.status = status);
    }

    /// Sends whoever asks to this URL.
    pub(crate) fn redirect_to(&self, url: String) {
        let answer = Answer { status: 302, location: Some(url), body: Bytes::new() };
        self.state.answer.send_replace(answer);
    }

    /// Lets no answer out until [`KeyServer::open`].
    pub(crate) fn hold(&self) {
        self.state.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.state.is_open.send_replace(true);
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_set(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

fn ok(body: String) -> Answer {
    Answer { status: 200, location: None, body: body.into() }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |_: Request<_>| answer(Arc::clone(&state)));
    // A client that goes away is of no interest.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    state.requests.send_modify(|requests| *requests += 1);
    let _ = state.is_open.subscribe().wait_for(|is_open| *is_open).await;
    let answer = state.answer.borrow().clone();
    let mut response = Response::builder().status(answer.status);
    if let Some(location) = answer.location {
        response = response.header("location", location);
    }
    Ok(response.body(Full::new(answer.body)).unwrap())
}
