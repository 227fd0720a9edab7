//! A socket that can be left alone for a moment, so that bytes gather in it.
//!
//! Tokio is told by the kernel of every piece that arrives, whether or not anybody waits for one.
//! A server that sends a row at a time wakes this process a few hundred thousand times a second
//! that way, which costs more than all that is done with the rows. A socket at rest is out of
//! Tokio's sight; the next read takes what is there and brings it back only if that is nothing.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::poll_proceed;

/// Bytes asked for at a time from a socket at rest. More than gather in a rest, and few enough to
/// be cleared beforehand for nothing.
const PIECE: usize = 64 * 1024;

/// A socket that Tokio watches, and the same one when it does not.
pub(crate) trait Watched: AsyncRead + AsyncWrite + Unpin + Sized {
    /// It when it is not watched; reading from it does not wait.
    type Unwatched: Read;

    fn unwatch(self) -> io::Result<Self::Unwatched>;
    fn watch(socket: Self::Unwatched) -> io::Result<Self>;
}

impl Watched for TcpStream {
    type Unwatched = std::net::TcpStream;

    fn unwatch(self) -> io::Result<Self::Unwatched> {
        self.into_std()
    }

    fn watch(socket: Self::Unwatched) -> io::Result<Self> {
        Self::from_std(socket)
    }
}

impl Watched for UnixStream {
    type Unwatched = std::os::unix::net::UnixStream;

    fn unwatch(self) -> io::Result<Self::Unwatched> {
        self.into_std()
    }

    fn watch(socket: Self::Unwatched) -> io::Result<Self> {
        Self::from_std(socket)
    }
}

/// A socket, watched or at rest.
pub(crate) struct Socket<S: Watched>(State<S, S::Unwatched>);

enum State<S, U> {
    Watched(S),
    AtRest(U),
    /// Tokio could not let go of it or take it back.
    Broken,
}

impl<S: Watched> Socket<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(State::Watched(socket))
    }

    /// Leaves the socket alone until it is next read from or written to.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, State::Broken) {
            State::Watched(socket) => State::AtRest(socket.unwatch()?),
            other => other,
        };
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Pin<&mut S>> {
        self.0 = match std::mem::replace(&mut self.0, State::Broken) {
            State::AtRest(socket) => State::Watched(S::watch(socket)?),
            other => other,
        };
        match &mut self.0 {
            State::Watched(socket) => Ok(Pin::new(socket)),
            _ => Err(io::Error::other("the socket cannot be watched any more")),
        }
    }
}

impl<S: Watched> AsyncRead for Socket<S>
where
    S::Unwatched: Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let State::AtRest(socket) = &mut this.0 {
            let turn = ready!(poll_proceed(cx));
            match socket.read(buf.initialize_unfilled_to(buf.remaining().min(PIECE))) {
                Ok(read) => {
                    turn.made_progress();
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        this.watched()?.poll_read(cx, buf)
    }
}

impl<S: Watched> AsyncWrite for Socket<S>
where
    S::Unwatched: Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().watched()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().watched()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().watched()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_came_while_it_rested_is_read_and_what_comes_later_is_waited_for() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut near = Socket::new(near);
        let mut bytes = [0; 16];
        for _ in 0..3 {
            near.rest().unwrap();
            near.rest().unwrap();
            far.write_all(b"one").await.unwrap();
            far.write_all(b"two").await.unwrap();
            assert_eq!(near.read(&mut bytes).await.unwrap(), 6);
            assert_eq!(&bytes[..6], b"onetwo");
            near.rest().unwrap();
            let (read, wrote) = tokio::join!(near.read(&mut bytes), async {
                tokio::task::yield_now().await;
                far.write_all(b"later").await
            });
            wrote.unwrap();
            assert_eq!(read.unwrap(), 5);
        }
        near.rest().unwrap();
        near.write_all(b"answer").await.unwrap();
        assert_eq!(far.read(&mut bytes).await.unwrap(), 6);
    }

    #[tokio::test]
    async fn an_end_that_came_while_it_rested_is_seen() {
        let (far, near) = UnixStream::pair().unwrap();
        let mut near = Socket::new(near);
        near.rest().unwrap();
        drop(far);
        assert_eq!(near.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
