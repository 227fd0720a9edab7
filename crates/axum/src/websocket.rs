//! WebSocket: the handshake, and then a small task per connection on the bare socket.
//!
//! After the 101 the HTTP layer is taken off again: on plain TCP the engine writes into the socket
//! itself ([`plain`]), anything else is driven as a stream of bytes ([`stream`]). Both read with
//! [`inbound`] into one buffer per thread, so that a connection that idles holds no buffer.

mod inbound;
mod plain;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use http_body::Body as _;
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tidewire::{Dialect, Identity, Place, Session};
use tidewire_protocol::wire::websocket_pong;
use tidewire_protocol::{Close, Code, Command, Frame, Refusal, Subscription, Token};
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use self::inbound::{Inbound, Message};
use crate::client::client;
use crate::handshake::{Query, SUBSCRIPTION_PARAMETERS, Subprotocol, token};
use crate::listen::{Patient, Prefixed, SocketPlace};
use crate::refusal;
use crate::router::Transports;
use crate::takeover::{Given, Seat, Takeover};

/// Which parameters a WebSocket's address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameters {
    /// A token, and what is subscribed to from the beginning; others are refused.
    Subscriptions,
    /// Any; those that are not a token are ignored.
    Any,
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The engine or the rules of the protocol end it.
    Server(Close),
    /// The client ends it, with this code if it gave one.
    Client(Option<u16>),
    /// The socket is gone; nobody can be told anything.
    Gone,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Whether the request is for a WebSocket, on HTTP/1.1 or HTTP/2.
pub fn is_upgrade<B>(request: &http::Request<B>) -> bool {
    has_token(request.headers(), &UPGRADE, "websocket") || is_extended_connect(request)
}

/// Upgrades the request, or answers why not.
pub(crate) async fn open(
    transports: &Transports,
    dialect: Arc<dyn Dialect>,
    parameters: Parameters,
    request: Request,
) -> Response {
    let opened = try_open(transports, dialect, parameters, request).await;
    opened.unwrap_or_else(|refusal| transports.refuse(&refusal))
}

/// Upgrades the request, or answers that it is no handshake.
///
/// # Errors
/// Why the client is not let in, for dialects with answers of their own.
pub(crate) async fn try_open(
    transports: &Transports,
    dialect: Arc<dyn Dialect>,
    parameters: Parameters,
    mut request: Request,
) -> Result<Response, Refusal> {
    let response = match check(&request) {
        Ok(response) => response,
        Err(response) => return Ok(*response),
    };
    let shown = Shown::read(&request, parameters)?;
    let mut response = with_subprotocol(response, shown.accepted);
    let client = client(request.extensions());
    let (identity, place) = admit(transports, shown.token, client).await?;
    let socket = request.extensions_mut().remove::<Arc<SocketPlace>>();
    if let Some(socket) = &socket
        && place.is_authenticated()
    {
        socket.authenticated();
    }
    let admitted = Admitted { dialect, identity, client, place, socket, wishes: shown.wishes };
    let transports = transports.clone();
    if request.extensions().get::<Seat>().is_some() {
        let begin = async move |given| plain::start(&transports, admitted, given).await;
        Takeover::by(&mut response, begin);
    } else {
        let upgrade = hyper::upgrade::on(&mut request);
        let tasks = transports.tasks().clone();
        tasks.spawn(upgraded(transports, admitted, upgrade));
    }
    Ok(response)
}

/// A client that is let in.
struct Admitted {
    dialect: Arc<dyn Dialect>,
    identity: Identity,
    client: Option<SocketAddr>,
    /// Taken before the upgrade, after which no status can be sent any more.
    place: Place,
    /// Held as long as the socket is open.
    socket: Option<Arc<SocketPlace>>,
    /// What it subscribes to from the beginning.
    wishes: Vec<Subscription>,
}

/// The first words, and the subscriptions that came with the address, as if they were said next.
async fn begin(session: &mut Session, wishes: Vec<Subscription>) {
    session.welcome();
    if !wishes.is_empty() {
        let commands = wishes.into_iter().map(Command::Subscribe).collect();
        // What a request needs is five times what a handshake does.
        Box::pin(session.carry_out(commands)).await;
    }
}

/// What a handshake shows beside being one.
struct Shown {
    token: Option<Token>,
    /// The subprotocol to answer with.
    accepted: Option<&'static str>,
    /// What is subscribed to from the beginning.
    wishes: Vec<Subscription>,
}

impl Shown {
    fn read(request: &Request, parameters: Parameters) -> Result<Self, Refusal> {
        let query = Query::read(request.uri())?;
        let wishes = match parameters {
            Parameters::Subscriptions => wishes(&query)?,
            Parameters::Any => Vec::new(),
        };
        let subprotocol = Subprotocol::read(request.headers());
        let accepted = subprotocol.accepted;
        let token = token(request.headers(), &query, subprotocol)?;
        Ok(Self { token, accepted, wishes })
    }
}

/// What the address asks for, if anything.
fn wishes(query: &Query) -> Result<Vec<Subscription>, Refusal> {
    query.expect_only(&SUBSCRIPTION_PARAMETERS)?;
    match SUBSCRIPTION_PARAMETERS.iter().any(|name| query.has(name)) {
        true => query.subscriptions(query.one("since")?),
        false => Ok(Vec::new()),
    }
}

