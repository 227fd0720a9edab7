//! What a dialect reads and writes, before a transport wraps it.

use bytes::Bytes;

/// One message of a client or to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text, in most dialects one JSON object.
    Text {
        /// The text itself.
        text: String,
        /// What Server-Sent Events name it in `event:`; without one it reaches `onmessage`.
        label: Option<&'static str>,
    },
    /// Bytes, for dialects that have them.
    Binary(Bytes),
}

impl Frame {
    /// A text frame that reaches `onmessage` on Server-Sent Events.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), label: None }
    }

    /// A text frame with its own name on Server-Sent Events.
    pub fn labelled(label: &'static str, text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), label: Some(label) }
    }
}
