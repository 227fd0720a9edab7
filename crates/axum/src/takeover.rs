//! How a handler is given the connection that its answer goes to.
//!
//! A WebSocket and a stream of one topic have no use for HTTP once the answer's head is written:
//! the engine writes into their socket itself. Where the accept loop can give a socket away it
//! puts a [`Seat`] into the request; a handler that wants it answers with a [`Takeover`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// In a request: its connection can be taken over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat;

/// A connection that was given away.
#[derive(Debug)]
pub(crate) struct Given {
    /// The socket, on which nothing of the answer was written yet.
    pub(crate) socket: TcpStream,
    /// The answer's head, to be written first.
    pub(crate) head: Bytes,
    /// Bytes that came after the request.
    pub(crate) early: Bytes,
}

pub(crate) type Beginning = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Takes a connection over.
pub(crate) type Then = Box<dyn FnOnce(Given) -> Beginning + Send>;

/// In an answer: who takes the connection over.
#[derive(Clone)]
pub(crate) struct Takeover(Arc<Mutex<Option<Then>>>);

impl fmt::Debug for Takeover {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Takeover")
    }
}

impl Takeover {
    /// Puts into the answer that `then` takes the connection.
    pub(crate) fn by<F>(response: &mut Response, then: impl FnOnce(Given) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let then: Then = Box::new(|given| Box::pin(then(given)));
        response.extensions_mut().insert(Self(Arc::new(Mutex::new(Some(then)))));
    }

    /// What takes the answer's connection, if anything does.
    pub(crate) fn of(response: &mut Response) -> Option<Then> {
        let takeover = response.extensions_mut().remove::<Self>()?;
        takeover.0.lock().take()
    }
}
