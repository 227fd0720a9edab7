//! Server-Sent Events: what stands between two empty lines.

use memchr::memchr_iter;

/// Tells every complete event, comments and all, without the empty line; the number of bytes taken.
pub(crate) fn scan(bytes: &[u8], mut tell: impl FnMut(&[u8])) -> usize {
    let mut event = 0;
    let mut line = 0;
    for end in memchr_iter(b'\n', bytes) {
        let is_empty = matches!(&bytes[line..end], b"" | b"\r");
        if is_empty {
            if line > event {
                tell(&bytes[event..line]);
            }
            event = end + 1;
        }
        line = end + 1;
    }
    event
}
