//! One answer or event of every kind, as the documentation shows them.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_protocol::change::{Change, Column, Operation, Relation, Row, Transaction, Value};
use tidewire_protocol::dialect::{Dialect, Fluxbase, Movement};
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{
    Answer, Audience, Body, Close, Code, Command, Draft, Event, Frame, GapReason, Outcome, Payload,
    Position, Reference, Refusal, SessionId, Tag, Topic,
};

const SESSION: SessionId = SessionId(0xc0_ffee_00c0_ffee);
const NEW_YEAR: u64 = 1_767_225_600;

/// Something that a dialect writes.
#[derive(Debug)]
pub(crate) enum Sample {
    Answer(Answer),
    Event(Event),
    /// A change as seen by those with this tag and movement.
    Change(Change, Option<Tag>, Movement),
    /// People who came and went, and everyone who is there.
    Presence(Event, Vec<Member>),
    /// How far a listener has everything.
    Bookmark(Topic, Position),
    Close(Close),
    Heartbeat,
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
        change(Operation::Insert, None, Some(product("New Product", "99.99"))),
        Sample::Change(
            products_change(
                Operation::Update,
                Some(product("Old Product", "99.99")),
                Some(product("Updated Product", "149.99")),
            ),
            None,
            Movement::Enters,
        ),
        change(Operation::Update, None, Some(with_large_value())),
        change(Operation::Delete, Some(key_alone()), None),
        change(Operation::Truncate, None, None),
        Sample::Answer(rows(vec![product("New Product", "99.99")], false)),
        Sample::Answer(rows(Vec::new(), true)),
        Sample::Bookmark(Topic::table("public.products").unwrap(), position("4f1c-518")),
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

/// What `docs/dialects/fluxbase.md` shows.
pub(crate) fn fluxbase() -> Vec<Sample> {
    let table = || Topic::table("public.products").unwrap();
    let room = || Topic::application("room-1").unwrap();
    let lost = |topic| Sample::Event(event(topic, lost()));
    let refused = |code, message: &str, topic: Option<Topic>, reference| {
        let refusal = Refusal { topic, reference, ..Refusal::new(code, message) };
        Sample::Answer(Answer::Refused(refusal))
    };
    let unsubscribed =
        |topic, reference| Sample::Answer(Answer::Unsubscribed { topic, tag: None, reference });
    let member = |state: &str| member(state);
    let diff = PresenceDiff { joins: vec![member(r#"{"status":"online"}"#)], leaves: Vec::new() };
    let left = PresenceDiff { joins: Vec::new(), leaves: diff.joins.clone() };
    let away =
        PresenceDiff { joins: vec![member(r#"{"status":"away"}"#)], leaves: diff.joins.clone() };
    let presence = |diff: PresenceDiff| event(room().presence(), Body::Presence(Arc::new(diff)));
    let (online, now_away) = (diff.joins.clone(), away.joins.clone());
    let mut said = event(room(), Body::Message(Payload::json(r#"{"x":100,"y":200}"#).unwrap()));
    said.name = Some("cursor-pos".into());
    let old = || Some(product("Old Product", "99.99"));
    let updated = || Some(product("Updated Product", "149.99"));
    let asked = r#"{"type":"subscribe","channel":"products","config":{"event":"INSERT","schema":"public","table":"products","filter":"price=gt.10"}}"#;
    let left_by_id =
        r#"{"type":"unsubscribe","subscription_id":"public.products:INSERT:price=gt.10"}"#;
    let newer = Some(Tag("postgres_changes".into()));
    vec![
        Sample::Answer(acknowledged(table(), None, None)),
        unsubscribed(table(), None),
        change(Operation::Insert, None, Some(product("New Product", "99.99"))),
        change(Operation::Update, old(), updated()),
        change(Operation::Delete, Some(product("Deleted Product", "99.99")), None),
        change(Operation::Update, None, updated()),
        change(Operation::Update, None, Some(with_large_value())),
        change(Operation::Truncate, None, None),
        Sample::Heartbeat,
        refused(Code::MissingField, "channel is required for subscribe", None, None),
        refused(
            Code::Forbidden,
            "this token does not allow to subscribe here",
            Some(table()),
            None,
        ),
        lost(table()),
        lost(room()),
        lost(room().presence()),
        Sample::Answer(ended(table(), "the new token does not allow this")),
        Sample::Answer(acknowledged(table(), fluxbase_reference(asked), None)),
        unsubscribed(table(), fluxbase_reference(left_by_id)),
        Sample::Change(
            products_change(Operation::Update, old(), updated()),
            newer,
            Movement::Within,
        ),
        Sample::Answer(acknowledged(room(), None, Some(online.clone()))),
        unsubscribed(room(), None),
        Sample::Event(said),
        Sample::Answer(Answer::Published {
            topic: room(),
            position: Some(position("4f1c-18")),
            reference: id(r#""msg_1""#),
        }),
        refused(Code::RateLimited, "more than 1000 requests in a second", None, id(r#""msg_1""#)),
        Sample::Presence(presence(diff), online),
        Sample::Presence(presence(away), now_away),
        Sample::Presence(presence(left), Vec::new()),
        Sample::Answer(authenticated(Some("user-1"), None)),
        refused(Code::TokenExpired, "the token has run out", None, None),
    ]
}

fn acknowledged(
    topic: Topic,
    reference: Option<Reference>,
    members: Option<Vec<Member>>,
) -> Answer {
    let (position, outcome) = (position("4f1c-17"), Outcome::Fresh);
    Answer::Subscribed { topic, position, outcome, members, tag: None, reference }
}

/// What the Fluxbase dialect wants back with the answer to a request.
fn fluxbase_reference(request: &str) -> Option<Reference> {
    match Fluxbase.decode(&Frame::text(request)).unwrap().remove(0) {
        Command::Subscribe(wish) => wish.reference,
        Command::Unsubscribe { reference, .. } => reference,
        other => panic!("{other:?} is about no subscription"),
    }
}

fn products() -> Arc<Relation> {
    let columns =
        [("id", 23, "int4", true), ("name", 25, "text", false), ("price", 1700, "numeric", false)];
    let columns = columns.map(|(name, type_oid, type_name, key)| Column {
        name: name.into(),
        type_oid,
        type_name: type_name.into(),
        key,
    });
    Arc::new(Relation::new(16_384, "public", "products", columns.into()))
}

fn product(name: &str, price: &str) -> Row {
    Row::of_json(["123", &format!("{name:?}"), price])
}

/// A row whose name is so large that PostgreSQL logs it only when it changes.
fn with_large_value() -> Row {
    [Value::Json("123"), Value::Unchanged, Value::Json("149.99")].into_iter().collect()
}

/// The old row of a table whose replica identity is its key.
fn key_alone() -> Row {
    [Value::Json("123"), Value::Absent, Value::Absent].into_iter().collect()
}

fn products_change(operation: Operation, old: Option<Row>, record: Option<Row>) -> Change {
    let transaction = Transaction {
        id: 7_001,
        lsn: Some(0x16_B374_D848),
        committed_at: NEW_YEAR as i64 * 1_000_000,
    };
    let transaction = Arc::new(transaction);
    Change { operation, relation: products(), record, old, transaction, index: 0, last: true }
}

fn change(operation: Operation, old: Option<Row>, record: Option<Row>) -> Sample {
    Sample::Change(products_change(operation, old, record), None, Movement::Within)
}

fn rows(rows: Vec<Row>, last: bool) -> Answer {
    let topic = Topic::table("public.products").unwrap();
    Answer::Rows { topic, relation: products(), rows, columns: None, last, tag: None }
}

/// The event of a change of the table `public.products`.
pub(crate) fn changed(change: &Change) -> Event {
    let topic = Topic::table("public.products").unwrap();
    Event::new(Draft::change(topic, change.clone()), position("4f1c-18"), NEW_YEAR * 1000)
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
    Member {
        reference: "00c0ffee00c0ffee".into(),
        key: "user-1".into(),
        subject: None,
        meta: meta.into(),
    }
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
