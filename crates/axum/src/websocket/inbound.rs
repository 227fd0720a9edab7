//! Bytes from a client to messages: the reading half of RFC 6455.
//!
//! Pure: no socket, no clock. Bytes come in whatever pieces the network made of them; messages go
//! out whole, with control frames where they stood between fragments. Frame headers are parsed by
//! tungstenite; this file joins pieces and keeps the rules. Between messages nothing is held but
//! one pointer, so an idle connection costs nothing here.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use tidewire_protocol::Close;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest frame header: two bytes, eight of length, four of mask (RFC 6455, section 5.2).
const MAX_HEADER_BYTES: usize = 14;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

/// Something whole that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A text message, fragments joined.
    Text(String),
    /// A binary message, fragments joined.
    Binary(Bytes),
    /// A ping, whose payload wants to come back.
    Ping(Bytes),
    /// A pong; only a sign of life.
    Pong,
    /// The client ends the connection; nothing after it is read. `None` when it gave no code.
    Close(Option<u16>),
}

/// Joins the bytes of one connection to messages.
#[derive(Default)]
pub(crate) struct Inbound {
    /// Exists only while a frame or a message is incomplete.
    partial: Option<Box<Partial>>,
    /// The client said that it ends, so what follows has no meaning.
    ended: bool,
}

#[derive(Default)]
struct Partial {
    /// Bytes of a header that is not complete yet; shorter than [`MAX_HEADER_BYTES`].
    header: Vec<u8>,
    /// The frame whose payload is not complete yet.
    frame: Option<Incomplete>,
    /// The message whose last fragment has not come yet, or is just coming.
    message: Option<Assembly>,
}

/// A frame of which the header is known.
struct Incomplete {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of payload still to come.
    missing: usize,
    /// Payload of a control frame so far; a data frame's goes into the message.
    control: Vec<u8>,
}

struct Assembly {
    is_text: bool,
    bytes: BytesMut,
}

impl Inbound {
    /// Takes the next bytes, unmasks them in place, and appends what they complete to `messages`.
    ///
    /// `limit` is the longest message in bytes.
    ///
    /// # Errors
    /// `ProtocolError`, `TooLarge` (told from the header, before anything is held) or `BadUtf8`;
    /// messages before the offence are in `messages`. No call may follow an error.
    pub(crate) fn read(
        &mut self,
        mut bytes: &mut [u8],
        limit: usize,
        messages: &mut Vec<Message>,
    ) -> Result<(), Close> {
        if self.partial.is_none() && bytes.is_empty() {
            return Ok(());
        }
        let mut partial = self.partial.take().unwrap_or_default();
        while !self.ended {
            if partial.frame.is_none() {
                match partial.begin(bytes, limit)? {
                    Some(used) => bytes = &mut bytes[used..],
                    None => break,
                }
            }
            let used = partial.fill(bytes);
            bytes = &mut bytes[used..];
            if partial.is_short() {
                break;
            }
            if let Some(message) = partial.finish()? {
                self.ended = matches!(message, Message::Close(_));
                messages.push(message);
            }
        }
        if !self.ended && !partial.is_empty() {
            self.partial = Some(partial);
        }
        Ok(())
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    fn is_short(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.missing > 0)
    }

