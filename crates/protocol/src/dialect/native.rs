//! Tidewire's own language: one JSON object per text frame.
//!
//! `docs/dialects/native.md` shows every frame; its examples are this dialect's tests. A client
//! names a topic by exactly one of `topic`, `table` and `notify`, answers repeat the request's
//! `id`, and a field that is not known is refused rather than ignored, because a mistyped `since`
//! would otherwise lose events without a word.

mod change;
mod decode;
mod encode;
mod request;

use crate::answer::{Answer, Code, Refusal};
use crate::change::Change;
use crate::close::Close;
use crate::command::{Command, Tag};
use crate::dialect::{Dialect, View};
use crate::event::Event;
use crate::frame::Frame;
use crate::position::Position;
use crate::topic::Topic;

/// The version of the language; grows when a client that knows the old one would be misled.
pub const PROTOCOL: u32 = 1;

/// Tidewire's own language.
///
/// ```
/// use tidewire_protocol::dialect::{Dialect, Native};
/// use tidewire_protocol::{Command, Frame};
///
/// let frame = Frame::text(r#"{"type":"subscribe","id":1,"topic":"room:42"}"#);
/// let commands = Native.decode(&frame).unwrap();
/// assert!(matches!(&commands[..], [Command::Subscribe(wish)] if wish.topic.name() == "room:42"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Native;

impl Dialect for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn decode(&self, frame: &Frame) -> Result<Vec<Command>, Refusal> {
        match frame {
            Frame::Text { text, .. } => Ok(vec![decode::command(text)?]),
            Frame::Binary(_) => Err(Refusal::new(
                Code::BinaryFrame,
                "frames of the native dialect are text; send the JSON as a text frame",
            )),
        }
    }

    fn answer(&self, answer: &Answer) -> Option<Frame> {
        Some(encode::answer(answer))
    }

    fn event(&self, event: &Event, _tag: Option<&Tag>) -> Option<Frame> {
        encode::event(event)
    }

    fn change(&self, event: &Event, change: &Change, view: &View<'_>) -> Option<Frame> {
        Some(change::change(event, change, view))
    }

    fn bookmark(&self, topic: &Topic, position: Position, _tag: Option<&Tag>) -> Option<Frame> {
        Some(encode::bookmark(topic, position))
    }

    fn close(&self, close: Close) -> Option<Frame> {
        Some(encode::close(close))
    }
}
