//! Messages of the protocol: a letter, a length that counts itself, and that much.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

/// Letter and length.
const HEAD: usize = 5;

/// Longest message that makes sense: PostgreSQL itself builds none over 1 GiB.
const LONGEST: usize = 1 << 30;

/// How much of a message that is skipped is kept, to know what it was about: the longest topic, as
/// JSON writes it, and what is before it.
const KEPT: usize = 1024;

/// Room made for reading; larger reads mean fewer calls when rows pour in.
const ROOM: usize = 64 * 1024;

/// Room with which the next read makes do. What was read keeps its buffer alive until it is worked
/// on, so a buffer is used up before the next is begun, even by reads of a hundred bytes.
const LITTLE_ROOM: usize = 16 * 1024;

/// Larger messages have a buffer to themselves.
const LARGE: usize = 1024 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
    /// Bytes of the body that were too many to be kept.
    pub(crate) skipped: usize,
}

impl Frame {
    /// The columns of a row of text.
    pub(super) fn columns(&self) -> io::Result<Vec<Option<String>>> {
        let mut body = &*self.body;
        let short = || io::Error::new(io::ErrorKind::InvalidData, "a row that is too short");
        let count = body.try_get_u16().map_err(|_| short())?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let length = body.try_get_i32().map_err(|_| short())?;
            columns.push(match usize::try_from(length) {
                Err(_) => None,
                Ok(length) => {
                    let text = body.get(..length).ok_or_else(short)?;
                    body = &body[length..];
                    Some(String::from_utf8_lossy(text).into_owned())
                }
            });
        }
        Ok(columns)
    }
}

/// Bytes that came, cut into messages.
#[derive(Debug)]
pub(crate) struct Frames {
    input: BytesMut,
    /// Longest body that is kept.
    limit: usize,
    /// What is still to be passed over.
    skipping: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { input: BytesMut::new(), limit: LONGEST, skipping: 0 }
    }
}

impl Frames {
    /// From here on only the beginning of messages longer than this is kept.
    pub(crate) fn limit(&mut self, bytes: usize) {
        self.limit = bytes.clamp(KEPT, LONGEST);
    }

    /// Where to read more to.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        if self.input.capacity() - self.input.len() < LITTLE_ROOM {
            self.input.reserve(ROOM);
        }
        &mut self.input
    }

    /// The next message, when it is there as a whole.
    ///
    /// # Errors
    /// When the bytes are no messages.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        self.skip();
        if self.skipping > 0 || self.input.len() < HEAD {
            return Ok(None);
        }
        let tag = self.input[0];
        let length = (&self.input[1..]).get_u32() as usize;
        if !(4..=LONGEST).contains(&length) {
            let problem = format!("a message of {length} bytes: this is not PostgreSQL");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let body = length - 4;
        let kept = if body > self.limit { KEPT } else { body };
        if self.input.len() < HEAD + kept {
            // With room for reading, so that a large buffer need not be doubled for the last bytes.
            self.input.reserve(HEAD + kept - self.input.len() + ROOM);
            return Ok(None);
        }
        self.input.advance(HEAD);
        let cut = self.input.split_to(kept);
        if kept > LARGE {
            // What follows does not keep its memory.
            self.input = BytesMut::from(&self.input[..]);
        }
        let frame = Frame { tag, body: cut.freeze(), skipped: body - kept };
        self.skipping = frame.skipped;
        self.skip();
        Ok(Some(frame))
    }

    fn skip(&mut self) {
        let passed = self.skipping.min(self.input.len());
        self.input.advance(passed);
        self.skipping -= passed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    proptest! {
        #[test]
        fn messages_are_cut_however_the_bytes_come(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 0..6),
            piece in 1_usize..2_000,
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
            let mut frames = Frames::default();
            frames.limit(1_500);
            let mut cut = Vec::new();
            for piece in bytes.chunks(piece) {
                frames.input().extend_from_slice(piece);
                while let Some(frame) = frames.next().unwrap() {
                    cut.push(frame);
                }
            }
            prop_assert_eq!(cut.len(), bodies.len());
            for (frame, body) in cut.iter().zip(&bodies) {
                let kept = if body.len() > 1_500 { KEPT } else { body.len() };
                prop_assert_eq!(&*frame.body, &body[..kept]);
                prop_assert_eq!(frame.skipped, body.len() - kept);
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for length in [0_u32, 3, u32::MAX] {
            let mut frames = Frames::default();
            frames.input().extend_from_slice(b"H");
            frames.input().extend_from_slice(&length.to_be_bytes());
            assert!(frames.next().is_err(), "{length}");
        }
    }

    #[test]
    fn a_row_has_its_columns() {
        let body = b"\0\x02\xff\xff\xff\xff\0\0\0\x02hi";
        let frame = Frame { tag: b'D', body: Bytes::from_static(body), skipped: 0 };
        assert_eq!(frame.columns().unwrap(), [None, Some("hi".to_owned())]);
        let short = Frame { tag: b'D', body: Bytes::from_static(&body[..11]), skipped: 0 };
        assert!(short.columns().is_err());
    }
}
