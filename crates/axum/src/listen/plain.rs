//! HTTP/1.1 on plain TCP for the requests that come all the time, without a buffer while idle.
//!
//! A handshake, a small publication, the beginning of a stream: their bytes are all there at the
//! first read, so nothing has to be kept between reads. Requests are answered by the same app as all
//! others. At the first one that is not so simple ([`request`] says which are), the connection is
//! left to hyper, with what was read, for the rest of its life; so is one that is larger than the
//! buffer of its thread.

mod request;
mod response;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::UPGRADE;
use http::{Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};

use self::response::{Follows, head};
use super::{Door, GivenUp, KEPT_ALIVE, SocketPlace};
use crate::socket::{BUFFER, FAREWELL, hear_out, try_read};
use crate::takeover::{Given, Seat, Takeover, Then};

/// Bytes that are kept of a client who goes on sending while its request is answered.
const EARLY_BYTES: usize = 16 << 10;

/// How often it is looked whether a client is still there that sent more than that.
const LOOK: Duration = Duration::from_secs(1);

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
    place: &Arc<SocketPlace>,
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
        let connection = Connection { door, peer, place };
        // What a request needs is held only while it is answered.
        let turn = Box::pin(connection.turn(socket, read));
        match turn.await {
            Turn::Next(same, after) => {
                place.end_request();
                (socket, early) = (same, after);
            }
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
            try_read(socket, buffer).map(|count| Bytes::copy_from_slice(&buffer[..count]))
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
    place: &'door Arc<SocketPlace>,
}

impl Connection<'_> {
    async fn turn(&self, socket: TcpStream, read: Bytes) -> Turn {
        let read = without_empty_lines(read);
        if read.is_empty() {
            return Turn::Next(socket, read);
        }
        let Some(asked) = self.ask(&read) else { return Turn::Left(Left { socket, read }) };
        drop(read);
        let mut early = BytesMut::new();
        let response = tokio::select! {
            biased;
            // 1. The answer is there.
            response = self.door.app.answer(asked.request) => response,
            // 2. Nobody waits for it any more.
            () = reset(&socket, &mut early) => return Turn::Over,
        };
        let early = early.freeze();
        let (response, then) = taken_over(response);
        if let Some((then, head)) = then {
            then(Given { socket, head, early }).await;
            return Turn::Over;
        }
        let last = asked.last || self.door.stop.is_cancelled();
        let patience = self.door.listening.write_timeout;
        let answering = Answering { socket: &socket, given_up: asked.given_up, patience };
        let written = match whole(response, last) {
            Ok(bytes) => answering.put(&bytes).await.map(|()| !last),
            // Rarely so, and then for long.
            Err(begun) => {
                let (response, first) = *begun;
                Box::pin(answering.stream(response, first)).await.map(|()| false)
            }
        };
        match written {
            Ok(true) => return Turn::Next(socket, early),
            Ok(false) => Box::pin(end(&socket)).await,
            Err(_) => cut(&socket),
        }
        Turn::Over
    }

    /// The request, if it is one of those that are answered here.
    fn ask(&self, read: &Bytes) -> Option<Asked> {
        let mut request = request::read(read)?;
        self.place.begin_request();
        // Nothing comes after a handshake, granted or not.
        let last = request.headers().contains_key(UPGRADE);
        let given_up = GivenUp::default();
        let client = self.door.client(self.peer, request.headers());
        request.extensions_mut().insert(ConnectInfo(client));
        request.extensions_mut().insert(given_up.clone());
        request.extensions_mut().insert(Seat);
        request.extensions_mut().insert(Arc::clone(self.place));
        Some(Asked { request, given_up, last })
    }
}

/// The bytes without empty lines before them, which some clients send after a body (RFC 9112,
/// section 2.2).
fn without_empty_lines(mut read: Bytes) -> Bytes {
    while read.starts_with(b"\r\n") {
        read.advance(2);
    }
    read
}

/// A request that is to be answered.
struct Asked {
    request: Request<Body>,
    given_up: GivenUp,
    /// Whether the connection ends after it.
    last: bool,
}

/// Who takes the connection over, with the head to be written first, if anybody does.
fn taken_over(mut response: Response) -> (Response, Option<(Then, Bytes)>) {
    let then = Takeover::of(&mut response).map(|then| {
        let protocol = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let follows = if protocol { Follows::Protocol } else { Follows::Stream };
        (then, head(&response, follows).freeze())
    });
    (response, then)
}

/// The answer as bytes, if all of its body is there at once; else the answer, with what is there.
fn whole(response: Response, last: bool) -> Result<BytesMut, Box<(Response, Bytes)>> {
    let length = response.body().size_hint().exact();
    let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
        return Err(Box::new((response, Bytes::new())));
    };
    let (parts, mut body) = response.into_parts();
    let first = match length {
        0 => None,
        _ => body.frame().now_or_never().flatten().and_then(Result::ok),
    };
    let first = first.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let response = Response::from_parts(parts, body);
    if first.len() != length {
        return Err(Box::new((response, first)));
    }
    let follows = if last { Follows::LastBody(length) } else { Follows::Body(length) };
    let mut out = head(&response, follows);
    out.extend_from_slice(&first);
    Ok(out)
}

/// Ends when the connection broke. A client that only has nothing more to send still waits for its
/// answer.
async fn reset(socket: &TcpStream, early: &mut BytesMut) {
    gone(socket, early).await;
    while let Ok(ready) = socket.ready(Interest::ERROR).await
        && !ready.is_error()
    {}
}

/// Ends when the client did; what it sends meanwhile is kept, up to a limit.
async fn gone(socket: &TcpStream, early: &mut BytesMut) {
    while early.len() < EARLY_BYTES {
        match read(socket).await {
            Some(bytes) => early.extend_from_slice(&bytes),
            None => return,
        }
    }
    // The rest waits in the kernel. It makes the socket readable all the time, so whether its
    // sender is still there has to be asked for.
    while let Ok(ready) = socket.ready(Interest::READABLE).await
        && !ready.is_read_closed()
    {
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends the connection in a way that nobody takes for the end of an answer.
fn cut(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Ends the connection so that the client has the last answer: one that is closed with bytes unread
/// is reset, which may overtake it.
async fn end(socket: &TcpStream) {
    if SockRef::from(socket).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let _ = timeout(FAREWELL, hear_out(socket)).await;
}

/// An answer on its way.
struct Answering<'socket> {
    socket: &'socket TcpStream,
    given_up: GivenUp,
    patience: Duration,
}

impl Answering<'_> {
    /// Writes an answer of unknown length; the end of the connection is its end.
    async fn stream(&self, response: Response, first: Bytes) -> io::Result<()> {
        self.put(&head(&response, Follows::Stream)).await?;
        self.put(&first).await?;
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
