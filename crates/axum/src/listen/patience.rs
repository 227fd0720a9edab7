//! A socket that gives up on a peer who takes no byte for too long.
//!
//! HTTP answers are written by hyper, which waits for ever; an event stream whose client never
//! reads would keep its session for as long. A WebSocket takes the bare socket out of this again,
//! since its session sees to that itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Whether a connection's peer was given up; goes with each request, so that a stream which ends
/// with its connection knows why.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A stream whose writes fail once nothing was taken for the given time.
#[derive(Debug)]
pub(crate) struct Patient<IO> {
    io: IO,
    timeout: Duration,
    given_up: GivenUp,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<IO> Patient<IO> {
    pub(crate) fn new(io: IO, timeout: Duration, given_up: GivenUp) -> Self {
        Self { io, timeout, given_up, deadline: None }
    }

    /// The bare stream.
    pub(crate) fn into_inner(self) -> IO {
        self.io
    }

    /// Starts the clock while `polled` waits, stops it when something was taken.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        self.given_up.give_up();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Patient<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Patient<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.timed(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, buffers);
        self.timed(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.timed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.timed(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let given_up = GivenUp::default();
        let mut patient = Patient::new(ours, TIMEOUT, given_up.clone());
        assert!(!given_up.is_so());
        let refused = patient.write_all(&[0; 100]).await.unwrap_err();
        assert!(given_up.is_so());
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_is_not() {
        let (ours, mut theirs) = duplex(16);
        let mut patient = Patient::new(ours, TIMEOUT, GivenUp::default());
        let reader = tokio::spawn(async move {
            let mut some = [0; 16];
            let mut total = 0;
            while total < 160 {
                tokio::time::sleep(TIMEOUT / 2).await;
                total += theirs.read(&mut some).await.unwrap();
            }
        });
        patient.write_all(&[0; 160]).await.unwrap();
        reader.await.unwrap();
    }
}
