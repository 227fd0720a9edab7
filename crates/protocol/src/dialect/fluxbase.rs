//! Fluxbase's language: changes of tables, and broadcasts and presence on channels.
//!
//! It has two dialects of its own. The documented one names a table by its channel and is told
//! `broadcast` frames; the newer one, which the published SDK speaks, names it by an object, is
//! given an id for the subscription, and is told `postgres_changes`. Both are spoken here, each
//! subscription in the way it was asked for. `docs/dialects/fluxbase.md` shows every frame and says
//! where we differ from the program that the language comes from.

mod decode;
mod encode;
mod request;
mod table;

use std::borrow::Cow;

use crate::answer::{Answer, Code, Refusal};
use crate::change::Change;
use crate::close::Close;
use crate::command::{Command, Tag};
use crate::dialect::{Dialect, View};
use crate::event::Event;
use crate::frame::Frame;
use crate::presence::{Member, PresenceDiff};
use crate::topic::{Topic, TopicKind};

/// Fluxbase's language on a WebSocket.
///
/// ```
/// use tidewire_protocol::dialect::{Dialect, Fluxbase};
/// use tidewire_protocol::{Command, Frame};
///
/// let frame = Frame::text(r#"{"type":"subscribe","channel":"table:public.products"}"#);
/// let commands = Fluxbase.decode(&frame).unwrap();
/// let [Command::Subscribe(wish)] = &commands[..] else { panic!() };
/// assert_eq!(wish.topic.to_string(), "table:public.products");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fluxbase;

impl Dialect for Fluxbase {
    fn name(&self) -> &'static str {
        "fluxbase"
    }

    fn decode(&self, frame: &Frame) -> Result<Vec<Command>, Refusal> {
        match frame {
            Frame::Text { text, .. } => decode::commands(text),
            // Its server reads JSON from either sort of frame.
            Frame::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => decode::commands(text),
                Err(_) => Err(Refusal::new(Code::BadJson, "a frame is one JSON object in UTF-8")),
            },
        }
    }

    fn answer(&self, answer: &Answer) -> Option<Frame> {
        encode::answer(answer).map(Frame::text)
    }

    /// Who subscribes to a channel is told who is there, in a frame of its own.
    fn answers(&self, answer: &Answer) -> Vec<Frame> {
        let mut frames = Vec::from_iter(self.answer(answer));
        if let Answer::Subscribed { topic, members: Some(members), .. } = answer
            && !members.is_empty()
        {
            frames.push(Frame::text(encode::everyone(topic, members)));
        }
        frames
    }

    /// `None` for people who come and go, who may need several frames: see
    /// [`presence`](Dialect::presence).
    fn event(&self, event: &Event, _tag: Option<&Tag>) -> Option<Frame> {
        encode::event(event).map(Frame::text)
    }

    fn change(&self, event: &Event, change: &Change, view: &View<'_>) -> Option<Frame> {
        encode::change(event, change, view).map(Frame::text)
    }

    fn presence(
        &self,
        event: &Event,
        diff: &PresenceDiff,
        members: Option<&[Member]>,
        _tag: Option<&Tag>,
    ) -> Vec<Frame> {
        let texts = encode::presence(&event.topic.subject(), diff, members);
        texts.into_iter().map(Frame::text).collect()
    }

    fn asks_for_members(&self) -> bool {
        true
    }

    fn heartbeat(&self) -> Option<Frame> {
        Some(Frame::text(r#"{"type":"heartbeat"}"#))
    }

    fn close(&self, _close: Close) -> Option<Frame> {
        None
    }
}

/// What begins the channel of a table.
const TABLE: &str = "table:";

/// What begins a channel for administrators, which is private here.
const ADMIN: &str = "realtime:admin:";

/// The topic of a channel.
fn topic(channel: &str) -> Result<Topic, Refusal> {
    let topic = match channel.strip_prefix(TABLE) {
        Some(table) => Topic::table(table),
        None if channel.starts_with(ADMIN) => Topic::private(channel),
        None => Topic::application(channel),
    };
    topic.map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))
}

/// The channel of a topic.
fn channel(topic: &Topic) -> Cow<'_, str> {
    match topic.kind() {
        TopicKind::Table => Cow::Owned(format!("{TABLE}{}", topic.name())),
        _ => Cow::Borrowed(topic.name()),
    }
}

/// What a subscription's tag says: that it is told `postgres_changes`.
const NEWER: &str = "postgres_changes";

/// What stands for the client's id where the client did not ask for what is answered. No id of a
/// client can be equal: those are strings and objects.
const UNASKED: &str = "false";
