//! A bare socket: what transports do with one that is their own.

use std::io;
use std::task::{Context, Waker};

use tokio::net::TcpStream;

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

/// Has nobody wait for the socket any more.
///
/// The socket still holds the waker of the task that spoke HTTP on it, until the client's next
/// byte; and a waker keeps its task's memory, which is three times what a session needs.
pub(crate) fn forget_who_waited(socket: &TcpStream) {
    let mut nobody = Context::from_waker(Waker::noop());
    let _ = socket.poll_read_ready(&mut nobody);
    let _ = socket.poll_write_ready(&mut nobody);
}