    /// Reads a header; the bytes used of `bytes`, or `None` when more are needed.
    fn begin(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Close> {
        let held = self.header.len();
        let room = bytes.len().min(MAX_HEADER_BYTES - held);
        let (parsed, end) = if held == 0 {
            parse(&bytes[..room])?
        } else {
            self.header.extend_from_slice(&bytes[..room]);
            parse(&self.header)?
        };
        let Some((header, length)) = parsed else {
            if held == 0 {
                self.header = bytes.to_vec();
            }
            return Ok(None);
        };
        self.header = Vec::new();
        self.frame = Some(self.admit(&header, length, limit)?);
        Ok(Some(end - held))
    }

    /// Checks a header against the rules.
    fn admit(
        &mut self,
        header: &FrameHeader,
        length: u64,
        limit: usize,
    ) -> Result<Incomplete, Close> {
        let mask = header.mask.ok_or(Close::ProtocolError)?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Close::ProtocolError);
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > MAX_CONTROL_BYTES => {
                return Err(Close::ProtocolError);
            }
            OpCode::Control(_) => {}
            OpCode::Data(data) => self.admit_data(data, length, limit)?,
        }
        Ok(Incomplete {
            opcode: header.opcode,
            is_final: header.is_final,
            mask,
            missing: usize::try_from(length).map_err(|_| Close::TooLarge)?,
            control: Vec::new(),
        })
    }

    fn admit_data(&mut self, data: Data, length: u64, limit: usize) -> Result<(), Close> {
        let continues = data == Data::Continue;
        if continues != self.message.is_some() {
            return Err(Close::ProtocolError);
        }
        let held = self.message.as_ref().map_or(0, |message| message.bytes.len());
        if length > limit.saturating_sub(held) as u64 {
            return Err(Close::TooLarge);
        }
        if !continues {
            let is_text = data == Data::Text;
            self.message = Some(Assembly { is_text, bytes: BytesMut::new() });
        }
        Ok(())
    }

    /// Takes payload bytes of the present frame; how many.
    fn fill(&mut self, bytes: &mut [u8]) -> usize {
        let frame = self.frame.as_mut().expect("a frame was begun");
        let used = bytes.len().min(frame.missing);
        let payload = &mut bytes[..used];
        unmask(payload, frame.mask);
        frame.mask.rotate_left(used % 4);
        frame.missing -= used;
        match (frame.opcode, self.message.as_mut()) {
            (OpCode::Data(_), Some(message)) => message.bytes.extend_from_slice(payload),
            _ => frame.control.extend_from_slice(payload),
        }
        used
    }

    /// Ends the present frame; the message it completes, if it does.
    fn finish(&mut self) -> Result<Option<Message>, Close> {
        let frame = self.frame.take().expect("a frame was begun");
        match frame.opcode {
            OpCode::Data(_) if frame.is_final => {
                self.message.take().map(Assembly::into_message).transpose()
            }
            OpCode::Data(_) => Ok(None),
            OpCode::Control(Control::Ping) => Ok(Some(Message::Ping(frame.control.into()))),
            OpCode::Control(Control::Pong) => Ok(Some(Message::Pong)),
            OpCode::Control(_) => close_code(&frame.control).map(|code| Some(Message::Close(code))),
        }
    }
}

impl Assembly {
    fn into_message(self) -> Result<Message, Close> {
        if !self.is_text {
            return Ok(Message::Binary(self.bytes.freeze()));
        }
        String::from_utf8(self.bytes.into()).map(Message::Text).map_err(|_| Close::BadUtf8)
    }
}

/// The header at the front of `bytes` with its payload's length, and where it ends.
fn parse(bytes: &[u8]) -> Result<(Option<(FrameHeader, u64)>, usize), Close> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Close::ProtocolError)?;
    Ok((parsed, cursor.position() as usize))
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // Four by four, which the compiler widens; the rest one by one.
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Bad Gateway, which the registry of close codes has and tungstenite does not know.
const BAD_GATEWAY: u16 = 1014;

/// Whether a close frame may carry the code.
fn may_be_sent(code: u16) -> bool {
    code == BAD_GATEWAY || CloseCode::from(code).is_allowed()
}

