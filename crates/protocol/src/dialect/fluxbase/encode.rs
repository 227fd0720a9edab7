//! Answers, events, changes and presence of the Fluxbase dialect.
//!
//! Where the SDK reads a part beside `payload` and other clients read it inside, it stands in both
//! places.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{UNASKED, channel};
use crate::answer::{Answer, Code, Refusal};
use crate::change::{Change, Operation};
use crate::command::Reference;
use crate::dialect::{Movement, View, record, timestamp};
use crate::event::{Body, Event, Payload};
use crate::json::{self, Object};
use crate::presence::{Member, PresenceDiff};
use crate::topic::{Topic, TopicKind};

/// The name of a broadcast that was published without one.
const UNNAMED: &str = "message";

pub(super) fn answer(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Subscribed { topic, reference, .. } => {
            acknowledged(topic, reference.as_ref(), "subscribed")
        }
        Answer::Unsubscribed { topic, reference, .. } => {
            acknowledged(topic, reference.as_ref(), "unsubscribed")
        }
        Answer::Published { topic, reference: Some(Reference(id)), .. } => {
            Some(published(topic, id))
        }
        Answer::Members { topic, members, .. } => Some(everyone(topic, members)),
        Answer::Authenticated { .. } => {
            Some(r#"{"type":"ack","payload":{"type":"access_token","updated":true}}"#.to_owned())
        }
        Answer::Ended { topic, refusal, .. } => {
            let message = format!("{} ended: {}", channel(topic), refusal.message);
            Some(error(&message).finish())
        }
        Answer::Refused(refusal) => refused(refusal),
        Answer::Welcome { .. }
        | Answer::Published { reference: None, .. }
        | Answer::Tracked { .. }
        | Answer::Untracked { .. }
        | Answer::Rows { .. }
        | Answer::Pong { .. } => None,
    }
}

/// The reference of a request of the newer frames is what its acknowledgement says.
fn acknowledged(topic: &Topic, reference: Option<&Reference>, word: &str) -> Option<String> {
    let ack = Object::new("ack");
    let ack = match reference {
        Some(Reference(text)) if &**text == UNASKED => return None,
        Some(Reference(payload)) => ack.raw("payload", payload),
        None if topic.kind() == TopicKind::Table => ack.string("channel", &channel(topic)),
        None => {
            let payload =
                Object::untyped("channel", &channel(topic), 64).truth(word, true).finish();
            ack.string("channel", &channel(topic)).raw("payload", &payload)
        }
    };
    Some(ack.finish())
}

fn published(topic: &Topic, id: &str) -> String {
    let payload = Object::untyped("status", "ok", 64).raw("messageId", id).finish();
    Object::new("ack")
        .string("channel", &channel(topic))
        .raw("messageId", id)
        .string("status", "ok")
        .raw("payload", &payload)
        .finish()
}

fn refused(refusal: &Refusal) -> Option<String> {
    let reference = refusal.reference.as_ref().map(|Reference(json)| &**json);
    let lacks_rights = matches!(refusal.code, Code::Unauthorized | Code::Forbidden);
    // Who may speak on a channel but not listen did not ask to listen.
    if reference == Some(UNASKED) && lacks_rights {
        return None;
    }
    let message = match (refusal.code, &refusal.topic) {
        (Code::TokenInvalid | Code::TokenExpired, _) => "invalid token".to_owned(),
        (_, Some(topic)) => format!("{}: {}", channel(&topic.subject()), refusal.message),
        (_, None) => refusal.message.clone(),
    };
    let message_id = reference.filter(|json| json.starts_with('"'));
    Some(error(&message).with(message_id, |frame, id| frame.raw("messageId", id)).finish())
}

fn error(message: &str) -> Object {
    Object::new("error").string("error", message)
}

pub(super) fn event(event: &Event) -> Option<String> {
    match &event.body {
        Body::Message(payload) => Some(broadcast(event, payload)),
        Body::Gap(reason) => {
            let topic = event.topic.subject();
            let what = match event.topic.kind() {
                TopicKind::Table => "changes",
                TopicKind::Presence => "presence",
                _ => "messages",
            };
            let message = format!("{} missed {what}: {reason}", channel(&topic));
            Some(error(&message).finish())
        }
        Body::Presence(_) | Body::Change(_) => None,
    }
}

/// What someone said on a channel.
fn broadcast(event: &Event, payload: &Payload) -> String {
    let name = event.name.as_deref().unwrap_or(UNNAMED);
    let said = Object::untyped("event", name, 32 + name.len() + payload.len());
    let said = match payload {
        Payload::Json(text) => said.raw("payload", text),
        Payload::Text(text) => said.string("payload", text),
        Payload::Binary(bytes) => said.quoted("payload", &STANDARD.encode(bytes)),
    };
    in_both_places("broadcast", &event.topic, &said.finish())
}

