//! A request as it stands in its frame: its fields, not yet what they mean.
//!
//! Fields that mean nothing are ignored and an empty string is as good as none, as in the program
//! that the language comes from.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Code, Refusal};
use crate::object::FromObject;

/// The fields of a request, their values unparsed; `null` counts as absent.
#[derive(Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) channel: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) event: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) schema: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) table: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) filter: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) config: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) subscription_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "messageId")]
    pub(super) message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) token: Option<&'a RawValue>,
}

/// Which changes of which table: in `config`, or beside `type`.
#[derive(Deserialize)]
pub(super) struct Config<'a> {
    #[serde(borrow)]
    pub(super) event: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) schema: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) table: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) filter: Option<&'a RawValue>,
}

/// What is to be seen of a client on a channel.
#[derive(Default, Deserialize)]
pub(super) struct Seen<'a> {
    #[serde(borrow)]
    pub(super) event: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) state: Option<&'a RawValue>,
}

/// Reads one object with the fields of `T`.
pub(super) fn object<'a, T: Deserialize<'a>>(name: &str, text: &'a str) -> Result<T, Refusal> {
    if !text.trim_start().starts_with('{') {
        return Err(Refusal::new(Code::BadJson, format!("{name} must be a JSON object")));
    }
    serde_json::from_str(text)
        .map(|FromObject(read)| read)
        .map_err(|error| Refusal::new(Code::BadJson, format!("{name} is not readable: {error}")))
}

/// The content of a string, borrowed from the frame unless it has escapes.
pub(super) fn text<'a>(
    name: &str,
    value: Option<&'a RawValue>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let Some(value) = value else { return Ok(None) };
    match serde_json::from_str(value.get()) {
        Ok(Text(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(_) => Err(Refusal::new(Code::BadField, format!("{name} must be a string"))),
    }
}

/// The same where there must be one; `message` says so in the language's own words.
pub(super) fn required<'a>(
    name: &str,
    value: Option<&'a RawValue>,
    message: &str,
) -> Result<Cow<'a, str>, Refusal> {
    text(name, value)?.ok_or_else(|| Refusal::new(Code::MissingField, message))
}