/// The code in a close frame's payload (RFC 6455, section 5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Close> {
    match payload {
        [] => Ok(None),
        [_] => Err(Close::ProtocolError),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Close::ProtocolError);
            }
            std::str::from_utf8(reason).map_err(|_| Close::BadUtf8)?;
            Ok(Some(code))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::Frame;

    use super::*;

    const LIMIT: usize = 1 << 16;

    /// What one frame says, for tungstenite to write.
    #[derive(Clone, Debug)]
    struct Spec {
        opcode: OpCode,
        is_final: bool,
        payload: Vec<u8>,
        mask: [u8; 4],
    }

    impl Spec {
        fn data(data: Data, is_final: bool, payload: &[u8]) -> Self {
            let opcode = OpCode::Data(data);
            Self { opcode, is_final, payload: payload.to_vec(), mask: [1, 2, 3, 4] }
        }

        fn control(control: Control, payload: &[u8]) -> Self {
            let opcode = OpCode::Control(control);
            Self { opcode, is_final: true, payload: payload.to_vec(), mask: [9, 8, 7, 6] }
        }

        /// The frame's bytes, header and masking by tungstenite.
        fn bytes(&self) -> Vec<u8> {
            let header = FrameHeader {
                opcode: self.opcode,
                is_final: self.is_final,
                mask: Some(self.mask),
                ..FrameHeader::default()
            };
            let mut out = Vec::new();
            Frame::from_payload(header, self.payload.clone().into()).format(&mut out).unwrap();
            out
        }
    }

    fn joined(specs: &[Spec]) -> Vec<u8> {
        specs.iter().flat_map(Spec::bytes).collect()
    }

    /// Feeds `bytes` in pieces that end at `cuts`.
    fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<Message>, Result<(), Close>) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let (mut inbound, mut messages, mut from) = (Inbound::default(), Vec::new(), 0);
        for end in ends {
            let mut piece = bytes[from..end].to_vec();
            if let Err(close) = inbound.read(&mut piece, LIMIT, &mut messages) {
                return (messages, Err(close));
            }
            from = end;
        }
        (messages, Ok(()))
    }

    fn read(specs: &[Spec]) -> (Vec<Message>, Result<(), Close>) {
        read_in_pieces(&joined(specs), &[])
    }

    /// A stream that keeps the rules: messages in fragments with control frames between them,
    /// and what it should read as.
    fn conversation() -> impl Strategy<Value = (Vec<Spec>, Vec<Message>)> {
        let fragment = ("[a-zé🦀]{0,80}", any::<[u8; 4]>(), any::<bool>());
        let message = (any::<bool>(), prop::collection::vec(fragment, 1..4));
        prop::collection::vec(message, 0..8).prop_map(|list| {
            let (mut specs, mut expected) = (Vec::new(), Vec::new());
            for (is_text, fragments) in list {
                write_message(is_text, &fragments, &mut specs, &mut expected);
            }
            (specs, expected)
        })
    }

    fn write_message(
        is_text: bool,
        fragments: &[(String, [u8; 4], bool)],
        specs: &mut Vec<Spec>,
        expected: &mut Vec<Message>,
    ) {
        let mut whole = String::new();
        for (index, (part, mask, ping)) in fragments.iter().enumerate() {
            let data = match (index, is_text) {
                (0, true) => Data::Text,
                (0, false) => Data::Binary,
                _ => Data::Continue,
            };
            let is_final = index + 1 == fragments.len();
            let spec = Spec::data(data, is_final, part.as_bytes());
            specs.push(Spec { mask: *mask, ..spec });
            whole.push_str(part);
            if *ping && !is_final {
                specs.push(Spec::control(Control::Ping, b"hm"));
                expected.push(Message::Ping(Bytes::from_static(b"hm")));
            }
        }
        expected.push(match is_text {
            true => Message::Text(whole),
            false => Message::Binary(whole.into()),
        });
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_messages(
            (specs, expected) in conversation(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let (messages, result) = read_in_pieces(&joined(&specs), &cuts);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(messages, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_read_the_same_in_any_split(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            prop_assert_eq!(read_in_pieces(&bytes, &cuts), read_in_pieces(&bytes, &[]));
        }

        #[test]
        fn broken_frames_never_panic_and_read_the_same_in_any_split(
            (specs, _) in conversation(),
            at in any::<usize>(),
            flip in any::<u8>(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut bytes = joined(&specs);
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= flip;
            }
            prop_assert_eq!(read_in_pieces(&bytes, &cuts), read_in_pieces(&bytes, &[]));
        }

        #[test]
        fn tungstenite_reads_single_frames_alike(
            byte: u8, length in 0usize..70_000, mask: [u8; 4],
        ) {
            let payload: Vec<u8> = (0..length).map(|index| byte ^ index as u8).collect();
            let spec = Spec { mask, ..Spec::data(Data::Binary, true, &payload) };
            let (messages, result) = read(std::slice::from_ref(&spec));
            if payload.len() > LIMIT {
                prop_assert_eq!(result, Err(Close::TooLarge));
            } else {
                prop_assert_eq!(messages, vec![Message::Binary(spec.payload.into())]);
            }
        }
    }

    #[test]
    fn nothing_is_held_between_messages() {
        let mut inbound = Inbound::default();
        let mut bytes = Spec::data(Data::Text, true, b"hello").bytes();
        inbound.read(&mut bytes, LIMIT, &mut Vec::new()).unwrap();
        assert!(inbound.partial.is_none());
        assert!(size_of::<Inbound>() <= 16);
    }

    #[test]
    fn an_unmasked_frame_is_a_protocol_error() {
        assert_eq!(read_in_pieces(&[0x81, 0], &[]).1, Err(Close::ProtocolError));
    }

    #[test]
    fn reserved_bits_and_opcodes_are_protocol_errors() {
        for first in [0xC1, 0xA1, 0x91, 0x83, 0x87, 0x8B, 0x8F] {
            let bytes = [first, 0x80, 0, 0, 0, 0];
            assert_eq!(read_in_pieces(&bytes, &[]).1, Err(Close::ProtocolError), "{first:x}");
        }
    }

    #[test]
    fn long_or_fragmented_control_frames_are_protocol_errors() {
        let long = Spec::control(Control::Ping, &[0; 126]);
        assert_eq!(read(&[long]).1, Err(Close::ProtocolError));
        let fragmented = Spec { is_final: false, ..Spec::control(Control::Ping, b"") };
        assert_eq!(read(&[fragmented]).1, Err(Close::ProtocolError));
    }

    #[test]
    fn fragments_out_of_turn_are_protocol_errors() {
        assert_eq!(read(&[Spec::data(Data::Continue, true, b"")]).1, Err(Close::ProtocolError));
        let twice = [Spec::data(Data::Text, false, b"a"), Spec::data(Data::Text, true, b"b")];
        assert_eq!(read(&twice).1, Err(Close::ProtocolError));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_header_alone() {
        let header = [0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(read_in_pieces(&header, &[]).1, Err(Close::TooLarge));
        let half = vec![b'x'; LIMIT / 2 + 1];
        let halves =
            [Spec::data(Data::Text, false, &half), Spec::data(Data::Continue, true, &half)];
        assert_eq!(read(&halves).1, Err(Close::TooLarge));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_and_may_be_split_inside_a_character() {
        assert_eq!(read(&[Spec::data(Data::Text, true, b"\xff")]).1, Err(Close::BadUtf8));
        let crab = "🦀".as_bytes();
        let split = [
            Spec::data(Data::Text, false, &crab[..2]),
            Spec::data(Data::Continue, true, &crab[2..]),
        ];
        assert_eq!(read(&split).0, [Message::Text("🦀".into())]);
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let bye = Spec::control(Control::Close, &1000u16.to_be_bytes());
        let (messages, result) = read(&[bye, Spec::data(Data::Text, true, b"more")]);
        assert_eq!((messages, result), (vec![Message::Close(Some(1000))], Ok(())));
    }

    #[test]
    fn a_close_frame_may_say_bad_gateway() {
        let bye = Spec::control(Control::Close, &1014u16.to_be_bytes());
        assert_eq!(read(&[bye]), (vec![Message::Close(Some(1014))], Ok(())));
    }

    #[test]
    fn a_close_frame_with_a_forbidden_code_is_a_protocol_error() {
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            let bye = Spec::control(Control::Close, &code.to_be_bytes());
            assert_eq!(read(&[bye]).1, Err(Close::ProtocolError), "{code}");
        }
        assert_eq!(read(&[Spec::control(Control::Close, b"x")]).1, Err(Close::ProtocolError));
    }
}
