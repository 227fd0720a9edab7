//! How many of a connection's requests are being answered, bodies included.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::SocketPlace;

/// Counts the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct InFlight(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    count: AtomicUsize,
    place: Arc<SocketPlace>,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Request(InFlight);

impl InFlight {
    pub(super) fn on(place: &Arc<SocketPlace>) -> Self {
        Self(Arc::new(Counted { count: AtomicUsize::new(0), place: Arc::clone(place) }))
    }

    pub(super) fn begin(&self) -> Request {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.place.begin_request();
        Request(self.clone())
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_none(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let Counted { count, place } = &*self.0.0;
        if count.fetch_sub(1, Ordering::Relaxed) == 1 {
            place.end_request();
        }
    }
}

impl Request {
    /// The request is answered when the body was taken.
    pub(super) fn until_taken(self, response: Response) -> Response {
        response.map(|body| Body::new(Taken { body, _request: self }))
    }
}

/// A body with the request that it answers.
struct Taken {
    body: Body,
    _request: Request,
}

impl HttpBody for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
