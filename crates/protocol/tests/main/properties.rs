//! Whatever a client sends is read or refused, and whatever is written is JSON.
//!
//! `PROPTEST_CASES=100000` makes of these a long search for a frame that panics.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use tidewire_protocol::change::{self, Change, Column, Operation, Relation, Transaction};
use tidewire_protocol::dialect::{Alle, AlleEvents, Dialect, Fluxbase, Movement, Native, View};
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{
    Answer, Audience, Body, Close, Code, Command, Epoch, Event, Frame, GapReason, Outcome, Payload,
    Position, Reference, Refusal, SessionId, Tag, Topic, TopicKind,
};

use crate::samples;

/// Valid frames to make nearly valid ones from.
const VALID: [&str; 20] = [
    r#"{"type":"subscribe","id":1,"topic":"room:42","private":true,"since":"4f1c-17","presence":true}"#,
    r#"{"type":"subscribe","id":"a","table":"public.orders","since":"earliest"}"#,
    r#"{"type":"unsubscribe","id":2,"notify":"orders"}"#,
    r#"{"type":"publish","id":3,"topic":"room:42","event":"said","data":{"a":[1.5,"\ud83e\udd80"]},"echo":false,"key":"k"}"#,
    r#"{"type":"publish","notify":"orders","data":"New order \u0023123"}"#,
    r#"{"type":"track","id":4,"topic":"room:42","key":"user-1","meta":{"typing":false}}"#,
    r#"{"type":"untrack","id":5,"topic":"room:42"}"#,
    r#"{"type":"authenticate","id":6,"token":"abc"}"#,
    r#"{"type":"ping","id":-7e2}"#,
    r#"{"type":"subscribe","channel":"orders"}"#,
    r#"{"type":"notify","channel":"orders","payload":"New order #123"}"#,
    r#"{"type":"authenticate","token":"abc"}"#,
    r#"{"type":"subscribe","id":6,"table":"public.orders","events":["INSERT"],"columns":["id"],"filter":"id=eq.1","snapshot":true}"#,
    r#"{"type":"subscribe","channel":"table:public.products","event":"INSERT","filter":"id=eq.1"}"#,
    r#"{"type":"subscribe","channel":"a","config":{"event":"*","schema":"public","table":"products","filter":"id=in.(1,2)"}}"#,
    r#"{"type":"unsubscribe","channel":"a","subscription_id":"public.products:*:id=eq.1"}"#,
    r#"{"type":"broadcast","channel":"room-1","event":"said","payload":{"x":[1.5]},"messageId":"msg_1"}"#,
    r#"{"type":"presence","channel":"room-1","event":"track","payload":{"key":"user-1","state":{"status":"online"}}}"#,
    r#"{"type":"presence","channel":"room-1","payload":{"event":"untrack","key":"user-1"}}"#,
    r#"{"type":"access_token","token":"abc"}"#,
];

/// Texts that mean something to a reader of JSON, to be put in the wrong place.
const PIECES: [&str; 16] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "1e999",
    "-",
    "\\ud800",
    "\u{0}",
    "\"id\":9,",
    "\"type\":\"ping\",",
];

