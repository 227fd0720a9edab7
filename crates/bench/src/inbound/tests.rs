use proptest::prelude::*;

use super::frames::put;
use super::*;

/// What a stream told, without borrowing from it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Status(u16),
    Message(String),
    Ping(Vec<u8>),
    Close(Option<u16>),
}

fn told(piece: Piece<'_>) -> Told {
    match piece {
        Piece::Status(status) => Told::Status(status),
        Piece::Message(bytes) => Told::Message(String::from_utf8_lossy(bytes).into_owned()),
        Piece::Ping(bytes) => Told::Ping(bytes.to_vec()),
        Piece::Close(code) => Told::Close(code),
    }
}

/// Feeds a stream cut at the given places.
fn feed(framing: Framing, bytes: &[u8], cuts: &[usize]) -> Result<Vec<Told>, Broken> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut inbound = Inbound::default();
    let mut all = Vec::new();
    for pair in cuts.windows(2) {
        inbound.feed(framing, &bytes[pair[0]..pair[1]], |piece| all.push(told(piece)))?;
    }
    Ok(all)
}

/// A frame as a server writes it: the same, without the mask.
fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put(&mut frame, false, payload);
    frame[0] = first;
    frame[1] &= 0x7F;
    let head = frame.len() - payload.len() - 4;
    frame.drain(head..head + 4);
    frame
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

fn websocket() -> (Vec<u8>, Vec<Told>) {
    let long = "l".repeat(300);
    let longest = "L".repeat(70_000);
    let mut bytes = SWITCHING.to_vec();
    let mut expected = vec![Told::Status(101)];
    for text in ["", "a", &long, &longest, &"m".repeat(125), &"n".repeat(126)] {
        bytes.extend(server_frame(0x81, text.as_bytes()));
        expected.push(Told::Message(text.to_owned()));
    }
    bytes.extend(server_frame(0x89, b"ping"));
    expected.push(Told::Ping(b"ping".to_vec()));
    bytes.extend(server_frame(0x8A, b"pong"));
    bytes.extend(server_frame(0x88, &[0x03, 0xE8, b'.']));
    expected.push(Told::Close(Some(1000)));
    (bytes, expected)
}

fn event_stream() -> (Vec<u8>, Vec<Told>) {
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n".to_vec();
    for chunk in [":\n\n", "data: a\n", "\nid: 7\r\nda", "ta: b\r\n\r\n\n", "event: c\ndata: c\n\n"]
    {
        bytes.extend(format!("{:X};ext=1\r\n{chunk}\r\n", chunk.len()).bytes());
    }
    let events = [":\n", "data: a\n", "id: 7\r\ndata: b\r\n", "event: c\ndata: c\n"];
    let mut expected = vec![Told::Status(200)];
    expected.extend(events.map(|event| Told::Message(event.to_owned())));
    (bytes, expected)
}

fn nats() -> (Vec<u8>, Vec<Told>) {
    let mut bytes = SWITCHING.to_vec();
    let text = "INFO {}\r\nPONG\r\nMSG t 1 5\r\nhe\nlo\r\nMSG t 1 r 0\r\n\r\nPING\r\n";
    let (first, second) = text.as_bytes().split_at(29);
    bytes.extend(server_frame(0x02, first));
    bytes.extend(server_frame(0x80, second));
    let lines =
        ["INFO {}\r\n", "PONG\r\n", "MSG t 1 5\r\nhe\nlo\r\n", "MSG t 1 r 0\r\n\r\n", "PING\r\n"];
    let mut expected = vec![Told::Status(101)];
    expected.extend(lines.map(|line| Told::Message(line.to_owned())));
    (bytes, expected)
}

#[test]
fn a_websocket_is_cut_into_messages() {
    let (bytes, expected) = websocket();
    assert_eq!(feed(Framing::Websocket, &bytes, &[]).unwrap(), expected);
}

#[test]
fn byte_by_byte_gives_the_same() {
    for (framing, (bytes, expected)) in
        [(Framing::EventStream, event_stream()), (Framing::WebsocketNats, nats())]
    {
        let cuts: Vec<_> = (0..bytes.len()).collect();
        assert_eq!(feed(framing, &bytes, &cuts).unwrap(), expected);
    }
}

#[test]
fn a_stream_without_chunks_is_read_as_well() {
    let bytes = b"HTTP/1.0 200 OK\r\n\r\ndata: a\n\n";
    let expected = vec![Told::Status(200), Told::Message("data: a\n".to_owned())];
    assert_eq!(feed(Framing::EventStream, bytes, &[]).unwrap(), expected);
}

#[test]
fn what_breaks_the_protocol_is_named() {
    let masked = [SWITCHING, &[0x81, 0x80, 0, 0, 0, 0]].concat();
    assert_eq!(feed(Framing::Websocket, &masked, &[]), Err(Broken("a masked frame from a server")));
    let part = [SWITCHING, &server_frame(0x01, b"part")].concat();
    assert_eq!(feed(Framing::Websocket, &part, &[]), Err(Broken("a message in several frames")));
    assert!(feed(Framing::Websocket, b"SMTP?\r\n\r\n", &[]).is_err());
    let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert!(feed(Framing::EventStream, chunk, &[]).is_err());
}

#[test]
fn the_last_chunk_ends_a_body() {
    let mut chunks = Chunks::default();
    let mut body = Vec::new();
    let bytes = b"3\r\nabc\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1";
    let taken = chunks.feed(bytes, |data| body.extend_from_slice(data)).unwrap();
    assert_eq!(body, b"abc");
    assert_eq!(chunks, Chunks::Done);
    assert_eq!(&bytes[taken..], b"HTTP/1.1");
}

proptest! {
    #[test]
    fn where_a_stream_is_cut_does_not_matter(cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        for (framing, (bytes, expected)) in [
            (Framing::Websocket, websocket()),
            (Framing::EventStream, event_stream()),
            (Framing::WebsocketNats, nats()),
        ] {
            prop_assert_eq!(feed(framing, &bytes, &cuts).unwrap(), expected);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), cut: usize) {
        for framing in [Framing::Websocket, Framing::EventStream, Framing::WebsocketNats] {
            let stream = [SWITCHING, &bytes].concat();
            let _ = feed(framing, &stream, &[cut]);
        }
    }
}
