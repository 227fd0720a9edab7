//! A stream of one topic on plain TCP: the engine writes into the socket, this task waits.
//!
//! The body ends with the connection, so that no framing of HTTP stands between the bytes that all
//! listeners of a topic share and the socket; and nothing of HTTP is held while the stream lives.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tidewire::{Outlet, Session};
use tidewire_protocol::Close;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::last_words;
use crate::listen::SocketPlace;
use crate::router::Transports;
use crate::socket::{
    FAREWELL, forget_who_waited, hear_out, or_nothing, put, try_read, writable_soon,
};
use crate::takeover::Given;

/// Bytes read and thrown away of a client that goes on sending; a browser sends none.
const HEARD_BYTES: usize = 64 << 10;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 10;

/// The socket of a session that is opened before its connection is given away.
#[derive(Clone, Default)]
pub(super) struct Late(Arc<OnceLock<TcpStream>>);

impl Outlet for Late {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get().map_or(Ok(0), |socket| or_nothing(socket.try_write(bytes)))
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get().map_or(Ok(0), |socket| or_nothing(socket.try_write_vectored(buffers)))
    }
}

impl Late {
    /// Writes what comes first, and from then on what the session says.
    pub(super) async fn begin(
        self,
        transports: Transports,
        session: Session,
        held: Option<Arc<SocketPlace>>,
        first: Bytes,
        given: Given,
    ) {
        let Given { socket, head, early, .. } = given;
        let patience = transports.node().limits().write_timeout;
        let hello = [&head[..], &first[..]].concat();
        if !matches!(timeout(patience, put(&socket, &hello)).await, Ok(Ok(()))) {
            return;
        }
        forget_who_waited(&socket);
        // Nobody else sets it: there is one answer to a request.
        let _ = self.0.set(socket);
        let heard = early.len();
        let mut stream = Stream { session, late: self, full: false, heard, patience };
        transports.tasks().spawn(async move {
            stream.run().await;
            drop(held);
        });
    }
}

struct Stream {
    session: Session,
    late: Late,
    /// The socket takes nothing at the moment.
    full: bool,
    /// Bytes the client sent after its request.
    heard: usize,
    /// How long its goodbye may take in all.
    patience: Duration,
}

/// Nobody reads any more.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Stream {
    async fn run(&mut self) {
        let Some(socket) = self.late.0.get() else { return };
        let (session, full, heard) = (&mut self.session, &mut self.full, &mut self.heard);
        let end = loop {
            match turn(session, socket, full, heard).await {
                Ok(None) => {}
                Ok(Some(why)) => break Some(why),
                Err(Gone) => break None,
            }
        };
        session.close(end.unwrap_or(Close::Normal));
        if let Some(why) = end {
            // A client that does not take it in time is not told.
            let _ = Box::pin(timeout(self.patience, farewell(session, socket, why))).await;
        }
    }
}

/// Waits for either side, then writes what there is; why the session ends, if it does.
async fn turn(
    session: &mut Session,
    socket: &TcpStream,
    full: &mut bool,
    heard: &mut usize,
) -> Result<Option<Close>, Gone> {
    let interest = match *full {
        true => Interest::READABLE | Interest::WRITABLE,
        false => Interest::READABLE,
    };
    tokio::select! {
        biased;
        // 1. The engine speaks, or ends the session.
        ready = session.ready() => if let Err(why) = ready { return Ok(Some(why)) },
        // 2. The client goes away, or takes bytes again.
        ready = socket.ready(interest) => { ready?; }
    }
    *full = !session.flush()?;
    hear(socket, heard)?;
    Ok(None)
}

/// Reads once, without a system call when nothing has come; the only thing to learn is the end.
fn hear(socket: &TcpStream, heard: &mut usize) -> Result<(), Gone> {
    match try_read(socket, &mut [0; READ_BYTES]) {
        Ok(0) => return Err(Gone),
        Ok(count) => *heard += count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => return Err(Gone),
    }
    if *heard > HEARD_BYTES { Err(Gone) } else { Ok(()) }
}

/// The last bytes: what waits, what the dialect says, and when a browser should come back.
async fn farewell(session: &mut Session, socket: &TcpStream, why: Close) -> io::Result<()> {
    while !session.flush()? {
        writable_soon(socket).await?;
    }
    timeout(FAREWELL, put(socket, &last_words(why))).await??;
    SockRef::from(socket).shutdown(Shutdown::Write)?;
    timeout(FAREWELL, hear_out(socket)).await?
}