/// A part by its name, beside `payload` and inside.
fn in_both_places(name: &str, topic: &Topic, part: &str) -> String {
    Object::with_room(name, 96 + topic.name().len() + 2 * part.len())
        .string("channel", &channel(topic))
        .raw(name, part)
        .written("payload", |out| {
            out.push_str("{\"");
            out.push_str(name);
            out.push_str("\":");
            out.push_str(part);
            out.push('}');
        })
        .finish()
}

/// A change, in the style of the subscription; `None` for a row that no longer fits the filter,
/// of which the language says nothing.
pub(super) fn change(event: &Event, change: &Change, view: &View<'_>) -> Option<String> {
    if matches!(view.movement, Movement::Leaves | Movement::Disappears) {
        return None;
    }
    let payload = payload(change, view);
    let frame = match view.tag {
        None => Object::with_room("broadcast", 96 + payload.len())
            .string("channel", &channel(&event.topic))
            .raw("payload", &payload),
        Some(_) => {
            Object::with_room("postgres_changes", 64 + payload.len()).raw("payload", &payload)
        }
    };
    Some(frame.finish())
}

fn payload(change: &Change, view: &View<'_>) -> String {
    let relation = &*change.relation;
    let mut payload = Object::with_room(change.operation.word(), 128 + record::room(change))
        .string("table", &relation.table)
        .string("schema", &relation.schema);
    if let Some(row) = &change.record {
        payload = payload.written("record", |out| record::object(out, relation, row, view.columns));
    }
    payload = with_old_record(payload, change, view);
    if let Some(row) = &change.record {
        let mut unchanged = record::unchanged(relation, row).peekable();
        if unchanged.peek().is_some() {
            payload = payload.written("unchanged", |out| record::names(out, unchanged));
        }
    }
    // The documented payload ends here; the newer SDK looks for the time of the change.
    if view.tag.is_some() {
        let at = timestamp::rfc3339(change.transaction.committed_at);
        payload = payload.string("commit_timestamp", &at);
    }
    payload.finish()
}

/// An update and a delete always have an old record. Where PostgreSQL did not say what it was, it
/// is the key alone, which then was the same.
fn with_old_record(payload: Object, change: &Change, view: &View<'_>) -> Object {
    let relation = &*change.relation;
    if !matches!(change.operation, Operation::Update | Operation::Delete) {
        return payload;
    }
    payload.written("old_record", |out| match (&change.old, &change.record) {
        (Some(old), _) => record::object(out, relation, old, view.columns),
        (None, Some(row)) => record::key(out, relation, row),
        (None, None) => out.push_str("{}"),
    })
}

/// Who came and went, one frame each; a change of someone's state is told by everyone's, if that
/// is known. Everyone is told once, in the last frame.
pub(super) fn presence(
    topic: &Topic,
    diff: &PresenceDiff,
    members: Option<&[Member]>,
) -> Vec<String> {
    let references = |list: &[Member]| -> HashSet<_> {
        list.iter().map(|member| member.reference.clone()).collect()
    };
    let (came, went) = (references(&diff.joins), references(&diff.leaves));
    let left = diff.leaves.iter().filter(|member| !came.contains(&member.reference));
    let mut moves: Vec<_> = left.map(Move::Leave).collect();
    let mut everyones = None;
    for member in &diff.joins {
        match members {
            Some(members) if went.contains(&member.reference) => everyones = Some(members),
            _ => moves.push(Move::Join(member)),
        }
    }
    let is_last = |place| everyones.is_none() && place + 1 == moves.len();
    let frames = moves.iter().enumerate();
    let frames = frames.map(|(place, it)| it.frame(topic, members.filter(|_| is_last(place))));
    frames.chain(everyones.map(|members| everyone(topic, members))).collect()
}

/// Someone who came or went.
enum Move<'a> {
    Leave(&'a Member),
    Join(&'a Member),
}

impl Move<'_> {
    fn frame(&self, topic: &Topic, everyone: Option<&[Member]>) -> String {
        let (word, list, member) = match self {
            Self::Leave(member) => ("leave", "leftPresences", member),
            Self::Join(member) => ("join", "newPresences", member),
        };
        let presence = Object::untyped("event", word, 96 + member.bytes())
            .string("key", &member.key)
            .with(member.subject.as_deref(), |presence, name| presence.string("subject", name))
            .written(list, |out| states(out, &[member]))
            .with(everyone, who_is_there);
        in_both_places("presence", topic, &presence.finish())
    }
}

