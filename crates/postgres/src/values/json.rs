//! The type `json`, which keeps text as it was written, turned to what `jsonb` would hold.
//!
//! White space goes, the last of equal keys wins, keys are put in order, numbers lose their
//! exponents. What `jsonb` cannot hold (`\u0000`, half of a surrogate pair, 10^131072, nesting that
//! is very deep, 256 MiB of numbers) makes `to_jsonb` fail in PostgreSQL; here the text is passed on
//! as it was written.

use super::object::Object;
use super::{Misshapen, number, quote, separate};

/// Most bytes that the parts of a `jsonb` have together. Exponents written out could make them any
/// number: of `1e131071`, which has 8, they make 131,072.
const MOST: usize = 0x0FFF_FFFF;

/// Deepest nesting that is taken apart, so that no text overflows the stack.
const DEEPEST: usize = 400;

/// Appends what `jsonb` would print.
pub(super) fn write(text: &str, out: &mut String) {
    write_at_most(MOST, text, out);
}

fn write_at_most(most: usize, text: &str, out: &mut String) {
    let start = out.len();
    // What is there may be of the same array.
    let mut parser = Parser { text, at: 0, left: most.saturating_sub(start) };
    if parser.document(out).is_err() {
        out.truncate(start);
        out.push_str(text);
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// Bytes of numbers that there may still be.
    left: usize,
}

impl<'t> Parser<'t> {
    fn document(&mut self, out: &mut String) -> Result<(), Misshapen> {
        self.value(0, out)?;
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Misshapen) }
    }

    fn value(&mut self, depth: usize, out: &mut String) -> Result<(), Misshapen> {
        self.skip_space();
        match self.peek().ok_or(Misshapen)? {
            _ if depth == DEEPEST => Err(Misshapen),
            b'{' => self.object(depth, out),
            b'[' => self.array(depth, out),
            b'"' => {
                quote(&self.string()?, out);
                Ok(())
            }
            b't' => self.word("true", out),
            b'f' => self.word("false", out),
            b'n' => self.word("null", out),
            _ => self.expand(out),
        }
    }

    fn expand(&mut self, out: &mut String) -> Result<(), Misshapen> {
        let start = out.len();
        number::expand(self.number(), out)?;
        self.left = self.left.checked_sub(out.len() - start).ok_or(Misshapen)?;
        Ok(())
    }

    fn object(&mut self, depth: usize, out: &mut String) -> Result<(), Misshapen> {
        let mut object = Object::default();
        self.at += 1;
        let mut first = true;
        while !self.closes(b'}', &mut first)? {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            self.expect(b':')?;
            let mut value = String::new();
            self.value(depth + 1, &mut value)?;
            object.add(key, value);
        }
        object.write(out);
        Ok(())
    }

    fn array(&mut self, depth: usize, out: &mut String) -> Result<(), Misshapen> {
        self.at += 1;
        out.push('[');
        let (mut first, mut first_out) = (true, true);
        while !self.closes(b']', &mut first)? {
            separate(&mut first_out, out);
            self.value(depth + 1, out)?;
        }
        out.push(']');
        Ok(())
    }

    /// Takes the end of a list, or what is before its next item.
    fn closes(&mut self, end: u8, first: &mut bool) -> Result<bool, Misshapen> {
        self.skip_space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(true);
        }
        if !std::mem::replace(first, false) {
            self.expect(b',')?;
        }
        Ok(false)
    }

    fn string(&mut self) -> Result<String, Misshapen> {
        self.expect(b'"')?;
        let mut taken = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(['"', '\\']).ok_or(Misshapen)?;
            taken.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == b'"' {
                return Ok(taken);
            }
            taken.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Misshapen> {
        let letter = self.peek().ok_or(Misshapen)?;
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(Misshapen),
        })
    }

    fn unicode(&mut self) -> Result<char, Misshapen> {
        let first = self.hex()?;
        let second = match first {
            0xD800..0xDC00 => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                Some(self.hex()?)
            }
            _ => None,
        };
        let mut decoded = char::decode_utf16(std::iter::once(first).chain(second));
        match (decoded.next(), decoded.next()) {
            (Some(Ok(c)), None) if c != '\0' => Ok(c),
            _ => Err(Misshapen),
        }
    }

    fn hex(&mut self) -> Result<u16, Misshapen> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Misshapen)?;
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| Misshapen)
    }

    fn number(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let is_part = |c: char| matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn word(&mut self, word: &str, out: &mut String) -> Result<(), Misshapen> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Misshapen);
        }
        self.at += word.len();
        out.push_str(word);
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), Misshapen> {
        if self.peek() != Some(byte) {
            return Err(Misshapen);
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_grow_beyond_all_bounds_are_passed_on_as_written() {
        let written = |most| {
            let mut out = String::from("[");
            write_at_most(most, r#"[ 1e3, {"a": [1e3]} ]"#, &mut out);
            out
        };
        assert_eq!(written(9), r#"[[1000, {"a": [1000]}]"#);
        assert_eq!(written(8), r#"[[ 1e3, {"a": [1e3]} ]"#);
    }
}
