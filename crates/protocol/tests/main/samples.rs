//! One answer or event of every kind, as the documentation shows them.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{
    Answer, Audience, Body, Close, Code, Event, GapReason, Outcome, Payload, Position, Reference,
    Refusal, SessionId, Topic,
};

const SESSION: SessionId = SessionId(0xc0_ffee_00c0_ffee);
const NEW_YEAR: u64 = 1_767_225_600;

/// Something that a dialect writes.
#[derive(Debug)]
pub(crate) enum Sample {
    Answer(Answer),
    Event(Event),
    Close(Close),
}

/// What `docs/dialects/native.md` shows.
pub(crate) fn native() -> Vec<Sample> {
    let room = || Topic::application("room:42").unwrap();
    let private = || Topic::private("room:42").unwrap();
    let table = || Topic::table("public.orders").unwrap();
    let said = || Body::Message(Payload::json(r#"{"text":"hello"}"#).unwrap());
    let bytes = Body::Message(Payload::Binary(Bytes::from_static(&[0, 1, 2, 255])));
    let diff = PresenceDiff {
        joins: vec![member(r#"{"typing":true}"#)],
        leaves: vec![member(r#"{"typing":false}"#)],
    };
    let forbidden = Refusal::new(Code::Forbidden, "subscribing to topic room:42 is not allowed")
        .about(&room())
        .to(id("1"));
    let mut named = event(room(), said());
    named.name = Some("said".into());
    vec![
        Sample::Answer(welcome(Some("user-1"))),
        Sample::Answer(welcome(None)),
        Sample::Answer(subscribed(room(), "4f1c-17", Outcome::Fresh, None, "1")),
        Sample::Answer(subscribed(
            room(),
            "4f1c-17",
            Outcome::Resumed,
            Some(vec![member(r#"{"typing":false}"#)]),
            r#""again""#,
        )),
        Sample::Answer(subscribed(
            private(),
            "beef-0",
            Outcome::Gap(GapReason::EpochChanged),
            None,
            "3",
        )),
        Sample::Answer(subscribed(table(), "4f1c-17", Outcome::Fresh, None, "4")),
        Sample::Event(named),
        Sample::Event(event(private(), Body::Message(Payload::json("null").unwrap()))),
        Sample::Event(event(orders(), order())),
        Sample::Event(event(room(), bytes)),
        Sample::Event(Event { position: position("4f1c-19"), ..event(orders(), lost()) }),
        Sample::Event(event(room().presence(), Body::Gap(GapReason::HistoryTrimmed))),
        Sample::Answer(Answer::Unsubscribed { topic: room(), tag: None, reference: id("6") }),
        Sample::Answer(ended(private(), "the new token does not allow this topic")),
        Sample::Answer(Answer::Published {
            topic: room(),
            position: Some(position("4f1c-18")),
            reference: id("7"),
        }),
        Sample::Answer(Answer::Published { topic: orders(), position: None, reference: id("8") }),
        Sample::Answer(Answer::Tracked { topic: room(), member: member("{}"), reference: id("9") }),
        Sample::Answer(Answer::Untracked { topic: room(), reference: id("10") }),
        Sample::Event(event(room().presence(), Body::Presence(Arc::new(diff)))),
        Sample::Answer(Answer::Members {
            topic: room(),
            members: vec![member(r#"{"typing":true}"#)],
            tag: None,
        }),
        Sample::Answer(authenticated(Some("user-1"), Some(NEW_YEAR))),
        Sample::Answer(authenticated(None, None)),
        Sample::Answer(Answer::Pong { reference: id("12") }),
        Sample::Answer(Answer::Refused(forbidden)),
        Sample::Answer(Answer::Refused(Refusal::new(Code::BadJson, "a frame is one JSON object"))),
        Sample::Close(Close::Restart { after: 7 }),
        Sample::Close(Close::TokenExpired),
    ]
}

/// What `docs/dialects/alle.md` shows for a WebSocket.
pub(crate) fn alle() -> Vec<Sample> {
    let refused = |code, message: &str, request: Option<&str>| {
        Sample::Answer(Answer::Refused(Refusal::new(code, message).to(request.and_then(id))))
    };
    let down = "PostgreSQL is not reachable";
    vec![
        Sample::Answer(subscribed(orders(), "4f1c-17", Outcome::Fresh, None, "0")),
        Sample::Answer(Answer::Unsubscribed { topic: orders(), tag: None, reference: None }),
        Sample::Event(event(orders(), order())),
        Sample::Answer(authenticated(Some("user-1"), None)),
        Sample::Answer(authenticated(None, None)),
        refused(Code::MissingField, "channel is missing", None),
        refused(Code::Unavailable, down, Some(r#""subscribe""#)),
        refused(Code::Unavailable, down, Some(r#""notify""#)),
        refused(Code::Unavailable, down, Some(r#""authenticate""#)),
        refused(Code::RateLimited, "more than 1000 requests in a second", None),
        refused(Code::AuthenticationOff, "", None),
        refused(Code::Unauthorized, "", None),
        refused(Code::TokenExpired, "", None),
        Sample::Event(event(orders(), lost())),
        Sample::Answer(ended(orders(), "the token does not allow this")),
    ]
}

/// What `docs/dialects/alle.md` shows for a stream of events.
pub(crate) fn alle_events() -> Vec<Sample> {
    vec![Sample::Event(event(orders(), order())), Sample::Event(event(orders(), lost()))]
}

fn orders() -> Topic {
    Topic::notify("orders").unwrap()
}

fn order() -> Body {
    Body::Message(Payload::Text("New order #123".into()))
}

fn lost() -> Body {
    Body::Gap(GapReason::ConnectionLost)
}

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

fn id(json: &str) -> Option<Reference> {
    Some(Reference(json.into()))
}

fn member(meta: &str) -> Member {
    Member { reference: "00c0ffee00c0ffee".into(), key: "user-1".into(), meta: meta.into() }
}

fn welcome(subject: Option<&str>) -> Answer {
    Answer::Welcome { session: SESSION, subject: subject.map(Arc::from) }
}

fn subscribed(
    topic: Topic,
    at: &str,
    outcome: Outcome,
    members: Option<Vec<Member>>,
    request: &str,
) -> Answer {
    let reference = id(request);
    Answer::Subscribed { topic, position: position(at), outcome, members, tag: None, reference }
}

fn ended(topic: Topic, message: &str) -> Answer {
    Answer::Ended { topic, tag: None, refusal: Refusal::new(Code::Forbidden, message) }
}

fn authenticated(subject: Option<&str>, expires_at: Option<u64>) -> Answer {
    Answer::Authenticated { subject: subject.map(Arc::from), expires_at, reference: id("11") }
}

fn event(topic: Topic, body: Body) -> Event {
    Event {
        topic,
        position: position("4f1c-18"),
        at: NEW_YEAR * 1000,
        name: None,
        body,
        audience: Audience::Everyone,
    }
}
