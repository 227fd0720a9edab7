//! The head of an HTTP answer: just what is needed to know where its body begins and ends.

use memchr::memmem;

use super::Broken;

/// More than any server here sends; beyond it something else is speaking.
const LIMIT: usize = 64 << 10;

/// An answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes up to and including the empty line.
    pub(crate) length: usize,
    pub(crate) status: u16,
    /// Whether the body comes in chunks.
    pub(crate) chunked: bool,
    /// Bytes of the body, where the head says so.
    pub(crate) content_length: Option<usize>,
}

/// The head at the beginning; `None` when it is not complete.
///
/// # Errors
/// When it is none.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > LIMIT { Err(Broken("an endless head")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Broken("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(status).ok_or(Broken("a head without a status"))?;
    let mut head = Head { length: end + 4, status, chunked: false, content_length: None };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.trim().eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("content-length") {
            head.content_length = value.trim().parse().ok();
        }
    }
    Ok(Some(head))
}

fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}