fn dialects() -> [&'static dyn Dialect; 4] {
    [&Native, &Alle, &AlleEvents, &Fluxbase]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        check_decode(&text)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        for dialect in dialects() {
            if let Err(refusal) = dialect.decode(&Frame::Binary(bytes.clone().into())) {
                check_answer(dialect, &Answer::Refused(refusal))?;
            }
        }
        check_decode(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_broken_frame_is_read_or_refused(
        frame in select(&VALID[..]),
        edits in prop::collection::vec((any::<Index>(), any::<Index>(), select(&PIECES[..])), 1..4),
    ) {
        let mut text = frame.to_owned();
        for (at, length, piece) in edits {
            let from = at.index(text.len() + 1);
            let to = (from + length.index(8)).min(text.len());
            // Frames and pieces are ASCII, so every index is a boundary.
            text.replace_range(from..to, piece);
        }
        check_decode(&text)?;
    }

    #[test]
    fn an_id_that_was_read_comes_back_with_the_refusal(
        id in prop_oneof![Just("7"), Just("-1.50"), Just("\"a \\u0041\"")],
        fields in prop::collection::vec(
            select(&[
                r#""type":"subscribe""#, r#""type":"nonsense""#, r#""topic":7"#, r#""since":"x""#,
                r#""unknown":{}"#, r#""presence":0"#,
            ][..]),
            0..6,
        ),
        place in any::<Index>(),
    ) {
        let mut fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        fields.insert(place.index(fields.len() + 1), format!("\"id\":{id}"));
        let refusal = Native.decode(&Frame::text(format!("{{{}}}", fields.join(",")))).unwrap_err();
        prop_assert_eq!(refusal.reference, Some(Reference(id.into())));
    }

    #[test]
    fn what_is_published_as_json_is_passed_on_byte_for_byte(text in "[ -~é🦀]{0,40}", n: f64) {
        let data = serde_json::to_string_pretty(&serde_json::json!({ "text": text, "n": [n] }));
        let data = data.unwrap();
        let frame = Frame::text(format!(r#"{{"type":"publish","topic":"t","data":{data}}}"#));
        let commands = Native.decode(&frame).unwrap();
        let [tidewire_protocol::Command::Publish(publication)] = &commands[..] else {
            panic!("publish is one command");
        };
        let said = event(publication.topic.clone(), Body::Message(publication.payload.clone()));
        let written = text_of(Native.event(&said, None).unwrap());
        let end = format!("\"data\":{data}}}");
        prop_assert!(written.ends_with(&end));
    }

    #[test]
    fn every_event_is_written_as_json(topic in topic(), body in body(), name in name()) {
        let mut event = event(topic, body);
        event.name = name;
        for dialect in dialects() {
            if let Some(frame) = dialect.event(&event, None) {
                check_frame(dialect, frame)?;
            }
            if let Body::Presence(diff) = &event.body {
                let presence = Event { topic: event.topic.presence(), ..event.clone() };
                for members in [None, Some(&diff.joins[..])] {
                    for frame in dialect.presence(&presence, diff, members, None) {
                        check_frame(dialect, frame)?;
                    }
                }
            }
        }
    }

    #[test]
    fn every_change_is_written_as_json(change in change(), columns in prop::option::of(names())) {
        let event = samples::changed(&change);
        let columns = columns.as_deref();
        for tag in [None, Some(&Tag("postgres_changes".into()))] {
            for movement in [Movement::Within, Movement::Enters, Movement::Leaves] {
                let view = View { tag, columns, movement };
                for dialect in dialects() {
                    if let Some(frame) = dialect.change(&event, &change, &view) {
                        check_frame(dialect, frame)?;
                    }
                }
            }
        }
    }

    #[test]
    fn an_id_of_a_fluxbase_subscription_leads_back_to_it(
        table in "[ -~é]{1,20}", event in select(&["*", "INSERT", "TRUNCATE"][..]),
        filter in prop::option::of("[ -~é]{1,20}"),
    ) {
        let config = serde_json::json!({ "table": table, "event": event, "filter": filter });
        let frame = serde_json::json!({ "type": "subscribe", "config": config });
        let commands = Fluxbase.decode(&Frame::text(frame.to_string())).unwrap();
        let [Command::Subscribe(wish)] = &commands[..] else { panic!("one subscription") };
        let id = wish.key.clone().unwrap();
        let frame = serde_json::json!({ "type": "unsubscribe", "subscription_id": &*id });
        let commands = Fluxbase.decode(&Frame::text(frame.to_string())).unwrap();
        let [Command::Unsubscribe { topic, key, .. }] = &commands[..] else { panic!("one end") };
        prop_assert_eq!((topic, key.as_ref()), (&wish.topic, Some(&id)));
    }

    #[test]
    fn every_answer_is_written_as_json(answer in answer()) {
        for dialect in dialects() {
            check_answer(dialect, &answer)?;
        }
    }
}

#[test]
fn every_refusal_and_every_ending_is_written_as_json() {
    for dialect in dialects() {
        for code in Code::ALL {
            let answer = Answer::Refused(Refusal::new(*code, "a \"quoted\" word"));
            check_answer(dialect, &answer).unwrap();
        }
        for close in Close::ALL {
            if let Some(frame) = dialect.close(close) {
                check_frame(dialect, frame).unwrap();
            }
        }
    }
}

#[test]
fn a_payload_as_deep_as_allowed_is_still_readable_inside_its_frame() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let said =
        event(Topic::application("t").unwrap(), Body::Message(Payload::json(&deep).unwrap()));
    check_frame(&Native, Native.event(&said, None).unwrap()).unwrap();
}

#[test]
fn a_million_open_brackets_are_refused() {
    for text in ["[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
        let frame = Frame::text(format!(r#"{{"type":"publish","topic":"t","data":{text}"#));
        assert!(Native.decode(&frame).is_err());
        assert!(Alle.decode(&frame).is_err());
    }
}

fn check_decode(text: &str) -> Result<(), TestCaseError> {
    for dialect in dialects() {
        if let Err(refusal) = dialect.decode(&Frame::text(text)) {
            prop_assert!(refusal.message.len() < 600, "{}", refusal.message);
            check_answer(dialect, &Answer::Refused(refusal))?;
        }
    }
    Ok(())
}

fn check_answer(dialect: &dyn Dialect, answer: &Answer) -> Result<(), TestCaseError> {
    dialect.answers(answer).into_iter().try_for_each(|frame| check_frame(dialect, frame))
}

/// A frame is one JSON object, and its name on a stream follows from its type.
fn check_frame(dialect: &dyn Dialect, frame: Frame) -> Result<(), TestCaseError> {
    let Frame::Text { text, label } = frame else { panic!("these dialects write text") };
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| TestCaseError::fail(format!("{error} in {text}")))?;
    let kind = value["type"].as_str();
    let expected = match (dialect.name(), kind) {
        ("native", Some("event" | "change")) | ("alle" | "fluxbase", Some(_)) => None,
        ("native", Some("error")) => Some("refused"),
        ("native", Some(kind)) => Some(kind),
        ("alle-sse", None) if value.get("payload").is_some() => Some("message"),
        ("alle-sse", None) => Some("gap"),
        other => panic!("{other:?} has no name on a stream"),
    };
    prop_assert_eq!(label, expected);
    Ok(())
}

fn text_of(frame: Frame) -> String {
    match frame {
        Frame::Text { text, .. } => text,
        Frame::Binary(_) => panic!("these dialects write text"),
    }
}

fn event(topic: Topic, body: Body) -> Event {
    let position = Position { epoch: Epoch(7), seq: 1 };
    Event { topic, position, at: 0, name: None, body, audience: Audience::Everyone }
}

fn topic() -> impl Strategy<Value = Topic> {
    let kinds = vec![TopicKind::Application, TopicKind::Private, TopicKind::Notify];
    (select(kinds), "[ -~é🦀]{1,15}").prop_map(|(kind, name)| Topic::new(kind, &name).unwrap())
}

fn name() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of(any::<String>().prop_map(Arc::from))
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<String>().prop_map(|text| Payload::Text(text.into())),
        any::<String>().prop_map(|text| Payload::Json(Value::from(text).to_string().into())),
        any::<Vec<u8>>().prop_map(|bytes| Payload::Binary(Bytes::from(bytes))),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        payload().prop_map(Body::Message),
        select(&GapReason::ALL[..]).prop_map(Body::Gap),
        (members(), members())
            .prop_map(|(joins, leaves)| Body::Presence(Arc::new(PresenceDiff { joins, leaves }))),
    ]
}

/// A value of a row that is being made up.
#[derive(Clone, Debug)]
enum Told {
    Json(String),
    Unchanged,
    Absent,
}

impl Told {
    fn value(&self) -> change::Value<'_> {
        match self {
            Self::Json(text) => change::Value::Json(text),
            Self::Unchanged => change::Value::Unchanged,
            Self::Absent => change::Value::Absent,
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        any::<String>().prop_map(|text| Told::Json(Value::from(text).to_string())),
        any::<i64>().prop_map(|number| Told::Json(number.to_string())),
        Just(Told::Unchanged),
        Just(Told::Absent),
    ];
    let columns = (any::<String>(), any::<bool>()).prop_map(|(name, key)| Column {
        name: name.into(),
        type_oid: 25,
        type_name: "text".into(),
        key,
    });
    let columns = prop::collection::vec(columns, 1..4);
    let row = prop::option::of(prop::collection::vec(value, 3));
    let transaction = (any::<u64>(), any::<Option<u64>>(), 0..i64::MAX / 2)
        .prop_map(|(id, lsn, committed_at)| Transaction { id, lsn, committed_at });
    let operation = select(&Operation::ALL[..]);
    (operation, columns, row.clone(), row, transaction, any::<u32>(), any::<String>()).prop_map(
        |(operation, columns, record, old, transaction, index, table)| {
            let row = |values: Vec<Told>| values[..columns.len()].iter().map(Told::value).collect();
            let [record, old] = [record, old].map(|values| values.map(row));
            let relation = Relation::new(1, "public", table, columns);
            let (relation, transaction) = (Arc::new(relation), Arc::new(transaction));
            Change { operation, relation, record, old, transaction, index, last: index == 0 }
        },
    )
}

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    prop::collection::vec(any::<String>().prop_map(Arc::from), 0..3)
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let member = (any::<String>(), any::<String>()).prop_map(|(reference, key)| Member {
        reference: reference.into(),
        meta: serde_json::json!({ "key": key }).to_string().into(),
        subject: key.chars().next().map(|_| key.as_str().into()),
        key: key.into(),
    });
    prop::collection::vec(member, 0..3)
}

