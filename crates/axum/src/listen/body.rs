//! A request's body with a deadline, so that a client who sends it byte by byte is not waited for,
//! and counted, so that it does not take more memory than one may.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::bodies::BodyShare;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not come within {0:?}")]
struct Late(Duration);

/// A body that must be read to its end in time; the clock starts with the first read.
pub(super) struct Timely {
    body: Incoming,
    share: BodyShare,
    timeout: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Timely {
    /// The body with its deadline.
    pub(super) fn wrap(body: Incoming, share: BodyShare, timeout: Duration) -> Body {
        Body::new(Self { body, share, timeout, deadline: None })
    }
}

impl Timely {
    /// What came, if it is not too much of what is in memory.
    fn counted(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.share.grow(bytes)?;
        Ok(frame)
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| self.counted(frame?)));
        }
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(cx).map(|()| Some(Err(Late(timeout).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
