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
        digits.prepend_decimal(number);
        digits
    }

    /// The first number in hexadecimal, a hyphen, and the second in decimal.
    pub(crate) fn hyphenated(first: u64, second: u64) -> Self {
        let mut digits = Self::decimal(second);
        digits.put(b'-');
        digits.prepend_hexadecimal(first, *b"0123456789abcdef");
        digits
    }

    /// A place in PostgreSQL's log, as PostgreSQL prints it.
    pub(crate) fn lsn(lsn: u64) -> Self {
        let mut digits = Self { bytes: [0; LONGEST], start: LONGEST };
        let capitals = *b"0123456789ABCDEF";
        digits.prepend_hexadecimal(lsn & 0xFFFF_FFFF, capitals);
        digits.put(b'/');
        digits.prepend_hexadecimal(lsn >> 32, capitals);
        digits
    }

    fn prepend_decimal(&mut self, mut number: u64) {
        // Two digits for each division.
        while number >= 100 {
            let pair = (number % 100) as u8;
            number /= 100;
            self.put(b'0' + pair % 10);
            self.put(b'0' + pair / 10);
        }
        if number >= 10 {
            self.put(b'0' + (number % 10) as u8);
            number /= 10;
        }
        self.put(b'0' + number as u8);
    }

    fn prepend_hexadecimal(&mut self, mut number: u64, digits: [u8; 16]) {
        loop {
            self.put(digits[(number & 0xF) as usize]);
            number >>= 4;
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
