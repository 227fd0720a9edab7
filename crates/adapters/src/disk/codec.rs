//! Numbers and texts to bytes and back: what the records of the log are made of; pure.
//!
//! Numbers take as many bytes as they need, seven bits in each. Whatever comes back from a disk may
//! be anything, so every reading function gives `None` rather than more than is there.

/// Writes values behind one another.
pub(super) trait Put {
    /// A number, in one to ten bytes.
    fn put_number(&mut self, number: u64);
    /// Bytes with their count before them.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// A text or none.
    fn put_text(&mut self, text: Option<&str>);
}

impl Put for Vec<u8> {
    fn put_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }

    fn put_text(&mut self, text: Option<&str>) {
        match text {
            None => self.put_number(0),
            Some(text) => {
                self.put_number(text.len() as u64 + 1);
                self.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Reads values one after another.
#[derive(Clone, Copy)]
pub(super) struct Take<'b>(pub(super) &'b [u8]);

impl<'b> Take<'b> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(shift)?;
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                return (shift < 63 || bits < 2).then_some(number);
            }
        }
        None
    }

    /// A number that is to be held by something smaller.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn bytes(&mut self) -> Option<&'b [u8]> {
        let count = self.small()?;
        self.some(count)
    }

    pub(super) fn text(&mut self) -> Option<Option<&'b str>> {
        let count: usize = self.small()?;
        let Some(count) = count.checked_sub(1) else { return Some(None) };
        let text = std::str::from_utf8(self.some(count)?).ok()?;
        Some(Some(text))
    }

    /// A text that must be there.
    pub(super) fn some_text(&mut self) -> Option<&'b str> {
        self.text()?
    }

    /// A count of things that take a byte each at least, so that it cannot ask for more memory
    /// than there are bytes.
    pub(super) fn count(&mut self) -> Option<usize> {
        self.small().filter(|count| *count <= self.0.len())
    }

    fn some(&mut self, count: usize) -> Option<&'b [u8]> {
        let (some, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken_again(number: u64, text: Option<String>, bytes: Vec<u8>) {
            let mut all = Vec::new();
            all.put_number(number);
            all.put_text(text.as_deref());
            all.put_bytes(&bytes);
            let mut take = Take(&all);
            prop_assert_eq!(take.number(), Some(number));
            prop_assert_eq!(take.text(), Some(text.as_deref()));
            prop_assert_eq!(take.bytes(), Some(&bytes[..]));
            prop_assert!(take.0.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let _ = Take(&bytes).number();
            let _ = Take(&bytes).text();
            let _ = Take(&bytes).bytes();
        }
    }
}
