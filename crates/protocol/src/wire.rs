//! How a frame looks on a transport, as finished bytes.
//!
//! Server frames on a WebSocket are not masked (RFC 6455, section 5.1), and an event of a stream
//! carries no state of its connection, so the same bytes serve every client that shares a shape:
//! they are made once and shared.

use bytes::{BufMut, Bytes, BytesMut};

use crate::close::Close;
use crate::frame::Frame;
use crate::position::Position;
use crate::scan;

/// Which transport the bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// WebSocket frames with their headers.
    WebSocket,
    /// Server-Sent Events, `id:` being the position.
    EventStream,
    /// One JSON text per line, for long-poll answers to be joined from.
    Lines,
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

impl Wire {
    /// The finished bytes of `frame`; `position` is what a client of an event stream resumes from.
    pub fn seal(self, frame: &Frame, position: Option<Position>) -> Bytes {
        let mut out = BytesMut::new();
        self.seal_into(&mut out, frame, position);
        out.freeze()
    }

    /// Appends the finished bytes of `frame` to `out`.
    pub fn seal_into(self, out: &mut BytesMut, frame: &Frame, position: Option<Position>) {
        match (self, frame) {
            (Self::WebSocket, Frame::Text { text, .. }) => websocket(out, TEXT, text.as_bytes()),
            (Self::WebSocket, Frame::Binary(bytes)) => websocket(out, BINARY, bytes),
            (Self::EventStream, Frame::Text { text, label }) => {
                event_stream(out, text, *label, position.map(Position::text).as_deref());
            }
            (Self::Lines, Frame::Text { text, .. }) => line(out, text),
            // Binary frames exist only in dialects whose text transports encode them as text.
            (Self::EventStream | Self::Lines, Frame::Binary(_)) => {}
        }
    }
}

/// Appends one unmasked WebSocket frame (RFC 6455, section 5.2).
fn websocket(out: &mut BytesMut, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.put_u8(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.put_u8(short as u8),
        medium @ 126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(medium as u16);
        }
        long => {
            out.put_u8(127);
            out.put_u64(long as u64);
        }
    }
    out.put_slice(payload);
}

/// Appends one event of a stream (WHATWG HTML, section 9.2.6); every line of `data` gets its field.
pub fn event_stream(out: &mut BytesMut, data: &str, label: Option<&str>, id: Option<&str>) {
    out.reserve(data.len() + 64);
    for (field, value) in [("id", id), ("event", label)] {
        if let Some(value) = value {
            out.put_slice(field.as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_u8(b'\n');
        }
    }
    let mut rest = data.as_bytes();
    // All three line ends of the standard end a field.
    while let Some(at) = scan::position(rest, |byte| matches!(byte, b'\n' | b'\r')) {
        data_field(out, &rest[..at]);
        rest = rest[at..].strip_prefix(b"\r\n").unwrap_or(&rest[at + 1..]);
    }
    data_field(out, rest);
    out.put_u8(b'\n');
}

fn data_field(out: &mut BytesMut, line: &[u8]) {
    out.put_slice(b"data: ");
    out.put_slice(line);
    out.put_u8(b'\n');
}

/// The place to go on from, as an event without content: a client of a stream keeps it and tells
/// nobody (WHATWG HTML, section 9.2.6).
pub fn event_stream_place(id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(id.len() + 6);
    out.put_slice(b"id: ");
    out.put_slice(id.as_bytes());
    out.put_slice(b"\n\n");
    out.freeze()
}

/// Appends one JSON text as one line; a line end inside JSON can only be white space.
fn line(out: &mut BytesMut, text: &str) {
    let start = out.len();
    out.reserve(text.len() + 1);
    out.put_slice(text.as_bytes());
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.put_u8(b'\n');
}

/// A WebSocket ping without payload.
pub const WEBSOCKET_PING: Bytes = Bytes::from_static(&[0x80 | PING, 0]);

/// A WebSocket pong that returns a ping's payload of at most 125 bytes.
pub fn websocket_pong(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    websocket(&mut out, PONG, &payload[..payload.len().min(125)]);
    out.freeze()
}

/// A WebSocket close frame with the code and name of an ending.
pub fn websocket_close(close: Close) -> Bytes {
    let mut payload = Vec::with_capacity(32);
    payload.extend_from_slice(&close.code().to_be_bytes());
    payload.extend_from_slice(close.name().as_bytes());
    let mut out = BytesMut::new();
    websocket(&mut out, CLOSE, &payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_grows_with_its_payload() {
        for (length, header) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let sealed = Wire::WebSocket.seal(&Frame::text("x".repeat(length)), None);
            assert_eq!(sealed.len(), length + header);
        }
    }

    #[test]
    fn an_event_of_a_stream_carries_its_position_and_name() {
        let position = "a-1".parse().unwrap();
        let sealed = Wire::EventStream.seal(&Frame::labelled("gap", "{}"), Some(position));
        assert_eq!(sealed, "id: a-1\nevent: gap\ndata: {}\n\n");
    }

    #[test]
    fn a_text_of_several_lines_becomes_one_line() {
        let sealed = Wire::Lines.seal(&Frame::text("{\n\"a\":1\r\n}"), None);
        assert_eq!(sealed, "{ \"a\":1  }\n");
    }

    #[test]
    fn every_line_end_inside_data_begins_a_new_field() {
        let sealed = Wire::EventStream.seal(&Frame::text("a\nb\r\nc\rd"), None);
        assert_eq!(sealed, "data: a\ndata: b\ndata: c\ndata: d\n\n");
    }
}