fn reference() -> impl Strategy<Value = Option<Reference>> {
    prop::option::of(any::<String>().prop_map(|id| Reference(Value::from(id).to_string().into())))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Fresh),
        Just(Outcome::Resumed),
        select(&GapReason::ALL[..]).prop_map(Outcome::Gap),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (select(Code::ALL), any::<String>(), prop::option::of(topic()), reference())
        .prop_map(|(code, message, topic, reference)| Refusal { code, message, topic, reference })
}

fn answer() -> impl Strategy<Value = Answer> {
    let position = Position { epoch: Epoch(u64::MAX), seq: u64::MAX };
    prop_oneof![
        (any::<u64>(), name()).prop_map(|(session, subject)| Answer::Welcome {
            session: SessionId(session),
            subject
        }),
        (topic(), outcome(), prop::option::of(members()), reference()).prop_map(
            move |(topic, outcome, members, reference)| Answer::Subscribed {
                topic,
                position,
                outcome,
                members,
                tag: None,
                reference
            }
        ),
        (topic(), reference()).prop_map(|(topic, reference)| Answer::Unsubscribed {
            topic,
            tag: None,
            reference
        }),
        (topic(), refusal()).prop_map(|(topic, refusal)| Answer::Ended {
            topic,
            tag: None,
            refusal
        }),
        (topic(), any::<bool>(), reference()).prop_map(move |(topic, known, reference)| {
            Answer::Published { topic, position: known.then_some(position), reference }
        }),
        (topic(), members(), reference()).prop_filter_map(
            "tracked is about a member",
            |(topic, mut members, reference)| {
                Some(Answer::Tracked { topic, member: members.pop()?, reference })
            }
        ),
        (topic(), reference())
            .prop_map(|(topic, reference)| Answer::Untracked { topic, reference }),
        (topic(), members()).prop_map(|(topic, members)| Answer::Members {
            topic,
            members,
            tag: None
        }),
        (name(), any::<Option<u64>>(), reference()).prop_map(|(subject, expires_at, reference)| {
            Answer::Authenticated { subject, expires_at, reference }
        }),
        reference().prop_map(|reference| Answer::Pong { reference }),
        refusal().prop_map(Answer::Refused),
    ]
}
