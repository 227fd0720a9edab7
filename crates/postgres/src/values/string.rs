//! JSON strings as `jsonb` prints them, which is how every string of ours is written.

use tidewire_protocol::json;

/// Appends a JSON string of the text.
pub(crate) fn quote(text: &str, out: &mut String) {
    json::string(out, text);
}
