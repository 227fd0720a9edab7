//! A WebSocket on plain TCP: the engine writes into the socket, this task reads and waits.
//!
//! Most bytes are written by whoever publishes, straight from the mailbox. This task comes in when
//! the socket is full, when the client speaks, and at the end.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use socket2::SockRef;
use tidewire::{Node, Opening, Outlet, Session};
use tidewire_protocol::Wire;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Admitted, End, Inbound, Message, act, begin, close_frame, parse, reason};
use crate::router::Transports;
use crate::socket::{
    BUFFER, FAREWELL, forget_who_waited, hear_out, or_nothing, put, try_read, writable_soon,
};
use crate::takeover::Given;

/// The socket as the engine's mailbox writes into it.
struct Socket(Arc<TcpStream>);

impl Outlet for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        or_nothing(self.0.try_write(bytes))
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        or_nothing(self.0.try_write_vectored(buffers))
    }
}

/// Opens a session on the socket and gives it a task; the handshake's answer, if it was not
/// written yet, leaves with the session's first words.
pub(super) async fn start(transports: &Transports, admitted: Admitted, given: Given) {
    let Given { socket, head, early } = given;
    let Admitted { dialect, identity, client, place, socket: held, wishes } = admitted;
    forget_who_waited(&socket);
    let socket = Arc::new(socket);
    let node = transports.node().clone();
    let outlet = Box::new(Socket(Arc::clone(&socket)));
    let opening = Opening::new(dialect, Wire::WebSocket, identity);
    let opening = opening.peer(client).place(place).outlet(outlet);
    let mut session = node.open(opening).expect("a place was taken");
    if !head.is_empty() {
        session.push_raw(head);
    }
    begin(&mut session, wishes).await;
    let inbound = Inbound::default();
    let mut connection = Connection { node, session, socket, inbound, full: false };
    let begun = match early.is_empty() {
        true => Ok(()),
        false => Box::pin(connection.begin(early.to_vec())).await,
    };
    // The block uses the connection in place; a function that took it would hold it twice.
    transports.tasks().spawn(async move {
        connection.run(begun).await;
        drop(held);
    });
}

struct Connection {
    node: Node,
    session: Session,
    socket: Arc<TcpStream>,
    inbound: Inbound,
    /// The socket takes nothing at the moment.
    full: bool,
}

impl Connection {
    async fn run(&mut self, begun: Result<(), End>) {
        let mut end = begun;
        while end.is_ok() {
            end = self.turn().await;
        }
        if let Err(end) = end {
            // Rarely run, so it takes no room in the task until then.
            Box::pin(self.finish(end)).await;
        }
    }

    /// Acts on what came along with the handshake.
    async fn begin(&mut self, mut early: Vec<u8>) -> Result<(), End> {
        let limit = self.node.limits().message_bytes;
        let (messages, result) = parse(&mut self.inbound, &mut early, limit);
        act(&mut self.session, messages).await?;
        result
    }

    /// Waits for either side, then writes and reads what there is.
    async fn turn(&mut self) -> Result<(), End> {
        let interest = match self.full {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        tokio::select! {
            biased;
            // 1. The engine speaks, or ends the session.
            ready = self.session.ready() => ready.map_err(End::Server)?,
            // 2. The client speaks, or takes bytes again.
            ready = self.socket.ready(interest) => { ready?; }
        }
        self.session.go_on().await;
        self.full = !self.session.flush()?;
        self.hear().await
    }

    /// Reads once, without a system call when nothing has come.
    async fn hear(&mut self) -> Result<(), End> {
        let Some((messages, result)) = self.read()? else { return Ok(()) };
        self.session.heard();
        if !messages.is_empty() {
            // What a request needs is held only while it is carried out.
            Box::pin(act(&mut self.session, messages)).await?;
            self.full = !self.session.flush()?;
        }
        result
    }

    #[expect(clippy::type_complexity, reason = "one caller, right above")]
    fn read(&mut self) -> Result<Option<(Vec<Message>, Result<(), End>)>, End> {
        BUFFER.with_borrow_mut(|buffer| match try_read(&self.socket, buffer) {
            Ok(0) => Err(End::Gone),
            Ok(count) => {
                let limit = self.node.limits().message_bytes;
                Ok(Some(parse(&mut self.inbound, &mut buffer[..count], limit)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(End::Gone),
        })
    }

    /// Says goodbye in the dialect and in the protocol, as far as the client still listens.
    async fn finish(&mut self, end: End) {
        self.session.close(reason(end));
        if end == End::Gone {
            return;
        }
        let patience = self.node.limits().write_timeout;
        let farewell = async {
            while !self.session.flush()? {
                writable_soon(&self.socket).await?;
            }
            timeout(FAREWELL, say_goodbye(&self.socket, end)).await?
        };
        // A client that does not take it in time is not told.
        let _ = timeout(patience, farewell).await;
        let _ = timeout(FAREWELL, hear_out(&self.socket)).await;
    }
}

/// Writes the close frame, and that nothing follows it.
async fn say_goodbye(socket: &TcpStream, end: End) -> io::Result<()> {
    let Some(frame) = close_frame(end) else { return Ok(()) };
    put(socket, &frame).await?;
    SockRef::from(socket).shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use tidewire::Identity;
    use tidewire::protocol::dialect::Native;
    use tokio::net::TcpListener;

    use super::*;

    /// Bytes of the task of one idle connection at most, of the 3.5 KiB that one may cost in all.
    const TASK_BYTES: usize = 1_024;

    #[tokio::test]
    async fn the_task_of_an_idle_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let node = Node::builder().start();
        let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
        let session = node.open(opening).unwrap();
        let (socket, inbound) = (Arc::new(socket), Inbound::default());
        let mut connection = Connection { node, session, socket, inbound, full: false };
        let bytes = size_of_val(&async move { connection.run(Ok(())).await });
        assert!(bytes <= TASK_BYTES, "{bytes}");
    }
}
