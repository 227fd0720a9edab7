//! JSON strings as `jsonb` prints them.

use std::fmt::Write;

/// Appends a JSON string of the text.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // Only ASCII bytes come here, so these are places between characters.
        out.push_str(&text[plain..at]);
        escape(byte, out);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn escape(byte: u8, out: &mut String) {
    let short = match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        0x08 => "\\b",
        0x0C => "\\f",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        _ => {
            write!(out, "\\u{byte:04x}").expect("writing to a string cannot fail");
            return;
        }
    };
    out.push_str(short);
}
