//! Answers as the bytes of HTTP/1.1.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderName, StatusCode};

/// Bytes of a head, usually.
const HEAD: usize = 256;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// So many bytes, and then the next answer.
    Body(usize),
    /// So many bytes, and then the end of the connection.
    LastBody(usize),
    /// Bytes until the end of the connection.
    Stream,
    /// Another protocol.
    Protocol,
}

/// The answer's head, with room for its body.
pub(super) fn head(response: &Response, follows: Follows) -> BytesMut {
    let status = response.status();
    let (Follows::Body(body) | Follows::LastBody(body)) = follows else {
        return put(response, follows, 0);
    };
    let mut head = put(response, follows, body);
    if !(status == StatusCode::NO_CONTENT || response.headers().contains_key(CONTENT_LENGTH)) {
        // The empty line is moved behind it.
        head.truncate(head.len() - 2);
        line(&mut head, &CONTENT_LENGTH, body.to_string().as_bytes());
        head.put_slice(b"\r\n");
    }
    head
}

fn put(response: &Response, follows: Follows, body: usize) -> BytesMut {
    let status = response.status();
    let mut out = BytesMut::with_capacity(HEAD + body);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    let endless = matches!(follows, Follows::Stream | Follows::Protocol);
    for (name, value) in response.headers() {
        // An answer whose handler takes the connection over has an empty body of its own.
        if !(endless && name == CONTENT_LENGTH) {
            line(&mut out, name, value.as_bytes());
        }
    }
    if !response.headers().contains_key(DATE) {
        line(&mut out, &DATE, &date());
    }
    if matches!(follows, Follows::LastBody(_) | Follows::Stream) {
        out.put_slice(b"connection: close\r\n");
    }
    out.put_slice(b"\r\n");
    out
}

fn line(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

thread_local! {
    /// The second that was written last, and how (RFC 9110, section 6.6.1).
    static WRITTEN: RefCell<(u64, Bytes)> = const { RefCell::new((0, Bytes::new())) };
}

fn date() -> Bytes {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            *written = second;
            *text = httpdate::fmt_http_date(now).into();
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderValue;

    use super::*;

    fn text(status: u16, follows: Follows) -> String {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("date", HeaderValue::from_static("now"));
        if matches!(follows, Follows::Stream | Follows::Protocol) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        String::from_utf8(head(&response, follows).to_vec()).unwrap()
    }

    #[test]
    fn a_head_says_what_follows() {
        let expected = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(text(200, Follows::Body(5)), expected);
        let expected =
            "HTTP/1.1 404 Not Found\r\ndate: now\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(text(404, Follows::LastBody(0)), expected);
        let expected = "HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\n";
        assert_eq!(text(200, Follows::Stream), expected);
        let expected = "HTTP/1.1 101 Switching Protocols\r\ndate: now\r\n\r\n";
        assert_eq!(text(101, Follows::Protocol), expected);
        assert_eq!(text(204, Follows::Body(0)), "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n");
    }

    #[test]
    fn an_answer_has_a_date() {
        let response = Response::new(Body::empty());
        let head = String::from_utf8(head(&response, Follows::Body(0)).to_vec()).unwrap();
        assert!(head.contains("\r\ndate: ") && head.contains(" GMT\r\n"), "{head}");
    }
}
