//! A request as it stands in its frame: which fields it has, not yet what they mean.
//!
//! One pass over the text finds the fields and leaves their values unparsed. Trouble with single
//! fields is noted and told only after the whole object was read, so that the refusal can carry
//! the request's id wherever that stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::answer::{Code, Refusal};
use crate::command::Reference;

/// Longest `id` in bytes of JSON text; a UUID in quotes has 38.
const MAX_ID_BYTES: usize = 64;

/// Longest piece of a client's text that a message repeats, in characters.
const MAX_ECHO: usize = 40;

/// A name that some request can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    Id,
    Topic,
    Table,
    Notify,
    Private,
    Since,
    Presence,
    Event,
    Data,
    Echo,
    Key,
    Meta,
    Token,
    Events,
    Columns,
    Filter,
    Snapshot,
}

impl Field {
    const ALL: [Field; 18] = [
        Self::Type,
        Self::Id,
        Self::Topic,
        Self::Table,
        Self::Notify,
        Self::Private,
        Self::Since,
        Self::Presence,
        Self::Event,
        Self::Data,
        Self::Echo,
        Self::Key,
        Self::Meta,
        Self::Token,
        Self::Events,
        Self::Columns,
        Self::Filter,
        Self::Snapshot,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Id => "id",
            Self::Topic => "topic",
            Self::Table => "table",
            Self::Notify => "notify",
            Self::Private => "private",
            Self::Since => "since",
            Self::Presence => "presence",
            Self::Event => "event",
            Self::Data => "data",
            Self::Echo => "echo",
            Self::Key => "key",
            Self::Meta => "meta",
            Self::Token => "token",
            Self::Events => "events",
            Self::Columns => "columns",
            Self::Filter => "filter",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe,
    Unsubscribe,
    Publish,
    Track,
    Untrack,
    Authenticate,
    Ping,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Track,
        Self::Untrack,
        Self::Authenticate,
        Self::Ping,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Track => "track",
            Self::Untrack => "untrack",
            Self::Authenticate => "authenticate",
            Self::Ping => "ping",
        }
    }

    /// Its fields besides `type` and `id`.
    fn fields(self) -> &'static [Field] {
        use Field::{
            Columns, Data, Echo, Event, Events, Filter, Key, Meta, Notify, Presence, Private,
            Since, Snapshot, Table, Token, Topic,
        };
        match self {
            Self::Subscribe => {
                &[Topic, Table, Notify, Private, Since, Presence, Events, Columns, Filter, Snapshot]
            }
            Self::Unsubscribe => &[Topic, Table, Notify, Private],
            Self::Publish => &[Topic, Notify, Private, Event, Data, Echo, Key],
            Self::Track => &[Topic, Notify, Private, Key, Meta],
            Self::Untrack => &[Topic, Notify, Private],
            Self::Authenticate => &[Token],
            Self::Ping => &[],
        }
    }
}

/// The fields of one request, their values unparsed.
pub(super) struct Request<'a> {
    values: [Option<&'a RawValue>; Field::ALL.len()],
    /// The first name that is none of [`Field::ALL`].
    unknown: Option<String>,
    /// The first field that came twice.
    twice: Option<Field>,
}

