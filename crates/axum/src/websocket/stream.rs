//! A WebSocket on anything but plain TCP: TLS, or a stream of an HTTP/2 connection.
//!
//! Here the engine cannot write by itself, so the task takes what waits and writes it. While the
//! client takes nothing, nothing more is taken from the session, which then goes on from history.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tidewire::{Node, Opening, Outgoing, Session};
use tidewire_protocol::{Close, Wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Admitted, End, Inbound, Message, act, begin, close_frame, parse, reason};
use crate::router::Transports;
use crate::socket::{BUFFER, FAREWELL, FAREWELL_BYTES};

/// Opens a session on the stream and gives it a task.
pub(super) async fn start<IO>(transports: &Transports, admitted: Admitted, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Admitted { dialect, identity, client, place, socket: held, wishes } = admitted;
    let node = transports.node().clone();
    let opening = Opening::new(dialect, Wire::WebSocket, identity).peer(client).place(place);
    let mut session = node.open(opening).expect("a place was taken");
    begin(&mut session, wishes).await;
    let mut connection = Connection {
        node,
        session,
        io,
        inbound: Inbound::default(),
        outbound: Outbound::default(),
    };
    transports.tasks().spawn(async move {
        connection.run().await;
        drop(held);
    });
}

struct Connection<IO> {
    node: Node,
    session: Session,
    io: IO,
    inbound: Inbound,
    outbound: Outbound,
}

/// Bytes taken from the session that the stream has not taken yet.
#[derive(Default)]
struct Outbound {
    bytes: Bytes,
    /// What was written may still be inside the stream.
    flushing: bool,
    /// Since when nothing was taken.
    stalled: Option<Instant>,
}

/// What came of one turn with the stream.
enum Heard {
    /// The session has something to write, or to go on with.
    Ready,
    /// Some bytes were written, or all of them.
    Progress,
    /// Something was read.
    Messages(Vec<Message>, Result<(), End>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    async fn run(&mut self) {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        Box::pin(self.finish(end)).await;
    }

    async fn turn(&mut self) -> Result<(), End> {
        let limits = self.node.limits();
        let Self { session, io, inbound, outbound, .. } = self;
        let deadline = outbound.stalled.map(|since| since + limits.write_timeout);
        let heard = tokio::select! {
            biased;
            // 1. The engine speaks, or ends the session.
            ready = session.ready(), if outbound.is_empty() => {
                ready.map_err(End::Server)?;
                Heard::Ready
            }
            // 2. The client speaks, or takes bytes.
            heard = poll_fn(|cx| outbound.poll(io, inbound, limits.message_bytes, cx)) => heard?,
            // 3. The client takes nothing for too long.
            () = passed(deadline) => return Err(End::Server(Close::SlowConsumer)),
        };
        match heard {
            Heard::Progress => Ok(()),
            Heard::Ready => {
                session.go_on().await;
                outbound.fill(session.take());
                Ok(())
            }
            Heard::Messages(messages, result) => {
                session.heard();
                Box::pin(act(session, messages)).await?;
                result
            }
        }
    }

    /// Says goodbye in the dialect and in the protocol, as far as the client still listens.
    async fn finish(&mut self, end: End) {
        self.session.close(reason(end));
        if end == End::Gone {
            return;
        }
        let mut rest = BytesMut::from(&self.outbound.bytes[..]);
        for outgoing in self.session.take() {
            rest.extend_from_slice(&outgoing.bytes);
        }
        let io = &mut self.io;
        let farewell = async {
            // It may be slow, but must take something in each second.
            while rest.has_remaining() {
                let written = timeout(FAREWELL, io.write(&rest)).await??;
                rest.advance(written);
            }
            timeout(FAREWELL, say_goodbye(io, end)).await?
        };
        if let Ok(Ok(())) = timeout(self.node.limits().write_timeout, farewell).await {
            let _ = timeout(FAREWELL, hear_out(io)).await;
        }
    }
}

impl Outbound {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.flushing
    }

    /// Takes over what waits, as one piece: one TLS record costs more than a copy.
    fn fill(&mut self, mut taken: Vec<Outgoing>) {
        self.bytes = if taken.len() == 1 {
            taken.remove(0).bytes
        } else {
            let mut joined = BytesMut::new();
            taken.iter().for_each(|outgoing| joined.extend_from_slice(&outgoing.bytes));
            joined.freeze()
        };
        self.stalled = (!self.bytes.is_empty()).then(Instant::now);
    }

    /// Writes what waits and reads what came, whichever the stream is ready for.
    fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        inbound: &mut Inbound,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Heard, End>> {
        if !self.is_empty() && self.poll_write(io, cx)?.is_ready() {
            return Poll::Ready(Ok(Heard::Progress));
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut unread = ReadBuf::new(buffer);
            match Pin::new(io).poll_read(cx, &mut unread) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if unread.filled().is_empty() => Poll::Ready(Err(End::Gone)),
                Poll::Ready(Ok(())) => {
                    let (messages, result) = parse(inbound, unread.filled_mut(), limit);
                    Poll::Ready(Ok(Heard::Messages(messages, result)))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(End::Gone)),
            }
        })
    }

    fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            let flushed = Pin::new(io).poll_flush(cx);
            if flushed.is_ready() {
                self.flushing = false;
                self.stalled = None;
            }
            return flushed;
        }
        match Pin::new(io).poll_write(cx, &self.bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => {
                self.bytes.advance(written);
                self.flushing = true;
                self.stalled = Some(Instant::now());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

/// Ends at the deadline; never without one.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Writes the close frame, and that nothing follows it.
async fn say_goodbye<IO: AsyncWrite + Unpin>(io: &mut IO, end: End) -> io::Result<()> {
    let Some(frame) = close_frame(end) else { return Ok(()) };
    io.write_all(&frame).await?;
    io.shutdown().await
}

/// Reads until the client ends its side, which it does once it has read the close frame.
async fn hear_out<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<()> {
    let mut buffer = vec![0; 4_096];
    let mut heard = 0;
    while heard < FAREWELL_BYTES {
        match io.read(&mut buffer).await? {
            0 => return Ok(()),
            count => heard += count,
        }
    }
    Ok(())
}
