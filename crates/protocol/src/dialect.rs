//! A wire language: frames to commands, answers and events to frames.
//!
//! `subscribe`, `ack` and `error` mean different things in different languages, so a connection's
//! dialect is fixed at the handshake and never guessed from its first frame.

mod alle;
mod fluxbase;
mod native;
mod record;
mod timestamp;

use std::borrow::Cow;
use std::sync::Arc;

pub use alle::{Alle, AlleEvents};
pub use fluxbase::Fluxbase;
pub use native::{Native, PROTOCOL};
pub use timestamp::rfc3339;

use crate::answer::{Answer, Refusal};
use crate::change::Change;
use crate::close::Close;
use crate::command::{Command, Tag};
use crate::event::Event;
use crate::frame::Frame;
use crate::position::Position;
use crate::presence::{Member, PresenceDiff};
use crate::topic::Topic;
use crate::wire::Wire;

/// A wire language. Stateless: the same input always gives the same output.
///
/// What must be remembered for a subscription is a [`Tag`] that the session stores and hands back.
pub trait Dialect: Send + Sync {
    /// The name in logs and metrics; two dialects never share one.
    fn name(&self) -> &'static str;

    /// What the client asks with this frame; usually one command.
    ///
    /// # Errors
    /// A [`Refusal`] for anything that is not a request of this language; never a panic. It
    /// carries the client's id for the request where one could be read.
    fn decode(&self, frame: &Frame) -> Result<Vec<Command>, Refusal>;

    /// The frame for an answer; `None` when the language does not have such a thing.
    fn answer(&self, answer: &Answer) -> Option<Frame>;

    /// All frames for an answer, in order, for a language that tells some of them in several;
    /// otherwise the one of [`answer`](Self::answer).
    fn answers(&self, answer: &Answer) -> Vec<Frame> {
        self.answer(answer).into_iter().collect()
    }

    /// The frame for an event, called once for all sessions that share the tag; `None` when the
    /// language does not have such a thing.
    fn event(&self, event: &Event, tag: Option<&Tag>) -> Option<Frame>;

    /// The frame for a change of a row, called once for all sessions that share the view; `None`
    /// when the language does not have such a thing.
    fn change(&self, event: &Event, change: &Change, view: &View<'_>) -> Option<Frame> {
        let _ = (event, change, view);
        None
    }

    /// The frames for people who came or went, in order, called once for all sessions that share
    /// the tag; by default the one of [`event`](Self::event).
    ///
    /// `members` is everyone who is there now: for a dialect that
    /// [asks for it](Self::asks_for_members), with the last of several events, and only where it is
    /// known without waiting and not very long.
    fn presence(
        &self,
        event: &Event,
        diff: &PresenceDiff,
        members: Option<&[Member]>,
        tag: Option<&Tag>,
    ) -> Vec<Frame> {
        let _ = (diff, members);
        self.event(event, tag).into_iter().collect()
    }

    /// Whether [`presence`](Self::presence) makes use of everyone who is there.
    fn asks_for_members(&self) -> bool {
        false
    }

    /// The frame by which a listener to whom nothing was said for a while learns that it has
    /// everything up to `position`, so that it does not lose its place; `None` for a language in
    /// which clients know no places. Streams of events have an `id:` for it instead.
    fn bookmark(&self, topic: &Topic, position: Position, tag: Option<&Tag>) -> Option<Frame> {
        let _ = (topic, position, tag);
        None
    }

    /// The frame that is sent to every client on a WebSocket each 30 seconds, for languages in which
    /// the server shows by a frame of its own that it lives.
    fn heartbeat(&self) -> Option<Frame> {
        None
    }

    /// The last frame before a connection ends; `None` when the language has none.
    fn close(&self, close: Close) -> Option<Frame>;
}

/// How a group of listeners sees a change.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the dialect remembers for the subscription.
    pub tag: Option<&'a Tag>,
    /// The columns that are told; `None` for all. Key columns are told in any case.
    pub columns: Option<&'a [Arc<str>]>,
    /// What an update means to a listener with a filter.
    pub movement: Movement,
}

/// Whether a changed row was and is among those that a listener's filter admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    /// The change is what it is: the row was among them, or there is no filter.
    Within,
    /// An update moved the row in, as far as is known.
    Enters,
    /// An update moved the row out.
    Leaves,
    /// An update moved the row in, and the listener may not see what it was before.
    Appears,
    /// An update moved the row out, and the listener may not see what it is now.
    Disappears,
}

impl Movement {
    /// What of a change may be shown, and what to call the movement then.
    pub fn shown(self, change: &Change) -> (Cow<'_, Change>, Self) {
        match self {
            Self::Within | Self::Enters | Self::Leaves => (Cow::Borrowed(change), self),
            Self::Appears => (Cow::Owned(Change { old: None, ..change.clone() }), Self::Enters),
            Self::Disappears => {
                (Cow::Owned(Change { record: None, ..change.clone() }), Self::Leaves)
            }
        }
    }
}

/// What sessions must share to share encoded frames.
#[derive(Clone)]
pub struct Shape {
    /// The language.
    pub dialect: Arc<dyn Dialect>,
    /// The transport.
    pub wire: Wire,
    /// What the dialect remembers for the subscription.
    pub tag: Option<Tag>,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire
            && self.dialect.name() == other.dialect.name()
            && self.tag == other.tag
    }
}

impl Eq for Shape {}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shape({} {:?} {:?})", self.dialect.name(), self.wire, self.tag)
    }
}
