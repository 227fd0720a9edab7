//! Which changes of which table, as the newer frames say it, and the id of such a subscription.
//!
//! The id is what was asked, written out. So equal wishes have equal ids and share their frames,
//! and to unsubscribe by id nothing needs to be remembered.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::request::{Config, text};
use crate::answer::{Code, Refusal};
use crate::interest::Interest;
use crate::json::Object;
use crate::topic::Topic;

/// The schema of a table that is named without one.
const SCHEMA: &str = "public";

/// Every sort of change.
const ALL: &str = "*";

/// Which changes of which table.
pub(super) struct Table<'a> {
    schema: Cow<'a, str>,
    table: Cow<'a, str>,
    event: Cow<'a, str>,
    filter: Option<Cow<'a, str>>,
}

impl<'a> Table<'a> {
    /// What `config` asks for; `None` when it names no table.
    pub(super) fn read(config: &Config<'a>) -> Result<Option<Self>, Refusal> {
        let Some(table) = text("table", config.table)? else { return Ok(None) };
        Ok(Some(Self {
            schema: text("schema", config.schema)?.unwrap_or(Cow::Borrowed(SCHEMA)),
            table,
            event: event(config.event)?,
            filter: text("filter", config.filter)?,
        }))
    }

    pub(super) fn topic(&self) -> Result<Topic, Refusal> {
        if self.schema.contains('.') {
            let message = "a schema with a dot in its name cannot be subscribed to";
            return Err(Refusal::new(Code::BadTopic, message));
        }
        Topic::table(&format!("{}.{}", self.schema, self.table))
            .map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))
    }

    pub(super) fn interest(&self) -> Result<Interest, Refusal> {
        interest(&self.event, self.filter.as_deref())
    }

    /// `schema.table:event`, then `:filter` if there is one.
    pub(super) fn id(&self) -> String {
        let mut id = String::with_capacity(128);
        let table = self.schema.chars().chain(['.']).chain(self.table.chars());
        for character in table {
            match character {
                '%' => id.push_str("%25"),
                ':' => id.push_str("%3A"),
                other => id.push(other),
            }
        }
        for part in [Some(&*self.event), self.filter.as_deref()].into_iter().flatten() {
            id.push(':');
            id.push_str(part);
        }
        id
    }

    /// What the client is told about its subscription.
    pub(super) fn acknowledgement(&self) -> String {
        Object::untyped("subscription_id", &self.id(), 128)
            .truth("subscribed", true)
            .string("schema", &self.schema)
            .string("table", &self.table)
            .string("event", &self.event)
            .with(self.filter.as_deref(), |payload, filter| payload.string("filter", filter))
            .finish()
    }
}

/// The table in the id of a subscription.
pub(super) fn topic_of(id: &str) -> Result<Topic, Refusal> {
    let name = id.split_once(':').map(|(name, _)| name.replace("%3A", ":").replace("%25", "%"));
    let topic = name.and_then(|name| Topic::table(&name).ok());
    topic.ok_or_else(|| {
        let message = "subscription_id is none that this server gave";
        Refusal::new(Code::BadField, message)
    })
}

/// The sort of change that is wanted.
pub(super) fn event(value: Option<&RawValue>) -> Result<Cow<'_, str>, Refusal> {
    Ok(text("event", value)?.unwrap_or(Cow::Borrowed(ALL)))
}

/// The same as what a listener wants of a table.
pub(super) fn interest(event: &str, filter: Option<&str>) -> Result<Interest, Refusal> {
    let operations = Interest::operations_of(&[event]).map_err(|_| {
        let message = "event must be INSERT, UPDATE, DELETE, TRUNCATE or *";
        Refusal::new(Code::BadField, message)
    })?;
    let filter = filter.map(|filter| one_condition(filter).into());
    Ok(Interest { operations, filter, ..Interest::default() })
}

/// A filter of this language is one condition, so a comma in its value joins no second one.
fn one_condition(filter: &str) -> Cow<'_, str> {
    let Some((column, condition)) = filter.split_once('=') else { return Cow::Borrowed(filter) };
    let negated = condition.strip_prefix("not.");
    let (operator, value) = match negated.unwrap_or(condition).split_once('.') {
        Some(("in", _)) | None => return Cow::Borrowed(filter),
        Some(parts) => parts,
    };
    if value.starts_with('"') || !value.contains(',') {
        return Cow::Borrowed(filter);
    }
    let not = if negated.is_some() { "not." } else { "" };
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(format!("{column}={not}{operator}.\"{value}\""))
}
