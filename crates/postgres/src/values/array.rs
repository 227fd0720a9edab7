//! Arrays: `{1,NULL,"a b"}`, `{{1,2},{3,4}}`, `[0:1]={5,6}`.

use super::{Misshapen, Shape, piece, separate, write as write_value};

/// Most dimensions that PostgreSQL has.
const DIMENSIONS: usize = 6;

/// Appends a JSON array; lower bounds are not told, as `to_jsonb` does not.
pub(super) fn write(
    element: &Shape,
    delimiter: u8,
    text: &str,
    out: &mut String,
) -> Result<(), Misshapen> {
    let body = match text.starts_with('[') {
        true => text.split_once('=').ok_or(Misshapen)?.1,
        false => text,
    };
    let mut reader = Reader { element, delimiter, rest: body };
    reader.dimension(0, out)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(Misshapen) }
}

struct Reader<'t> {
    element: &'t Shape,
    delimiter: u8,
    rest: &'t str,
}

impl Reader<'_> {
    fn dimension(&mut self, depth: usize, out: &mut String) -> Result<(), Misshapen> {
        if depth == DIMENSIONS || !self.skip(b'{') {
            return Err(Misshapen);
        }
        out.push('[');
        let mut first = true;
        while !self.skip(b'}') {
            if !first && !self.skip(self.delimiter) {
                return Err(Misshapen);
            }
            separate(&mut first, out);
            match self.rest.starts_with('{') {
                true => self.dimension(depth + 1, out)?,
                false => self.value(out)?,
            }
        }
        out.push(']');
        Ok(())
    }

    fn value(&mut self, out: &mut String) -> Result<(), Misshapen> {
        let (value, quoted) = piece(&mut self.rest, &[self.delimiter, b'}'])?;
        if !quoted && value.eq_ignore_ascii_case("null") {
            out.push_str("null");
            return Ok(());
        }
        write_value(self.element, &value, out)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.rest.as_bytes().first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }
}

/// Appends a JSON array of what has spaces between.
pub(super) fn write_vector(element: &Shape, text: &str, out: &mut String) -> Result<(), Misshapen> {
    out.push('[');
    let mut first = true;
    for value in text.split_ascii_whitespace() {
        separate(&mut first, out);
        write_value(element, value, out)?;
    }
    out.push(']');
    Ok(())
}
