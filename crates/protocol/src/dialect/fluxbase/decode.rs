//! Requests of the Fluxbase dialect as commands.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::request::{Config, Request, Seen, object, required, text};
use super::table::{self, Table};
use super::{NEWER, UNASKED};
use crate::answer::{Code, Refusal};
use crate::command::{Command, Publication, Reference, Subscription, Tag, Token};
use crate::event::Payload;
use crate::interest::Interest;
use crate::json::{self, Object};
use crate::topic::{Topic, TopicKind};

/// The commands in a frame's text.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Refusal> {
    let request: Request<'_> = object("a frame", text)?;
    match &*required("type", request.kind, "unknown message type")? {
        "subscribe" => subscribe(&request).map(|wish| vec![Command::Subscribe(wish)]),
        "unsubscribe" => unsubscribe(&request).map(|command| vec![command]),
        "broadcast" => broadcast(&request),
        "presence" => presence(&request),
        "access_token" => access_token(&request).map(|command| vec![command]),
        // Never answered: clients that answer each of ours would go on for ever.
        "heartbeat" => Ok(Vec::new()),
        "subscribe_logs" | "subscribe_all_logs" => {
            Err(Refusal::new(Code::NotConfigured, "this server has no logs of executions"))
        }
        _ => Err(Refusal::new(Code::UnknownType, "unknown message type")),
    }
}

fn subscribe(request: &Request<'_>) -> Result<Subscription, Refusal> {
    if let Some(table) = named_table(request)? {
        return newer(&table);
    }
    if request.config.is_some() {
        return Err(Refusal::new(Code::MissingField, "table is required for subscribe"));
    }
    let channel = required("channel", request.channel, "channel is required for subscribe")?;
    let topic = super::topic(&channel)?;
    match topic.kind() {
        TopicKind::Table => {
            let interest = narrowed(request).map_err(|refusal| refusal.about(&topic))?;
            Ok(Subscription { interest, ..Subscription::to(topic) })
        }
        _ => Ok(to_channel(topic)),
    }
}

/// The table that the request names by `config`, or else by fields beside `type`.
fn named_table<'a>(request: &Request<'a>) -> Result<Option<Table<'a>>, Refusal> {
    if let Some(config) = request.config
        && let Some(table) = Table::read(&object("config", config.get())?)?
    {
        return Ok(Some(table));
    }
    let &Request { event, schema, table, filter, .. } = request;
    Table::read(&Config { event, schema, table, filter })
}

/// A subscription as the newer frames make it, with an id and a style of its own.
fn newer(table: &Table<'_>) -> Result<Subscription, Refusal> {
    let topic = table.topic()?;
    let interest = table.interest().map_err(|refusal| refusal.about(&topic))?;
    Ok(Subscription {
        interest,
        tag: Some(Tag(NEWER.into())),
        key: Some(table.id().into()),
        reference: Some(Reference(table.acknowledgement().into())),
        ..Subscription::to(topic)
    })
}

/// What of a table is wanted by a request that names it by its channel: everything, unless newer
/// fields stand beside the channel.
fn narrowed(request: &Request<'_>) -> Result<Interest, Refusal> {
    let filter = text("filter", request.filter)?;
    table::interest(&table::event(request.event)?, filter.as_deref())
}

/// Whoever listens to a channel is told who is there.
fn to_channel(topic: Topic) -> Subscription {
    Subscription { presence: true, ..Subscription::to(topic) }
}

/// Who says something on a channel or is seen there listens to it too.
fn implied(topic: Topic) -> Command {
    let reference = Some(Reference(UNASKED.into()));
    Command::Subscribe(Subscription { implied: true, reference, ..to_channel(topic) })
}

fn unsubscribe(request: &Request<'_>) -> Result<Command, Refusal> {
    if let Some(id) = text("subscription_id", request.subscription_id)? {
        let topic = table::topic_of(&id)?;
        let payload = Object::untyped("subscription_id", &id, 64).truth("unsubscribed", true);
        let reference = Some(Reference(payload.finish().into()));
        return Ok(Command::Unsubscribe { topic, key: Some(id.into()), reference });
    }
    let channel = required("channel", request.channel, "channel is required for unsubscribe")?;
    Ok(Command::Unsubscribe { topic: super::topic(&channel)?, key: None, reference: None })
}

/// A channel on which clients speak; what is said on a table's are its changes.
fn spoken_channel(request: &Request<'_>, kind: &str) -> Result<Topic, Refusal> {
    let missing = format!("channel is required for {kind}");
    let topic = super::topic(&required("channel", request.channel, &missing)?)?;
    if topic.kind() == TopicKind::Table {
        let message = format!("the channel of a table takes no {kind}");
        return Err(Refusal::new(Code::BadField, message).about(&topic));
    }
    Ok(topic)
}

fn broadcast(request: &Request<'_>) -> Result<Vec<Command>, Refusal> {
    let topic = spoken_channel(request, "broadcast")?;
    let about = |refusal: Refusal| refusal.about(&topic);
    let reference = message_id(request).map_err(about)?;
    let publication = Publication {
        topic: topic.clone(),
        name: text("event", request.event).map_err(about)?.map(Arc::from),
        payload: payload(request.payload).map_err(about)?,
        echo: true,
        idempotency_key: None,
        confirm: reference.is_some(),
        reference,
    };
    Ok(vec![implied(topic), Command::Publish(publication)])
}

fn payload(value: Option<&RawValue>) -> Result<Payload, Refusal> {
    Payload::json(value.map_or("null", RawValue::get)).map_err(|error| {
        Refusal::new(Code::BadField, format!("payload cannot be passed on: {error}"))
    })
}

/// The id by which the client wants to be told that its message was said.
fn message_id(request: &Request<'_>) -> Result<Option<Reference>, Refusal> {
    let Some(id) = text("messageId", request.message_id)? else { return Ok(None) };
    let mut json = String::new();
    json::string(&mut json, &id);
    Ok(Some(Reference(json.into())))
}

/// The SDK puts `event` beside `payload`, the server that it is for reads it inside.
fn presence(request: &Request<'_>) -> Result<Vec<Command>, Refusal> {
    let topic = spoken_channel(request, "presence")?;
    let about = |refusal: Refusal| refusal.about(&topic);
    let seen = match request.payload {
        Some(payload) => object("payload", payload.get()).map_err(about)?,
        None => Seen::default(),
    };
    let event = text("event", request.event.or(seen.event)).map_err(about)?;
    match event.as_deref() {
        Some("track") => {
            let key = text("key", seen.key).map_err(about)?.map(Arc::from);
            let meta = state(seen.state).map_err(about)?;
            let track = Command::Track { topic: topic.clone(), key, meta, reference: None };
            Ok(vec![implied(topic), track])
        }
        Some("untrack") => Ok(vec![Command::Untrack { topic, reference: None }]),
        _ => Err(about(Refusal::new(Code::BadField, "unknown presence event"))),
    }
}

fn state(value: Option<&RawValue>) -> Result<Arc<str>, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadField, message);
    let Some(value) = value else { return Ok("{}".into()) };
    if !value.get().starts_with('{') {
        return Err(bad("state must be an object".to_owned()));
    }
    json::check(value.get()).map_err(|error| bad(format!("state cannot be passed on: {error}")))?;
    Ok(value.get().into())
}

fn access_token(request: &Request<'_>) -> Result<Command, Refusal> {
    let missing = "token is required for access_token message";
    let token = Token::new(required("token", request.token, missing)?);
    Ok(Command::Authenticate { token, reference: None })
}
