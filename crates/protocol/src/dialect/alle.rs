//! Alle's language: NOTIFY channels and text payloads, over WebSocket and Server-Sent Events.
//!
//! Its clients know six frames and may stop at a seventh, so whatever they must be told beyond
//! those comes as an `error`. Channels keep their case. `docs/dialects/alle.md` shows every frame
//! and says where we differ from the program that the language comes from.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Code, Refusal};
use crate::close::Close;
use crate::command::{Command, Publication, Reference, Subscription, Tag, Token};
use crate::dialect::Dialect;
use crate::event::{Body, Event, Payload};
use crate::frame::Frame;
use crate::json::Object;
use crate::object::FromObject;
use crate::topic::Topic;

/// Alle's language on a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alle;

impl Dialect for Alle {
    fn name(&self) -> &'static str {
        "alle"
    }

    fn decode(&self, frame: &Frame) -> Result<Vec<Command>, Refusal> {
        match frame {
            Frame::Text { text, .. } => Ok(vec![command(text)?]),
            // The language has no binary frames and its server never minded them.
            Frame::Binary(_) => Ok(Vec::new()),
        }
    }

    fn answer(&self, answer: &Answer) -> Option<Frame> {
        let text = match answer {
            Answer::Subscribed { topic, .. } => about("subscribed", topic).finish(),
            Answer::Unsubscribed { topic, .. } => about("unsubscribed", topic).finish(),
            Answer::Authenticated { subject, .. } => Object::new("authenticated")
                .string("user_id", subject.as_deref().unwrap_or_default())
                .finish(),
            Answer::Ended { topic, refusal, .. } => error(&format!(
                "Error: Subscription to channel {:?} ended: {}",
                topic.name(),
                refusal.message
            )),
            Answer::Refused(refusal) => error(&complaint(refusal)),
            Answer::Welcome { .. }
            | Answer::Published { .. }
            | Answer::Tracked { .. }
            | Answer::Untracked { .. }
            | Answer::Members { .. }
            | Answer::Rows { .. }
            | Answer::Pong { .. } => return None,
        };
        Some(Frame::text(text))
    }

    fn event(&self, event: &Event, _tag: Option<&Tag>) -> Option<Frame> {
        let text = match &event.body {
            Body::Message(payload) => {
                let channel = event.topic.name();
                Object::with_room("notification", 64 + channel.len() + event.content_bytes())
                    .string("channel", channel)
                    .string("payload", &payload_text(payload))
                    .finish()
            }
            Body::Gap(reason) => error(&format!(
                "Error: Notifications on channel {:?} were missed: {reason}",
                event.topic.name()
            )),
            Body::Presence(_) | Body::Change(_) => return None,
        };
        Some(Frame::text(text))
    }

    fn close(&self, _close: Close) -> Option<Frame> {
        None
    }
}

/// Alle's language on Server-Sent Events: events and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlleEvents;

impl Dialect for AlleEvents {
    fn name(&self) -> &'static str {
        "alle-sse"
    }

    fn decode(&self, _frame: &Frame) -> Result<Vec<Command>, Refusal> {
        Err(Refusal::new(Code::UnknownType, "a stream of events takes no requests"))
    }

    fn answer(&self, _answer: &Answer) -> Option<Frame> {
        None
    }

    fn event(&self, event: &Event, _tag: Option<&Tag>) -> Option<Frame> {
        let channel = event.topic.name();
        let object =
            Object::untyped("channel", channel, 32 + channel.len() + event.content_bytes());
        match &event.body {
            Body::Message(payload) => {
                let text = object.string("payload", &payload_text(payload)).finish();
                Some(Frame::labelled("message", text))
            }
            // A name of its own keeps it away from `onmessage`, which expects a payload.
            Body::Gap(reason) => {
                Some(Frame::labelled("gap", object.string("reason", reason.word()).finish()))
            }
            Body::Presence(_) | Body::Change(_) => None,
        }
    }

    fn close(&self, _close: Close) -> Option<Frame> {
        None
    }
}

