//! Answers and events of the native dialect, written around payloads that are not parsed.
//!
//! On Server-Sent Events everything but an event has its type as its name, so that `onmessage`
//! receives events and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::PROTOCOL;
use super::change;
use crate::answer::{Answer, Outcome, Refusal};
use crate::close::Close;
use crate::command::Reference;
use crate::digits::Digits;
use crate::event::{Body, Event, GapReason, Payload};
use crate::frame::Frame;
use crate::json::{self, Object};
use crate::position::Position;
use crate::presence::{Member, PresenceDiff};
use crate::topic::{Topic, TopicKind};

/// What an `error` frame is named on Server-Sent Events, where `error` means a lost connection.
const REFUSED: &str = "refused";

pub(super) fn answer(answer: &Answer) -> Frame {
    match answer {
        Answer::Welcome { session, subject } => Frame::labelled(
            "welcome",
            Object::new("welcome")
                .quoted("session", &session.to_string())
                .written("subject", |out| string_or_null(out, subject.as_deref()))
                .number("protocol", PROTOCOL)
                .finish(),
        ),
        Answer::Subscribed { topic, position, outcome, members, reference, .. } => Frame::labelled(
            "subscribed",
            subscribed(topic, *position, *outcome, members.as_deref(), reference.as_ref()),
        ),
        Answer::Unsubscribed { topic, reference, .. } => {
            labelled("unsubscribed", |frame| frame.id(reference.as_ref()).topic(topic))
        }
        Answer::Ended { topic, refusal, .. } => labelled("ended", |frame| {
            frame
                .topic(topic)
                .string("code", refusal.code.word())
                .string("message", &refusal.message)
        }),
        Answer::Published { topic, position, reference } => labelled("published", |frame| {
            frame
                .id(reference.as_ref())
                .topic(topic)
                .written("position", |out| position_or_null(out, *position))
        }),
        Answer::Tracked { topic, member, reference } => labelled("tracked", |frame| {
            frame
                .id(reference.as_ref())
                .topic(topic)
                .string("ref", &member.reference)
                .string("key", &member.key)
        }),
        Answer::Untracked { topic, reference } => {
            labelled("untracked", |frame| frame.id(reference.as_ref()).topic(topic))
        }
        Answer::Members { topic, members, .. } => {
            labelled("members", |frame| frame.topic(topic).members("members", members))
        }
        Answer::Authenticated { subject, expires_at, reference } => {
            labelled("authenticated", |frame| {
                frame
                    .id(reference.as_ref())
                    .written("subject", |out| string_or_null(out, subject.as_deref()))
                    .written("expires_at", |out| number_or_null(out, *expires_at))
            })
        }
        Answer::Rows { topic, relation, rows, columns, last, .. } => {
            change::rows(topic, relation, rows, columns.as_ref(), *last)
        }
        Answer::Pong { reference } => labelled("pong", |frame| frame.id(reference.as_ref())),
        Answer::Refused(refusal) => Frame::labelled(REFUSED, error(refusal)),
    }
}

/// `None` for a change, which is told by a frame of its own.
pub(super) fn event(event: &Event) -> Option<Frame> {
    match &event.body {
        Body::Message(payload) => Some(Frame::text(message(event, payload))),
        Body::Gap(reason) => Some(gap(event, *reason)),
        Body::Presence(diff) => Some(presence(&event.topic, diff)),
        Body::Change(_) => None,
    }
}

pub(super) fn bookmark(topic: &Topic, position: Position) -> Frame {
    labelled("bookmark", |frame| frame.topic(topic).position(position))
}

pub(super) fn close(close: Close) -> Frame {
    labelled("close", |frame| {
        frame
            .number("code", close.code())
            .string("name", close.name())
            .string("message", close.meaning())
            .truth("retry", close.come_back())
            .written("retry_after", |out| number_or_null(out, close.retry_after().map(u64::from)))
    })
}

fn labelled(kind: &'static str, fields: impl FnOnce(Object) -> Object) -> Frame {
    Frame::labelled(kind, fields(Object::new(kind)).finish())
}

fn subscribed(
    topic: &Topic,
    position: Position,
    outcome: Outcome,
    members: Option<&[Member]>,
    reference: Option<&Reference>,
) -> String {
    let (word, reason) = match outcome {
        Outcome::Fresh => ("fresh", None),
        Outcome::Resumed => ("resumed", None),
        Outcome::Gap(reason) => ("gap", Some(reason)),
    };
    Object::new("subscribed")
        .id(reference)
        .topic(topic)
        .position(position)
        .string("outcome", word)
        .with(reason, |frame, reason| frame.string("reason", reason.word()))
        .with(members, |frame, members| frame.members("members", members))
        .finish()
}

fn message(event: &Event, payload: &Payload) -> String {
    let frame = Object::with_room("event", 128 + event.topic.name().len() + event.content_bytes())
        .topic(&event.topic)
        .position(event.position)
        .number("at", event.at)
        .with(event.name.as_deref(), |frame, name| frame.string("event", name));
    match payload {
        Payload::Json(text) => frame.raw("data", text),
        Payload::Text(text) => frame.string("data", text),
        Payload::Binary(bytes) => {
            frame.string("encoding", "base64").quoted("data", &STANDARD.encode(bytes))
        }
    }
    .finish()
}

fn gap(event: &Event, reason: GapReason) -> Frame {
    labelled("gap", |frame| {
        let frame = frame.topic(&event.topic);
        // A place among changes of presence is none that a client could go on from.
        let frame = match event.topic.kind() {
            TopicKind::Presence => frame.truth("presence", true),
            _ => frame.position(event.position),
        };
        frame.string("reason", reason.word())
    })
}

fn presence(topic: &Topic, diff: &PresenceDiff) -> Frame {
    labelled("presence", |frame| {
        frame.topic(topic).members("joins", &diff.joins).members("leaves", &diff.leaves)
    })
}

fn error(refusal: &Refusal) -> String {
    Object::new("error")
        .id(refusal.reference.as_ref())
        .string("code", refusal.code.word())
        .string("message", &refusal.message)
        .string("retry", refusal.code.retry().word())
        .with(refusal.topic.as_ref(), Object::topic)
        .finish()
}

/// The native dialect's own words for the things that frames are about.
impl Object {
    fn id(self, reference: Option<&Reference>) -> Self {
        self.with(reference, |frame, Reference(json)| frame.raw("id", json))
    }

    fn topic(self, topic: &Topic) -> Self {
        let subject = topic.subject();
        match subject.kind() {
            TopicKind::Private => self.string("topic", subject.name()).truth("private", true),
            kind => self.string(kind.word(), subject.name()),
        }
    }

    fn members(self, key: &str, members: &[Member]) -> Self {
        self.written(key, |out| json::array(out, members, member))
    }
}

fn member(out: &mut String, member: &Member) {
    let object = Object::untyped("ref", &member.reference, 32 + member.bytes())
        .string("key", &member.key)
        .with(member.subject.as_deref(), |object, subject| object.string("subject", subject))
        .raw("meta", &member.meta);
    out.push_str(&object.finish());
}

fn string_or_null(out: &mut String, text: Option<&str>) {
    match text {
        Some(text) => json::string(out, text),
        None => out.push_str("null"),
    }
}

fn number_or_null(out: &mut String, number: Option<u64>) {
    match number {
        Some(number) => out.push_str(&Digits::decimal(number)),
        None => out.push_str("null"),
    }
}

fn position_or_null(out: &mut String, position: Option<Position>) {
    string_or_null(out, position.map(Position::text).as_deref());
}
