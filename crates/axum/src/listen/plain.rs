//! HTTP/1.1 on plain TCP for the requests that come all the time, without a buffer while idle.
//!
//! A handshake, a small publication, the beginning of a stream: their bytes are all there at the
//! first read, so nothing has to be kept between reads. Requests go through the same router as all
//! others. At the first one that is not so simple ([`request`] says which are), the connection is
//! left to hyper, with what was read, for the rest of its life.

mod request;
mod response;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::service::Service;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};

use self::response::{Follows, head};
use super::{Door, GivenUp, KEPT_ALIVE, Knock};
use crate::takeover::{Given, Seat, Takeover};

/// Bytes read at once, one buffer for each thread; a longer request is hyper's.
const READ_BYTES: usize = 16 << 10;

/// Bytes that are kept of a client who goes on sending while its request is answered.
const EARLY_BYTES: usize = 16 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection that is to be served by hyper from here on.
pub(super) struct Left {
    pub(super) socket: TcpStream,
    /// What was read and not answered.
    pub(super) read: Bytes,
}

/// What became of a connection with a request.
enum Turn {
    /// It waits for the next request, of which these bytes came already.
    Next(TcpStream, Bytes),
    Over,
    Left(Left),
}

/// Serves the connection; ends when it did, or when it is hyper's.
pub(super) async fn serve(
    door: &Door,
    socket: TcpStream,
    peer: SocketAddr,
    knock: &Knock,
) -> Option<Left> {
    let mut stopping = pin!(door.stop.cancelled());
    let mut idle = pin!(tokio::time::sleep(KEPT_ALIVE));
    let (mut socket, mut early) = (socket, Bytes::new());
    loop {
        let read = match early.is_empty() {
            false => std::mem::take(&mut early),
            true => tokio::select! {
                biased;
                // 1. A request comes, or the client ends the connection.
                read = read(&socket) => read?,
                // 2. The server ends idle connections.
                () = &mut stopping => return None,
                // 3. Nothing came for long; by then a first request was given up elsewhere.
                () = &mut idle => return None,
            },
        };
        let connection = Connection { door, peer, knock };
        match connection.turn(socket, read).await {
            Turn::Next(same, after) => (socket, early) = (same, after),
            Turn::Over => return None,
            Turn::Left(left) => return Some(left),
        }
        put_off(idle.as_mut());
    }
}

/// Starts the clock of idleness anew.
fn put_off(idle: Pin<&mut Sleep>) {
    idle.reset(tokio::time::Instant::now() + KEPT_ALIVE);
}

/// What has come; `None` at the end. Cancel safe.
async fn read(socket: &TcpStream) -> Option<Bytes> {
    loop {
        socket.readable().await.ok()?;
        let read = BUFFER.with_borrow_mut(|buffer| {
            socket.try_read(buffer).map(|count| Bytes::copy_from_slice(&buffer[..count]))
        });
        match read {
            Ok(bytes) if bytes.is_empty() => return None,
            Ok(bytes) => return Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

struct Connection<'door> {
    door: &'door Door,
    peer: SocketAddr,
    knock: &'door Knock,
}

impl Connection<'_> {
    async fn turn(&self, socket: TcpStream, read: Bytes) -> Turn {
        let Some(mut request) = request::read(&read) else {
            return Turn::Left(Left { socket, read });
        };
        drop(read);
        self.knock.answer();
        let given_up = GivenUp::default();
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(given_up.clone());
        request.extensions_mut().insert(Seat);
        // Nothing comes after a handshake, granted or not.
        let last = request.headers().contains_key(UPGRADE);
        let Some((mut response, early)) = self.ask(&socket, request).await else {
            return Turn::Over;
        };
        if let Some(then) = Takeover::of(&mut response) {
            let protocol = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            let follows = if protocol { Follows::Protocol } else { Follows::Stream };
            let head = head(&response, follows).freeze();
            then(Given { socket, head, early }).await;
            return Turn::Over;
        }
        let answering = Answering { socket: &socket, given_up, patience: self.patience() };
        match answering.write(response, last || self.door.stop.is_cancelled()).await {
            Ok(true) => Turn::Next(socket, early),
            Ok(false) | Err(_) => Turn::Over,
        }
    }

    fn patience(&self) -> Duration {
        self.door.listening.write_timeout
    }

    /// The router's answer, and what came meanwhile; `None` when the client went away.
    async fn ask(&self, socket: &TcpStream, request: Request<Body>) -> Option<(Response, Bytes)> {
        let mut answer = pin!(self.door.router.call(request));
        let mut early = BytesMut::new();
        tokio::select! {
            biased;
            // 1. The answer is there.
            Ok(response) = &mut answer => Some((response, early.freeze())),
            // 2. Nobody waits for it any more.
            () = gone(socket, &mut early) => None,
        }
    }
}

/// Ends when the client did; what it sends meanwhile is kept, up to a limit.
async fn gone(socket: &TcpStream, early: &mut BytesMut) {
    while early.len() < EARLY_BYTES {
        match read(socket).await {
            Some(bytes) => early.extend_from_slice(&bytes),
            None => return,
        }
    }
    std::future::pending::<()>().await;
}

/// An answer on its way.
struct Answering<'socket> {
    socket: &'socket TcpStream,
    given_up: GivenUp,
    patience: Duration,
}

impl Answering<'_> {
    /// Writes the answer; whether another may follow.
    async fn write(&self, response: Response, last: bool) -> io::Result<bool> {
        let Some(length) = response.body().size_hint().exact() else {
            self.stream(response).await?;
            return Ok(false);
        };
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let follows = if last { Follows::LastBody(length) } else { Follows::Body(length) };
        let mut out = head(&response, follows);
        let body = response.into_body().collect().await.map_err(io::Error::other)?;
        out.extend_from_slice(&body.to_bytes());
        self.put(&out).await?;
        Ok(!last)
    }

    /// Writes an answer of unknown length; the end of the connection is its end.
    async fn stream(&self, response: Response) -> io::Result<()> {
        self.put(&head(&response, Follows::Stream)).await?;
        let mut body = response.into_body();
        let mut early = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                // 1. There is more to write.
                frame = body.frame() => frame,
                // 2. Nobody reads it any more.
                () = gone(self.socket, &mut early) => return Ok(()),
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.put(&bytes).await?;
                    }
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(()),
            }
        }
    }

    /// Writes all of it, unless the client takes nothing for too long.
    async fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn wait(&self) -> io::Result<()> {
        let waited = timeout(self.patience, self.socket.writable()).await;
        waited.unwrap_or_else(|_| {
            self.given_up.give_up();
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}
