//! The `hstore` of the extension: `"a"=>"1", "b"=>NULL`; it has a cast to JSON, which
//! `to_jsonb` uses.

use super::object::Object;
use super::{Misshapen, quote};

/// Appends a JSON object of strings and nulls.
pub(super) fn write(text: &str, out: &mut String) -> Result<(), Misshapen> {
    let mut object = Object::default();
    let mut rest = text;
    while !rest.is_empty() {
        let key = quoted(&mut rest)?;
        rest = rest.strip_prefix("=>").ok_or(Misshapen)?;
        let mut value = String::new();
        match rest.strip_prefix("NULL") {
            Some(after) => {
                rest = after;
                value.push_str("null");
            }
            None => quote(&quoted(&mut rest)?, &mut value),
        }
        object.add(key, value);
        if !rest.is_empty() {
            rest = rest.strip_prefix(", ").ok_or(Misshapen)?;
        }
    }
    object.write(out);
    Ok(())
}

/// Text between quotes, with escapes undone.
fn quoted(rest: &mut &str) -> Result<String, Misshapen> {
    let text = rest.strip_prefix('"').ok_or(Misshapen)?;
    let mut taken = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &text[at + 1..];
                return Ok(taken);
            }
            '\\' => taken.push(chars.next().ok_or(Misshapen)?.1),
            _ => taken.push(c),
        }
    }
    Err(Misshapen)
}
