//! WebSocket frames from a server (RFC 6455, section 5.2): never masked, no extensions.

use super::Broken;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    /// Whether it ends its message.
    pub(crate) is_last: bool,
    pub(crate) payload: &'a [u8],
}

/// Tells every complete frame; the number of bytes they were.
///
/// # Errors
/// [`Broken`] for what no server may send, and whatever `tell` answers.
pub(crate) fn scan(
    bytes: &[u8],
    mut tell: impl FnMut(Frame<'_>) -> Result<(), Broken>,
) -> Result<usize, Broken> {
    let mut at = 0;
    while let Some((frame, length)) = first(&bytes[at..])? {
        at += length;
        tell(frame)?;
    }
    Ok(at)
}

/// The frame at the beginning, with the number of its bytes; `None` when it is not complete.
fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Broken("a frame with reserved bits"));
    }
    if second & 0x80 != 0 {
        return Err(Broken("a masked frame from a server"));
    }
    let (length, head): (u64, usize) = match second & 0x7F {
        126 => match rest.first_chunk() {
            Some(long) => (u64::from(u16::from_be_bytes(*long)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(long) => (u64::from_be_bytes(*long), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let length = usize::try_from(length).map_err(|_| Broken("a frame beyond all measure"))?;
    let end = head.checked_add(length).ok_or(Broken("a frame beyond all measure"))?;
    let Some(payload) = bytes.get(head..end) else { return Ok(None) };
    let frame = Frame { opcode: opcode(first & 0x0F)?, is_last: first & 0x80 != 0, payload };
    Ok(Some((frame, end)))
}

fn opcode(number: u8) -> Result<Opcode, Broken> {
    Ok(match number {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Broken("a frame of unknown kind")),
    })
}

/// Adds a frame as a client writes it. The mask is zero, which masks nothing and is allowed; it
/// saves work here and costs a server what any mask costs it.
pub(crate) fn put(out: &mut Vec<u8>, is_binary: bool, payload: &[u8]) {
    put_opcode(out, if is_binary { 2 } else { 1 }, payload);
}

/// Adds the answer to a ping.
pub(crate) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_opcode(out, 10, payload);
}

fn put_opcode(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(0x80 | short),
        (_, Ok(long)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}
