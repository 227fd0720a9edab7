//! A bare socket: what transports do with one that is their own.

use std::cell::RefCell;
use std::io::{self, Read};
use std::task::{Context, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes read at once: a burst of a busy client, and little enough for one per thread.
const READ_BYTES: usize = 16 << 10;

/// Time for the last bytes to be taken, and then for the client to end its side.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes read and thrown away while waiting for the client to end its side.
///
/// A socket that is closed with bytes unread sends a reset, which may overtake what was said last;
/// but a client that only goes on sending is not listened to for long.
pub(crate) const FAREWELL_BYTES: usize = 1 << 20;

thread_local! {
    /// Where every connection of a thread reads into, one after the other.
    pub(crate) static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Reads what is there. When that fills only part of the buffer it was all, so the next wait is for
/// the next bytes, without a system call that finds nothing.
///
/// The poller tells of edges: bytes that come after the read are a new one. Tokio's own `try_read`
/// finds out by a second read; its `AsyncRead` does the same as this.
///
/// # Errors
/// `WouldBlock` when nothing is there, and whatever ends the connection.
pub(crate) fn try_read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut all = None;
    let read = socket.try_io(Interest::READABLE, || {
        let count = (&*SockRef::from(socket)).read(buffer)?;
        if count == 0 || count == buffer.len() {
            return Ok(count);
        }
        all = Some(count);
        // Has the socket count as not readable until the poller says otherwise.
        Err(io::ErrorKind::WouldBlock.into())
    });
    all.map_or(read, Ok)
}

/// A socket that would block takes nothing.
pub(crate) fn or_nothing(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Writes all of it. Not cancel safe: part of it may have been written.
pub(crate) async fn put(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match or_nothing(socket.try_write(bytes))? {
            0 => socket.writable().await?,
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Waits for room in the socket, as long as a client is waited for that is being said goodbye to: it
/// may be slow, but must take something in each [`FAREWELL`].
///
/// # Errors
/// `TimedOut` when it took nothing, and whatever ends the connection.
pub(crate) async fn writable_soon(socket: &TcpStream) -> io::Result<()> {
    let waited = timeout(FAREWELL, socket.writable()).await;
    waited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads until the client ends its side, which it does once it has read our last bytes.
pub(crate) async fn hear_out(socket: &TcpStream) -> io::Result<()> {
    let mut heard = 0;
    while heard < FAREWELL_BYTES {
        socket.readable().await?;
        match BUFFER.with_borrow_mut(|buffer| try_read(socket, buffer)) {
            Ok(0) => return Ok(()),
            Ok(count) => heard += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has nobody wait for the socket any more.
///
/// The socket still holds the waker of the task that spoke HTTP on it, until the client's next
/// byte; and a waker keeps its task's memory, which is three times what a session needs.
pub(crate) fn forget_who_waited(socket: &TcpStream) {
    let mut nobody = Context::from_waker(Waker::noop());
    let _ = socket.poll_read_ready(&mut nobody);
    let _ = socket.poll_write_ready(&mut nobody);
}
