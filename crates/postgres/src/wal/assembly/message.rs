//! What SQL says on a topic with `tidewire.publish`, which comes as a logical message.
//!
//! Its content, behind the signature, is JSON: `topic`, perhaps `event`, and one of `json` and `text`.
//! Where messages without a signature are taken any role can write one, so it may name nothing but an
//! application topic. One that cannot be delivered is a gap of its topic, or, where that cannot be
//! read either, only counted.

use std::collections::HashMap;

use serde_json::value::RawValue;
use tidewire_protocol::{Audience, Body, Draft, Payload, PayloadError, Topic, TopicError};

/// For whom the messages are.
pub(super) const PREFIX: &[u8] = b"tidewire";

/// Where the prefix is in a message of which only the beginning was kept: behind letter, flags and
/// place.
const PREFIX_AT: usize = 1 + 1 + 8;

/// The zero behind the prefix, and the length of the content.
const BEFORE_CONTENT: usize = 1 + 4;

/// Why content is not a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("it is not a JSON object: {0}")]
    NoObject(#[from] serde_json::Error),
    #[error("it names no topic")]
    NoTopic,
    #[error("{0}")]
    Topic(#[from] TopicError),
    #[error("it has neither json nor text")]
    NoPayload,
    #[error("its payload: {0}")]
    Payload(#[from] PayloadError),
}

/// Reads a message.
pub(super) fn read(content: &str) -> Result<Draft, Problem> {
    let fields: HashMap<String, Box<RawValue>> = serde_json::from_str(content)?;
    let text = |name: &str| -> Result<Option<String>, Problem> {
        let field = fields.get(name).map(|raw| serde_json::from_str::<Option<String>>(raw.get()));
        Ok(field.transpose()?.flatten())
    };
    let topic = Topic::application(&text("topic")?.ok_or(Problem::NoTopic)?)?;
    let payload = match fields.get("json") {
        Some(raw) => Payload::json(raw.get())?,
        None => Payload::Text(text("text")?.ok_or(Problem::NoPayload)?.into()),
    };
    let name = text("event")?.map(Into::into);
    Ok(Draft { topic, name, body: Body::Message(payload), audience: Audience::Everyone })
}

/// The topic of a message that cannot be delivered, of which the beginning is enough.
pub(super) fn topic(content: &str) -> Option<Topic> {
    let (_, rest) = content.split_once("\"topic\"")?;
    let value = rest.trim_start().strip_prefix(':')?;
    let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
    let name = values.next()?.ok()?;
    // It stands for what could not be read, which may be of the name.
    let is_whole = !name.contains(char::REPLACEMENT_CHARACTER);
    is_whole.then(|| Topic::application(&name).ok()).flatten()
}

/// The beginning of the content, of a message for us that was too large to be kept.
pub(super) fn content(head: &[u8]) -> Option<&[u8]> {
    let (letter, transactional) = (*head.first()?, *head.get(1)? & 1 != 0);
    let rest = head.get(PREFIX_AT..)?.strip_prefix(PREFIX)?;
    (letter == b'M' && transactional && rest.first() == Some(&0)).then_some(())?;
    rest.get(BEFORE_CONTENT..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_topic_event_and_payload() {
        let draft = read(r#"{"topic":"room:1","event":"said","json":{"n":1.00}}"#).unwrap();
        assert_eq!(draft.topic, Topic::application("room:1").unwrap());
        assert_eq!(draft.name.as_deref(), Some("said"));
        assert!(
            matches!(draft.body, Body::Message(Payload::Json(json)) if &*json == "{\"n\":1.00}")
        );
        let draft = read(r#"{"topic":"a","event":null,"text":"hi"}"#).unwrap();
        assert!(draft.name.is_none());
        assert!(matches!(draft.body, Body::Message(Payload::Text(text)) if &*text == "hi"));
    }

    #[test]
    fn what_is_no_message_says_why() {
        for (content, why) in [
            ("[1]", "it is not a JSON object"),
            ("{}", "it names no topic"),
            (r#"{"topic":""}"#, "must not be empty"),
            (r#"{"topic":"a"}"#, "neither json nor text"),
            (r#"{"topic":1,"text":"x"}"#, "not a JSON object"),
        ] {
            let told = read(content).unwrap_err().to_string();
            assert!(told.contains(why), "{content}: {told}");
        }
    }

    #[test]
    fn the_topic_of_what_cannot_be_delivered_is_read_from_its_beginning() {
        let room = Topic::application("room:\"1\"").unwrap();
        for (content, expected) in [
            (r#"{"topic" : "room:\"1\"", "event" : null, "json" : [[[["#, Some(&room)),
            (r#"{"topic":"room:\"1\"""#, Some(&room)),
            (r#"{"topic":"room:1"#, None),
            (r#"{"topic":""}"#, None),
            ("{\"topic\":\"a\u{fffd}\"}", None),
            (r#"{"topic":7}"#, None),
            ("", None),
        ] {
            assert_eq!(topic(content).as_ref(), expected, "{content}");
        }
    }

    #[test]
    fn the_content_of_a_message_of_which_only_the_beginning_is_there() {
        let head = b"M\x01\0\0\0\0\0\0\0\x01tidewire\0\0\x10\0\0{\"topic";
        assert_eq!(content(head), Some(&b"{\"topic"[..]));
        assert_eq!(content(&head[..20]), None);
        assert_eq!(content(b"M\x00\0\0\0\0\0\0\0\x01tidewire\0\0\x10\0\0{"), None);
        assert_eq!(content(b"M\x01\0\0\0\0\0\0\0\x01tidewires\0\0\x10\0\0{"), None);
    }
}
