//! A client that speaks HTTP byte by byte, from an address of its own.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::soon;

/// A connection from an address of this machine.
pub(crate) struct Peer {
    socket: TcpStream,
    /// What was read and not looked at.
    read: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(from: &str, to: SocketAddr) -> Self {
        Self::try_connect(from, to).await.expect("the server takes the connection")
    }

    pub(crate) async fn try_connect(from: &str, to: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
        let socket = soon("a connection", socket.connect(to)).await?;
        Ok(Self { socket, read: Vec::new() })
    }

    /// Sends a request's head; lines beside the first two are given.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, lines: &str) {
        let host = self.socket.peer_addr().expect("connected");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
        self.send(head.as_bytes()).await;
    }

    /// Sends bytes; a server that has ended the connection does not take them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// The status of the next answer; 0 when the connection ended before.
    pub(crate) async fn status(&mut self) -> u16 {
        let head = soon("an answer", self.until("\r\n\r\n")).await;
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        status.unwrap_or(0)
    }

    /// Reads on until the text came, or the end.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        loop {
            let all = String::from_utf8_lossy(&self.read).into_owned();
            if let Some(at) = all.find(text) {
                self.read.drain(..at + text.len());
                return all[..at].to_owned();
            }
            if !matches!(self.socket.read_buf(&mut self.read).await, Ok(1..)) {
                return all;
            }
        }
    }

    /// Whether these bytes come before the end of the connection.
    pub(crate) async fn gets(&mut self, bytes: &[u8]) -> bool {
        let came = async {
            loop {
                if self.read.windows(bytes.len()).any(|window| window == bytes) {
                    return true;
                }
                if !matches!(self.socket.read_buf(&mut self.read).await, Ok(1..)) {
                    return false;
                }
            }
        };
        soon("these bytes", came).await
    }

    /// Says that nothing more is sent.
    pub(crate) async fn finish(&mut self) {
        self.socket.shutdown().await.expect("the connection lives");
    }

    /// Asks for a WebSocket; the status.
    pub(crate) async fn upgrade(&mut self, path: &str) -> u16 {
        let lines = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.ask("GET", path, lines).await;
        self.status().await
    }
}