/// A request's fields; others are ignored, as the language's server does.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    fn read(text: &'a str) -> Result<Self, Refusal> {
        if !text.trim_start().starts_with('{') {
            return Err(Refusal::new(Code::BadJson, "a frame is one JSON object"));
        }
        serde_json::from_str(text)
            .map(|FromObject(request)| request)
            .map_err(|error| Refusal::new(Code::BadJson, format!("not readable: {error}")))
    }
}

/// A string, borrowed from the frame unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn command(text: &str) -> Result<Command, Refusal> {
    let request = Request::read(text)?;
    let kind = string("type", request.kind)?;
    match &*kind {
        "subscribe" => {
            let mut subscription = Subscription::to(channel(request.channel)?);
            subscription.reference = Some(SUBSCRIBE.clone());
            Ok(Command::Subscribe(subscription))
        }
        "unsubscribe" => Ok(Command::Unsubscribe {
            topic: channel(request.channel)?,
            key: None,
            reference: None,
        }),
        "notify" => Ok(Command::Publish(Publication {
            topic: channel(request.channel)?,
            name: None,
            payload: payload(request.payload)?,
            echo: true,
            idempotency_key: None,
            confirm: false,
            reference: Some(NOTIFY.clone()),
        })),
        "authenticate" => {
            let token = Token::new(string("token", request.token)?);
            Ok(Command::Authenticate { token, reference: Some(AUTHENTICATE.clone()) })
        }
        _ => Err(Refusal::new(
            Code::UnknownType,
            "type is one of subscribe, unsubscribe, notify and authenticate",
        )),
    }
}

fn string<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, Refusal> {
    let value =
        value.ok_or_else(|| Refusal::new(Code::MissingField, format!("{name} is missing")))?;
    match serde_json::from_str(value.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err(Refusal::new(Code::BadField, format!("{name} must be a string"))),
    }
}

fn payload(value: Option<&RawValue>) -> Result<Payload, Refusal> {
    let text = string("payload", value)?;
    if text.contains('\0') {
        return Err(Refusal::new(Code::BadField, "payload must not contain NUL"));
    }
    Ok(Payload::Text(text.into()))
}

fn channel(value: Option<&RawValue>) -> Result<Topic, Refusal> {
    Topic::notify(&string("channel", value)?)
        .map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))
}

/// The language has no ids, so what comes back with a refusal is which request it answers.
static SUBSCRIBE: LazyLock<Reference> = LazyLock::new(|| request_name("subscribe"));
static NOTIFY: LazyLock<Reference> = LazyLock::new(|| request_name("notify"));
static AUTHENTICATE: LazyLock<Reference> = LazyLock::new(|| request_name("authenticate"));

fn request_name(word: &str) -> Reference {
    Reference(Arc::from(format!("{word:?}")))
}

/// The refusal in the language's own wording, which clients compare, then ours.
fn complaint(refusal: &Refusal) -> String {
    let of = |request: &Reference| refusal.reference.as_ref() == Some(request);
    let beginning = match refusal.code {
        Code::AuthenticationOff => return "Authentication not configured".to_owned(),
        Code::Unauthorized => return "Authentication required".to_owned(),
        Code::TokenInvalid | Code::TokenExpired => return "Authentication failed".to_owned(),
        _ if of(&SUBSCRIBE) => "Error: Failed to subscribe to channel",
        _ if of(&NOTIFY) => "Error: Failed to forward message to Postgres",
        _ if of(&AUTHENTICATE) => "Authentication error",
        Code::BadJson
        | Code::BinaryFrame
        | Code::UnknownType
        | Code::MissingField
        | Code::BadField
        | Code::BadTopic => "Error: Failed to parse client message",
        _ => "Error",
    };
    format!("{beginning}: {}", refusal.message)
}

fn error(message: &str) -> String {
    Object::new("error").string("message", message).finish()
}

fn about(kind: &str, topic: &Topic) -> Object {
    Object::new(kind).string("channel", topic.name())
}

/// Any payload as the text that the language has room for.
fn payload_text(payload: &Payload) -> Cow<'_, str> {
    match payload {
        Payload::Text(text) | Payload::Json(text) => Cow::Borrowed(text),
        Payload::Binary(bytes) => Cow::Owned(STANDARD.encode(bytes)),
    }
}
