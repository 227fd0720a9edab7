//! What arrives on a subscriber's socket, cut into messages.
//!
//! Frugal on purpose: whole messages are looked at where they were read, and only what is cut off
//! at the end of a read is kept. Written for this program and not taken from the server, so that
//! a mistake in one is not hidden by the same mistake in the other.

pub(crate) mod chunked;
pub(crate) mod events;
pub(crate) mod frames;
pub(crate) mod head;
pub(crate) mod nats;

use self::chunked::Chunks;
use self::frames::{Frame, Opcode};

/// The stream does not keep to its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// What a server's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// The answer to the request, by its status.
    Status(u16),
    /// A message: a frame's payload, a stream's event, a line and its payload in NATS.
    Message(&'a [u8]),
    /// A WebSocket ping, to be answered.
    Ping(&'a [u8]),
    /// The server ends the connection, with this code if it gave one.
    Close(Option<u16>),
}

/// How a subscriber's connection is cut into messages once the answer's head is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Framing {
    /// A WebSocket whose every data frame is one message.
    #[default]
    Websocket,
    /// A WebSocket whose frames together are a stream in NATS's protocol.
    WebsocketNats,
    /// Server-Sent Events.
    EventStream,
}

/// What was read of one connection and what is left of it.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    stage: Stage,
    /// Bytes of a frame or head that is not complete yet.
    pending: Vec<u8>,
    /// The same one level further in: of an event, or of a line of NATS.
    inner: Vec<u8>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Head,
    Frames,
    Chunked(Chunks),
    Plain,
}

impl Inbound {
    /// Takes bytes as they were read and tells the pieces that they complete.
    ///
    /// # Errors
    /// When the server broke the protocol; the connection is of no use then.
    pub(crate) fn feed(
        &mut self,
        framing: Framing,
        bytes: &[u8],
        mut tell: impl FnMut(Piece<'_>),
    ) -> Result<(), Broken> {
        if self.pending.is_empty() {
            let taken = self.take(framing, bytes, &mut tell)?;
            self.pending.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let taken = self.take(framing, &pending, &mut tell)?;
        pending.drain(..taken);
        if !pending.is_empty() {
            self.pending = pending;
        }
        Ok(())
    }

    /// Tells what is complete; how many bytes that was.
    fn take(
        &mut self,
        framing: Framing,
        bytes: &[u8],
        tell: &mut impl FnMut(Piece<'_>),
    ) -> Result<usize, Broken> {
        let mut taken = 0;
        if matches!(self.stage, Stage::Head) {
            let Some(head) = head::read(bytes)? else { return Ok(0) };
            taken = head.length;
            self.stage = match framing {
                Framing::EventStream if head.chunked => Stage::Chunked(Chunks::default()),
                Framing::EventStream => Stage::Plain,
                Framing::Websocket | Framing::WebsocketNats => Stage::Frames,
            };
            tell(Piece::Status(head.status));
        }
        let rest = &bytes[taken..];
        taken += match &mut self.stage {
            Stage::Head => 0,
            Stage::Frames if framing == Framing::WebsocketNats => {
                take_nats(&mut self.inner, rest, tell)?
            }
            Stage::Frames => frames::scan(rest, |frame| tell_frame(frame, tell))?,
            Stage::Chunked(chunks) => {
                let inner = &mut self.inner;
                chunks.feed(rest, |data| take_events(inner, data, tell))?;
                rest.len()
            }
            Stage::Plain => {
                take_events(&mut self.inner, rest, tell);
                rest.len()
            }
        };
        Ok(taken)
    }
}

fn tell_frame(frame: Frame<'_>, tell: &mut impl FnMut(Piece<'_>)) -> Result<(), Broken> {
    match frame.opcode {
        Opcode::Text | Opcode::Binary if frame.is_last => tell(Piece::Message(frame.payload)),
        Opcode::Text | Opcode::Binary | Opcode::Continuation => {
            return Err(Broken("a message in several frames"));
        }
        Opcode::Ping => tell(Piece::Ping(frame.payload)),
        Opcode::Pong => {}
        Opcode::Close => tell(Piece::Close(close_code(frame.payload))),
    }
    Ok(())
}

fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

fn take_nats(
    inner: &mut Vec<u8>,
    bytes: &[u8],
    tell: &mut impl FnMut(Piece<'_>),
) -> Result<usize, Broken> {
    frames::scan(bytes, |frame| match frame.opcode {
        Opcode::Text | Opcode::Binary | Opcode::Continuation => {
            through(inner, frame.payload, |bytes| {
                nats::scan(bytes, |message| tell(Piece::Message(message)))
            })
        }
        _ => tell_frame(frame, tell),
    })
}

fn take_events(inner: &mut Vec<u8>, bytes: &[u8], tell: &mut impl FnMut(Piece<'_>)) {
    let scanned =
        through(inner, bytes, |bytes| Ok(events::scan(bytes, |event| tell(Piece::Message(event)))));
    debug_assert!(scanned.is_ok(), "any bytes are events");
}

/// Scans what is left over together with what is new, and keeps what is not complete.
pub(crate) fn through(
    left: &mut Vec<u8>,
    bytes: &[u8],
    mut scan: impl FnMut(&[u8]) -> Result<usize, Broken>,
) -> Result<(), Broken> {
    if left.is_empty() {
        let taken = scan(bytes)?;
        left.extend_from_slice(&bytes[taken..]);
        return Ok(());
    }
    left.extend_from_slice(bytes);
    let taken = scan(left)?;
    left.drain(..taken);
    if left.is_empty() {
        // Ten thousand of these: an idle one holds nothing.
        *left = Vec::new();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
