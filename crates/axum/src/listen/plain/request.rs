//! The requests that come all the time, read with `httparse`.
//!
//! Only what leaves no room for two readings is taken: a whole GET or POST of HTTP/1.1 with at most
//! one plain `Content-Length`, and nothing after it. Everything else, however valid, is hyper's.

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Uri, Version};

/// Headers of a request at most, more than browsers and proxies together send.
const HEADERS: usize = 64;

/// Headers that change how a connection or a body is to be read.
const HYPERS: [HeaderName; 4] = [TRANSFER_ENCODING, EXPECT, TE, TRAILER];

/// The request that the bytes are, if it is one of those.
pub(super) fn read(bytes: &Bytes) -> Option<Request<Body>> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let method = match head.method? {
        "GET" => Method::GET,
        "POST" => Method::POST,
        _ => return None,
    };
    if head.version != Some(1) || !head.path?.starts_with('/') {
        return None;
    }
    // The address, the headers and the body are parts of what was read.
    let uri = Uri::from_maybe_shared(bytes.slice_ref(head.path?.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for line in head.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?);
    }
    let body = bytes.slice(length..);
    if !is_plain(&headers, body.len()) {
        return None;
    }
    let mut request = Request::new(if body.is_empty() { Body::empty() } else { body.into() });
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Some(request)
}

/// Whether the headers say nothing but that the body is all that came.
fn is_plain(headers: &HeaderMap, body: usize) -> bool {
    HYPERS.iter().all(|name| !headers.contains_key(name))
        && headers.get_all(HOST).iter().count() == 1
        && has_length(headers, body)
        && stays(headers)
}

fn has_length(headers: &HeaderMap, body: usize) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => body == 0,
        (Some(length), None) => number(length.as_bytes()) == Some(body),
        (Some(_), Some(_)) => false,
    }
}

/// Digits alone: neither a sign nor a list.
fn number(text: &[u8]) -> Option<usize> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Whether the connection stays as it is afterwards, or becomes a WebSocket.
fn stays(headers: &HeaderMap) -> bool {
    let is_single = |name: &HeaderName| headers.get_all(name).iter().count() <= 1;
    if !(is_single(&CONNECTION) && is_single(&UPGRADE)) {
        return false;
    }
    let upgrade = headers.get(UPGRADE);
    let Some(connection) = headers.get(CONNECTION) else { return upgrade.is_none() };
    let is =
        |value: &HeaderValue, word: &str| value.as_bytes().eq_ignore_ascii_case(word.as_bytes());
    match upgrade {
        None => is(connection, "keep-alive"),
        Some(upgrade) => {
            is(upgrade, "websocket")
                && (is(connection, "upgrade") || is(connection, "keep-alive, upgrade"))
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use proptest::prelude::*;

    use super::*;

    fn read(text: impl Into<Bytes>) -> Option<Request<Body>> {
        super::read(&text.into())
    }

    fn head(lines: &str) -> String {
        format!("{}\r\n\r\n", lines.replace('\n', "\r\n"))
    }

    #[test]
    fn a_whole_request_is_read() {
        let text = head("POST /v1/publish?a=b HTTP/1.1\nHost: x\nContent-Length: 2\nX: 1\nx: 2");
        let request = read(format!("{text}{{}}")).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/publish"));
        assert_eq!(request.uri().query(), Some("a=b"));
        assert_eq!(request.headers().get_all("x").iter().count(), 2);
        assert_eq!(request.body().size_hint().exact(), Some(2));
    }

    #[test]
    fn a_handshake_is_read() {
        for connection in ["Upgrade", "keep-alive, Upgrade"] {
            let text =
                format!("GET / HTTP/1.1\nHost: x\nConnection: {connection}\nUpgrade: websocket");
            assert!(read(head(&text)).is_some(), "{connection}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_left_to_hyper() {
        for (lines, body) in [
            ("POST / HTTP/1.1\nHost: x\nContent-Length: 2\nContent-Length: 2", "{}"),
            ("POST / HTTP/1.1\nHost: x\nContent-Length: 2, 2", "{}"),
            ("POST / HTTP/1.1\nHost: x\nContent-Length: +2", "{}"),
            ("POST / HTTP/1.1\nHost: x\nContent-Length: 3", "{}"),
            ("POST / HTTP/1.1\nHost: x\nContent-Length: 1", "{}"),
            ("POST / HTTP/1.1\nHost: x", "{}"),
            ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 2", "{}"),
            ("POST / HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 2", "{}"),
            ("GET / HTTP/1.0\nHost: x", ""),
            ("GET / HTTP/1.1", ""),
            ("GET / HTTP/1.1\nHost: x\nHost: y", ""),
            ("GET http://x/ HTTP/1.1\nHost: x", ""),
            ("HEAD / HTTP/1.1\nHost: x", ""),
            ("GET / HTTP/1.1\nHost: x\nConnection: close", ""),
            ("GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c", ""),
            ("GET / HTTP/1.1\nHost: x\nUpgrade: websocket", ""),
            ("GET / HTTP/1.1\nHost: x\nConnection: keep-alive\nConnection: close", ""),
            ("GET / HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: websocket\nUpgrade: h2c", ""),
            ("GET / HTTP/1.1\nHost : x", ""),
            ("GET / HTTP/1.1\nHost: x\n folded", ""),
        ] {
            let text = format!("{}{body}", head(lines));
            assert!(read(text.clone()).is_none(), "{text}");
        }
        assert!(read(&b"GET / HTTP/1.1\r\nHost: x\r\n"[..]).is_none(), "half of a head");
        assert!(read(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]).is_none(), "HTTP/2");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(bytes: Vec<u8>) {
            let _ = read(bytes);
        }

        #[test]
        fn anything_like_a_request_is_read_or_left(
            method in "GET|POST|PUT", path in "[ -~]{0,20}",
            lines in prop::collection::vec("(Host|Content-Length|Connection|X): ?[ -~]{0,12}", 0..5),
            body in "[ -~]{0,8}",
        ) {
            let text = format!("{method} /{path} HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n"));
            if let Some(request) = read(text) {
                prop_assert_eq!(request.body().size_hint().exact(), Some(body.len() as u64));
            }
        }
    }
}
