//! Numbers as text, without an allocation and without the machinery of formats.

use std::ops::Deref;

/// Bytes of the longest text: a position, which is two numbers of 64 bits, one of them in
/// hexadecimal, and what is between them.
const LONGEST: usize = 16 + 1 + 20;

/// The text of a number or two, written from its end.
pub(crate) struct Digits {
    bytes: [u8; LONGEST],
    start: usize,
}

impl Digits {
    /// A number in decimal.
    pub(crate) fn decimal(number: u64) -> Self {
        let mut digits = Self { bytes: [0; LONGEST], start: LONGEST };
        digits.prepend::<10>(number);
        digits
    }

    /// The first number in hexadecimal, a hyphen, and the second in decimal.
    pub(crate) fn hyphenated(first: u64, second: u64) -> Self {
        let mut digits = Self::decimal(second);
        digits.put(b'-');
        digits.prepend::<16>(first);
        digits
    }

    /// A place in PostgreSQL's log, as PostgreSQL prints it.
    pub(crate) fn lsn(lsn: u64) -> Self {
        let mut digits = Self { bytes: [0; LONGEST], start: LONGEST };
        digits.prepend::<16>(lsn & 0xFFFF_FFFF);
        digits.put(b'/');
        digits.prepend::<16>(lsn >> 32);
        digits.bytes[digits.start..].make_ascii_uppercase();
        digits
    }

    fn prepend<const BASE: u64>(&mut self, mut number: u64) {
        for place in self.bytes[..self.start].iter_mut().rev() {
            let digit = (number % BASE) as u8;
            *place = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            self.start -= 1;
            number /= BASE;
            if number == 0 {
                return;
            }
        }
    }

    fn put(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }
}

impl Deref for Digits {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).expect("digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_a_format(first: u64, second: u64) {
            prop_assert_eq!(&*Digits::decimal(first), first.to_string());
            prop_assert_eq!(&*Digits::hyphenated(first, second), format!("{first:x}-{second}"));
            let (high, low) = (first >> 32, first & 0xFFFF_FFFF);
            prop_assert_eq!(&*Digits::lsn(first), format!("{high:X}/{low:X}"));
        }
    }

    #[test]
    fn the_longest_numbers_have_room() {
        assert_eq!(
            &*Digits::hyphenated(u64::MAX, u64::MAX),
            "ffffffffffffffff-18446744073709551615"
        );
        assert_eq!(&*Digits::hyphenated(0, 0), "0-0");
    }
}
