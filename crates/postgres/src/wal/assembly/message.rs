//! What SQL says on a topic with `tidewire.publish`, which comes as a logical message.
//!
//! Its content, behind the signature, is JSON: `topic`, perhaps `event`, and one of `json` and `text`.
//! Where messages without a signature are taken any role can write one, so it may name nothing but an
//! application topic.

use std::collections::HashMap;

use serde_json::value::RawValue;
use tidewire_protocol::{Audience, Body, Draft, Payload, PayloadError, Topic, TopicError};

/// For whom the messages are.
pub(super) const PREFIX: &str = "tidewire";

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
pub(super) fn read(content: &[u8]) -> Result<Draft, Problem> {
    let fields: HashMap<String, Box<RawValue>> = serde_json::from_slice(content)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_topic_event_and_payload() {
        let draft = read(br#"{"topic":"room:1","event":"said","json":{"n":1.00}}"#).unwrap();
        assert_eq!(draft.topic, Topic::application("room:1").unwrap());
        assert_eq!(draft.name.as_deref(), Some("said"));
        assert!(
            matches!(draft.body, Body::Message(Payload::Json(json)) if &*json == "{\"n\":1.00}")
        );
        let draft = read(br#"{"topic":"a","event":null,"text":"hi"}"#).unwrap();
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
            let told = read(content.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(why), "{content}: {told}");
        }
    }
}
