//! What every measured payload carries: who said it, where, which one it is, and when.
//!
//! Fixed-width digits behind a mark, so that a received message is judged by one search and no
//! parser, whatever envelope a server put around it. Nothing in it needs escaping in JSON or SQL.

use memchr::memmem::Finder;

/// Begins every stamp.
const MARK: &[u8] = b"~tw";

/// Digits of lane, topic, number and time.
const WIDTHS: [usize; 4] = [3, 6, 10, 19];

/// Bytes of a stamp: the mark, the digits, and a closing `~`.
pub(crate) const LENGTH: usize = 3 + 3 + 6 + 10 + 19 + 1;

/// What one payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The publishing connection. Only events of one lane have an order that was promised.
    pub(crate) lane: u32,
    /// The topic's number.
    pub(crate) topic: u32,
    /// Counts a lane's events on a topic, from 1.
    pub(crate) number: u32,
    /// When it was handed to the socket, by [`crate::clock::now`].
    pub(crate) sent: u64,
}

impl Stamp {
    /// A payload with this stamp, filled up to `size` bytes.
    pub(crate) fn payload(self, size: usize) -> String {
        let Self { lane, topic, number, sent } = self;
        let mut text = format!("~tw{lane:03}{topic:06}{number:010}{sent:019}~");
        while text.len() < size {
            text.push('x');
        }
        text
    }
}

/// Finds stamps.
pub(crate) struct Stamps(Finder<'static>);

impl Stamps {
    /// The search, prepared.
    pub(crate) fn new() -> Self {
        Self(Finder::new(MARK))
    }

    /// The first stamp in a message, if there is one.
    pub(crate) fn find(&self, message: &[u8]) -> Option<Stamp> {
        let at = self.0.find(message)?;
        let stamp = message.get(at..at + LENGTH)?;
        let (digits, end) = stamp[MARK.len()..].split_at(LENGTH - MARK.len() - 1);
        if end != b"~" {
            return None;
        }
        let (lane, rest) = digits.split_at(WIDTHS[0]);
        let (topic, rest) = rest.split_at(WIDTHS[1]);
        let (number, sent) = rest.split_at(WIDTHS[2]);
        Some(Stamp {
            lane: u32::try_from(read(lane)?).ok()?,
            topic: u32::try_from(read(topic)?).ok()?,
            number: u32::try_from(read(number)?).ok()?,
            sent: read(sent)?,
        })
    }
}

fn read(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { lane: 7, topic: 9_999, number: 123_456, sent: 1_234_567_890_123 };

    #[test]
    fn a_stamp_is_found_in_any_envelope() {
        let payload = STAMP.payload(128);
        assert_eq!(payload.len(), 128);
        for envelope in ["{}", "{\"data\":\"{}\"}", "id: 17:~\ndata: {}\n"] {
            let message = envelope.replace("{}", &payload);
            assert_eq!(Stamps::new().find(message.as_bytes()), Some(STAMP), "{message}");
        }
    }

    #[test]
    fn what_is_no_stamp_is_not_taken_for_one() {
        let payload = STAMP.payload(0);
        assert_eq!(payload.len(), LENGTH);
        for message in ["", "~tw", "{\"type\":\"welcome\"}", &payload[..LENGTH - 1]] {
            assert_eq!(Stamps::new().find(message.as_bytes()), None, "{message}");
        }
        let spoilt = payload.replace('7', "?");
        assert_eq!(Stamps::new().find(spoilt.as_bytes()), None);
    }
}