/// Checks that the request is a WebSocket handshake (RFC 6455, section 4.2.1; RFC 8441 for
/// HTTP/2); the answer that accepts it.
fn check(request: &Request) -> Result<Response, Box<Response>> {
    let headers = request.headers();
    if !is_upgrade(request) {
        let message = "this address speaks WebSocket; connect with Upgrade: websocket";
        return Err(Box::new(refusal::upgrade_required(message)));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "the WebSocket version must be 13";
        return Err(Box::new(refusal::upgrade_required(message)));
    }
    if is_extended_connect(request) {
        return Ok(Response::new(Body::empty()));
    }
    if request.method() != Method::GET || request.version() < Version::HTTP_11 {
        return Err(malformed("a WebSocket begins with a GET on HTTP/1.1"));
    }
    if !request.body().is_end_stream() {
        return Err(malformed("a WebSocket begins with a request without a body"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(malformed("the header Connection: Upgrade is missing"));
    }
    match headers.get(SEC_WEBSOCKET_KEY) {
        Some(key) if is_key(key.as_bytes()) => Ok(switching(key)),
        _ => Err(malformed("the header Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

fn malformed(message: &str) -> Box<Response> {
    Box::new(refusal::response(&Refusal::new(Code::BadField, message)))
}

fn is_extended_connect<B>(request: &http::Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|name| name.as_str() == "websocket")
}

/// Whether one of the header's comma-separated words is `word`.
fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Sixteen bytes are 22 characters of base64 and two of padding.
fn is_key(key: &[u8]) -> bool {
    let [text @ .., b'=', b'='] = key else { return false };
    text.len() == 22
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn switching(key: &HeaderValue) -> Response {
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::try_from(accept).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn with_subprotocol(mut response: Response, subprotocol: Option<&'static str>) -> Response {
    if let Some(name) = subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    response
}

/// Who the client is, if there is a place for one more.
async fn admit(
    transports: &Transports,
    token: Option<Token>,
    client: Option<SocketAddr>,
) -> Result<(Identity, Place), Refusal> {
    let (node, address) = (transports.node(), client.map(|client| client.ip()));
    let identity = node.identify(token.as_ref(), address).await?;
    let place = node.place(&identity, address)?;
    Ok((identity, place))
}

/// Waits for the 101 to be written, then gives the connection a task of its own, so that what the
/// handshake needed is given back.
async fn upgraded(transports: Transports, admitted: Admitted, upgrade: OnUpgrade) {
    // When it fails the client went away before the answer was written.
    let Ok(upgraded) = upgrade.await else { return };
    match downcast::<TokioIo<Patient<Prefixed<TcpStream>>>>(upgraded) {
        Ok(parts) => {
            let (socket, unread) = parts.io.into_inner().into_inner().into_parts();
            // What hyper read beyond the handshake, and what it had no room for.
            let early = [&parts.read_buf[..], &unread[..]].concat().into();
            let given = Given { socket, head: Bytes::new(), early };
            plain::start(&transports, admitted, given).await;
        }
        Err(upgraded) => {
            let io: TokioIo<Upgraded> = TokioIo::new(upgraded);
            stream::start(&transports, admitted, io).await;
        }
    }
}

/// Acts on what a client sent, in order; but a ping does not wait for requests to be carried out,
/// and several of one read are answered once (RFC 6455, section 5.5.3).
async fn act(session: &mut Session, messages: Vec<Message>) -> Result<(), End> {
    let pings = messages.iter().rev();
    let mut pings = pings.filter_map(|message| match message {
        Message::Ping(payload) => Some(payload),
        _ => None,
    });
    if let Some(last) = pings.next() {
        session.push_raw(websocket_pong(last));
    }
    for message in messages {
        match message {
            Message::Text(text) => session.receive(Frame::text(text)).await.map_err(End::Server)?,
            Message::Binary(bytes) => {
                session.receive(Frame::Binary(bytes)).await.map_err(End::Server)?;
            }
            Message::Ping(_) | Message::Pong => {}
            Message::Close(code) => return Err(End::Client(code)),
        }
    }
    // A client that always has something to say must not keep the others of this thread waiting.
    tokio::task::coop::consume_budget().await;
    Ok(())
}

/// Reads bytes that are in the buffer: the messages they complete, and whether a rule was broken.
fn parse(inbound: &mut Inbound, bytes: &mut [u8], limit: usize) -> (Vec<Message>, Result<(), End>) {
    let mut messages = Vec::new();
    let result = inbound.read(bytes, limit, &mut messages).map_err(End::Server);
    (messages, result)
}

/// The close frame that ends the connection: ours with its reason, or the client's code echoed.
fn close_frame(end: End) -> Option<Bytes> {
    match end {
        End::Server(why) => Some(tidewire_protocol::wire::websocket_close(why)),
        End::Client(code) => {
            let payload = code.map(u16::to_be_bytes);
            let payload = payload.as_ref().map_or(&[][..], <[u8; 2]>::as_slice);
            let mut frame = BytesMut::with_capacity(4);
            frame.put_slice(&[0x88, payload.len() as u8]);
            frame.put_slice(payload);
            Some(frame.freeze())
        }
        End::Gone => None,
    }
}

/// Why the session ends, for its dialect and for the counters.
fn reason(end: End) -> Close {
    match end {
        End::Server(why) => why,
        End::Client(_) | End::Gone => Close::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for key in ["", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j\nQ==", "x=="] {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_clients_code_is_echoed() {
        assert_eq!(close_frame(End::Client(Some(1000))).unwrap(), [0x88, 2, 3, 0xE8][..]);
        assert_eq!(close_frame(End::Client(None)).unwrap(), [0x88, 0][..]);
    }

    #[test]
    fn headers_are_lists_of_words_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, upgrade"));
        assert!(has_token(&headers, &CONNECTION, "Upgrade"));
        assert!(!has_token(&headers, &CONNECTION, "Up"));
    }
}