/// Everyone who is on a channel.
pub(super) fn everyone(topic: &Topic, members: &[Member]) -> String {
    let presence = who_is_there(Object::untyped("event", "sync", 96), members);
    in_both_places("presence", topic, &presence.finish())
}

/// Everyone's states, and in the same order their subjects where any was verified.
fn who_is_there(presence: Object, members: &[Member]) -> Object {
    let presence = presence.written("currentPresences", |out| by_key(out, members, states));
    if members.iter().all(|member| member.subject.is_none()) {
        return presence;
    }
    presence.written("currentSubjects", |out| by_key(out, members, subjects))
}

/// Appends an object of keys, each with something of its members.
fn by_key(out: &mut String, members: &[Member], write: impl Fn(&mut String, &[&Member])) {
    let mut keys: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in members {
        keys.entry(&member.key).or_default().push(member);
    }
    out.push('{');
    for (index, (key, members)) in keys.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::string(out, key);
        out.push(':');
        write(out, members);
    }
    out.push('}');
}

fn subjects(out: &mut String, members: &[&Member]) {
    json::array(out, members, |out, member| match &member.subject {
        Some(subject) => json::string(out, subject),
        None => out.push_str("null"),
    });
}

fn states(out: &mut String, members: &[&Member]) {
    json::array(out, members, |out, member| out.push_str(&member.meta));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn member(name: &str, state: &str) -> Member {
        let meta = json!({ "state": state }).to_string();
        Member { reference: name.into(), key: name.into(), subject: None, meta: meta.into() }
    }

    /// What each frame tells: the word, of whom, and of how many it says that they are there.
    fn told(
        diff: &PresenceDiff,
        members: Option<&[Member]>,
    ) -> Vec<(String, Value, Option<usize>)> {
        let topic = Topic::application("room").expect("a topic's name");
        let frames = presence(&topic, diff, members).into_iter().map(|frame| {
            let frame: Value = serde_json::from_str(&frame).expect("a frame is JSON");
            assert_eq!(frame["presence"], frame["payload"]["presence"]);
            let presence = &frame["presence"];
            let word = presence["event"].as_str().expect("a word").to_owned();
            let there = presence["currentPresences"].as_object().map(serde_json::Map::len);
            (word, presence["key"].clone(), there)
        });
        frames.collect()
    }

    #[test]
    fn of_changes_that_come_together_the_last_frame_tells_who_is_there() {
        let (ann, bob, eve) = (member("ann", ""), member("bob", ""), member("eve", ""));
        let diff = PresenceDiff { joins: vec![ann.clone(), bob.clone()], leaves: vec![eve] };
        let members = [ann, bob];
        let expected = [
            ("leave".to_owned(), json!("eve"), None),
            ("join".to_owned(), json!("ann"), None),
            ("join".to_owned(), json!("bob"), Some(2)),
        ];
        assert_eq!(told(&diff, Some(&members)), expected);
    }

    #[test]
    fn who_is_verified_is_told_beside_the_key_that_anyone_may_claim() {
        let verified = Member { subject: Some("ann".into()), ..member("ann", "") };
        let (claimed, bob) =
            (Member { reference: "2".into(), ..member("ann", "") }, member("bob", ""));
        let diff = PresenceDiff { joins: vec![verified.clone()], leaves: Vec::new() };
        let members = [verified, claimed, bob];
        let topic = Topic::application("room").expect("a topic's name");
        let frames = presence(&topic, &diff, Some(&members));
        let frame: Value = serde_json::from_str(&frames[0]).expect("a frame is JSON");
        assert_eq!(frame["presence"]["subject"], "ann");
        let subjects = json!({ "ann": ["ann", null], "bob": [null] });
        assert_eq!(frame["presence"]["currentSubjects"], subjects);
    }

    #[test]
    fn a_changed_state_is_told_by_everyones_after_all_else() {
        let (ann, bob) = (member("ann", "away"), member("bob", ""));
        let leaves = vec![member("ann", "")];
        let diff = PresenceDiff { joins: vec![ann.clone(), bob.clone()], leaves };
        let members = [ann, bob];
        let expected =
            [("join".to_owned(), json!("bob"), None), ("sync".to_owned(), Value::Null, Some(2))];
        assert_eq!(told(&diff, Some(&members)), expected);
    }

    #[test]
    fn without_a_list_each_is_told_alone() {
        let diff = PresenceDiff {
            joins: vec![member("ann", "away")],
            leaves: vec![member("ann", ""), member("eve", "")],
        };
        let expected =
            [("leave".to_owned(), json!("eve"), None), ("join".to_owned(), json!("ann"), None)];
        assert_eq!(told(&diff, None), expected);
    }
}
