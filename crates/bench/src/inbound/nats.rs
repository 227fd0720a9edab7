//! NATS's client protocol: lines, of which `MSG` announces a payload.

use memchr::memchr;

use super::Broken;

/// Tells every complete line, and with a `MSG` its payload; the number of bytes taken.
///
/// # Errors
/// When a `MSG` has no size.
pub(crate) fn scan(bytes: &[u8], mut tell: impl FnMut(&[u8])) -> Result<usize, Broken> {
    let mut at = 0;
    while let Some(end) = memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + end];
        let mut next = at + end + 1;
        if line.starts_with(b"MSG ") {
            next += payload(line)? + 2;
        }
        let Some(message) = bytes.get(at..next) else { break };
        tell(message);
        at = next;
    }
    Ok(at)
}

/// The last word of the line.
fn payload(line: &[u8]) -> Result<usize, Broken> {
    let size = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next();
    let size = size.and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
    size.ok_or(Broken("a MSG without a size"))
}