impl<'a> Request<'a> {
    /// Finds the fields in a frame's text.
    pub(super) fn read(text: &'a str) -> Result<Self, Refusal> {
        serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => Refusal::new(Code::BadJson, "a frame is one JSON object"),
            _ => Refusal::new(Code::BadJson, format!("the frame is not JSON: {error}")),
        })
    }

    /// The JSON text of a field; `None` when it is absent or `null`, which means the same.
    pub(super) fn get(&self, field: Field) -> Option<&'a str> {
        self.values[field as usize].map(RawValue::get).filter(|json| *json != "null")
    }

    /// The JSON text of a field in which `null` is a value like any other.
    pub(super) fn get_or_null(&self, field: Field) -> Option<&'a str> {
        self.values[field as usize].map(RawValue::get)
    }

    /// The client's id for this request, as it was written.
    pub(super) fn reference(&self) -> Result<Option<Reference>, Refusal> {
        let Some(json) = self.get(Field::Id) else { return Ok(None) };
        if !json.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9')) {
            return Err(Refusal::new(Code::BadField, "id must be a string or a number"));
        }
        if json.len() > MAX_ID_BYTES {
            let message = format!("id is at most {MAX_ID_BYTES} bytes long, quotes included");
            return Err(Refusal::new(Code::BadField, message));
        }
        if crate::json::check(json).is_err() {
            return Err(Refusal::new(Code::BadField, "id is no valid JSON string or number"));
        }
        Ok(Some(Reference(json.into())))
    }

    /// What is asked, once it is certain that every field belongs to it.
    pub(super) fn kind(&self) -> Result<Kind, Refusal> {
        let kind = self.named_kind()?;
        if let Some(name) = &self.unknown {
            return Err(not_a_field(kind, name));
        }
        if let Some(field) = self.twice {
            let message = format!("{} is there twice", field.name());
            return Err(Refusal::new(Code::BadField, message));
        }
        match self.foreign_field(kind) {
            Some(Field::Table) if kind == Kind::Publish => Err(Refusal::new(
                Code::BadField,
                "a table cannot be published to; its events are the changes of its rows",
            )),
            Some(field) => Err(not_a_field(kind, field.name())),
            None => Ok(kind),
        }
    }

    fn named_kind(&self) -> Result<Kind, Refusal> {
        let refused = |message| Refusal::new(Code::UnknownType, message);
        let Some(json) = self.get(Field::Type) else {
            return Err(refused(format!("type is missing; it is one of {}", kind_words())));
        };
        let Ok(Text(word)) = serde_json::from_str(json) else {
            return Err(refused(format!("type must be one of the words {}", kind_words())));
        };
        Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| {
            let advice = nearest(&word, Kind::ALL.into_iter().map(Kind::word))
                .unwrap_or_else(|| format!("it is one of {}", kind_words()));
            refused(format!("type {} is unknown; {advice}", echo(&word)))
        })
    }

    /// A field that is there but has no meaning in this request.
    fn foreign_field(&self, kind: Kind) -> Option<Field> {
        Field::ALL.into_iter().find(|field| {
            self.values[*field as usize].is_some()
                && !matches!(field, Field::Type | Field::Id)
                && !kind.fields().contains(field)
        })
    }
}

fn kind_words() -> String {
    Kind::ALL.map(Kind::word).join(", ")
}

fn not_a_field(kind: Kind, name: &str) -> Refusal {
    let names = || [Field::Id].iter().chain(kind.fields()).map(|field| field.name());
    let advice = nearest(name, names())
        .unwrap_or_else(|| format!("its fields are {}", names().collect::<Vec<_>>().join(", ")));
    let message = format!("{} is not a field of {}; {advice}", echo(name), kind.word());
    Refusal::new(Code::BadField, message)
}

/// A client's text, quoted and cut so that a message never grows with its request.
fn echo(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The name that was probably meant.
fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<String> {
    // Comparing takes the product of both lengths, and no name comes near twice its own.
    if word.len() > 32 {
        return None;
    }
    names
        .map(|name| (strsim::osa_distance(&word.to_lowercase(), name), name))
        // Two slips are a typing error, more are another word.
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min()
        .map(|(_, name)| format!("did you mean {name:?}?"))
}

/// A string, borrowed from the frame unless it has escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) std::borrow::Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Request<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Request<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Request<'de>, A::Error> {
        let mut request = Request { values: [None; Field::ALL.len()], unknown: None, twice: None };
        while let Some(Text(name)) = fields.next_key()? {
            let value = fields.next_value::<&RawValue>()?;
            match Field::ALL.into_iter().find(|field| field.name() == name) {
                None => {
                    request.unknown.get_or_insert(name.into_owned());
                }
                Some(field) => {
                    if request.values[field as usize].replace(value).is_some() {
                        request.twice.get_or_insert(field);
                    }
                }
            }
        }
        Ok(request)
    }
}
