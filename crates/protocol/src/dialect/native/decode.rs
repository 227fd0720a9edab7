//! Requests of the native dialect as commands.

use std::borrow::Cow;
use std::sync::Arc;

use super::request::{Field, Kind, Request, Text};
use crate::answer::{Code, Refusal};
use crate::change::Operation;
use crate::command::{Command, Publication, Reference, Since, Subscription, Token};
use crate::event::Payload;
use crate::interest::Interest;
use crate::json;
use crate::topic::{Topic, TopicKind};

/// The command in a frame's text.
pub(super) fn command(text: &str) -> Result<Command, Refusal> {
    let request = Request::read(text)?;
    let reference = request.reference()?;
    meaning(&request, reference.clone()).map_err(|refusal| refusal.to(reference))
}

fn meaning(request: &Request<'_>, reference: Option<Reference>) -> Result<Command, Refusal> {
    match request.kind()? {
        Kind::Subscribe => subscribe(request, reference),
        Kind::Unsubscribe => {
            Ok(Command::Unsubscribe { topic: topic(request)?, key: None, reference })
        }
        Kind::Publish => publish(request, reference),
        Kind::Track => track(request, reference),
        Kind::Untrack => Ok(Command::Untrack { topic: topic(request)?, reference }),
        Kind::Authenticate => {
            let token = text(request, Field::Token)?.ok_or_else(|| missing("token is missing"))?;
            Ok(Command::Authenticate { token: Token::new(&*token), reference })
        }
        Kind::Ping => Ok(Command::Ping { reference }),
    }
}

fn subscribe(request: &Request<'_>, reference: Option<Reference>) -> Result<Command, Refusal> {
    let topic = topic(request)?;
    let about = |refusal: Refusal| refusal.about(&topic);
    let since = since(request).map_err(about)?;
    let presence = flag(request, Field::Presence, false).map_err(about)?;
    if presence && topic.kind() == TopicKind::Table {
        let message = "presence goes with topic or notify; nobody is on a table";
        return Err(about(Refusal::new(Code::BadField, message)));
    }
    let interest = interest(request, topic.kind()).map_err(about)?;
    let snapshot = snapshot(request, topic.kind(), since).map_err(about)?;
    let subscription = Subscription::to(topic.clone());
    let wish = Subscription { since, presence, interest, snapshot, reference, ..subscription };
    Ok(Command::Subscribe(wish))
}

/// What of a table is wanted.
fn interest(request: &Request<'_>, kind: TopicKind) -> Result<Interest, Refusal> {
    for field in [Field::Events, Field::Columns, Field::Filter] {
        if kind != TopicKind::Table && request.get(field).is_some() {
            return Err(bad(format!("{} goes with table only", field.name())));
        }
    }
    Ok(Interest {
        operations: operations(request)?,
        columns: columns(request)?,
        filter: text(request, Field::Filter)?,
        limit: None,
    })
}

/// Which operations: a list of their words, or `"*"`.
fn operations(request: &Request<'_>) -> Result<Vec<Operation>, Refusal> {
    match request.get(Field::Events) {
        None | Some("\"*\"") => Ok(Vec::new()),
        Some(_) => Interest::operations_of(&list(request, Field::Events)?).map_err(bad),
    }
}

fn columns(request: &Request<'_>) -> Result<Vec<Arc<str>>, Refusal> {
    match request.get(Field::Columns) {
        None => Ok(Vec::new()),
        Some(_) => Interest::columns_of(&list(request, Field::Columns)?).map_err(bad),
    }
}

fn list<'a>(request: &Request<'a>, field: Field) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let json = request.get(field).unwrap_or_default();
    let texts: Result<Vec<Text<'_>>, _> = serde_json::from_str(json);
    let texts = texts.map_err(|_| bad(format!("{} must be a list of strings", field.name())))?;
    Ok(texts.into_iter().map(|Text(text)| text).collect())
}

fn snapshot(request: &Request<'_>, kind: TopicKind, since: Since) -> Result<bool, Refusal> {
    let snapshot = flag(request, Field::Snapshot, false)?;
    if snapshot && kind != TopicKind::Table {
        return Err(bad("snapshot goes with table only"));
    }
    if snapshot && since == Since::Earliest {
        return Err(bad(
            "a snapshot is the table as it is now; it goes with since \"now\" or a position",
        ));
    }
    Ok(snapshot)
}

/// The key by which repeats are recognised; without control characters, which keys of the server's
/// own have.
fn idempotency_key(request: &Request<'_>) -> Result<Option<Arc<str>>, Refusal> {
    let key = text(request, Field::Key)?;
    match key.as_ref().is_some_and(|key: &Arc<str>| key.contains(char::is_control)) {
        true => Err(bad("key must not have control characters")),
        false => Ok(key),
    }
}

fn publish(request: &Request<'_>, reference: Option<Reference>) -> Result<Command, Refusal> {
    let topic = topic(request)?;
    let about = |refusal: Refusal| refusal.about(&topic);
    if topic.kind() == TopicKind::Notify && request.get(Field::Event).is_some() {
        let message = "event goes with topic only; a NOTIFY carries nothing but data";
        return Err(about(Refusal::new(Code::BadField, message)));
    }
    let publication = Publication {
        name: text(request, Field::Event).map_err(about)?,
        payload: payload(request, topic.kind()).map_err(about)?,
        echo: flag(request, Field::Echo, true).map_err(about)?,
        idempotency_key: idempotency_key(request).map_err(about)?,
        // Without an id an answer could not be matched to its request.
        confirm: reference.is_some(),
        topic: topic.clone(),
        reference,
    };
    Ok(Command::Publish(publication))
}

fn track(request: &Request<'_>, reference: Option<Reference>) -> Result<Command, Refusal> {
    let topic = topic(request)?;
    let about = |refusal: Refusal| refusal.about(&topic);
    let key = text(request, Field::Key).map_err(about)?;
    let meta = meta(request).map_err(about)?;
    Ok(Command::Track { key, meta, reference, topic: topic.clone() })
}

/// The topic that the request names by exactly one field.
fn topic(request: &Request<'_>) -> Result<Topic, Refusal> {
    let mut names = [Field::Topic, Field::Table, Field::Notify]
        .into_iter()
        .filter(|field| request.get(*field).is_some());
    let (Some(field), None) = (names.next(), names.next()) else {
        return Err(match request.get(Field::Topic).or(request.get(Field::Table)) {
            Some(_) => bad("name exactly one of topic, table and notify"),
            None => missing("name exactly one of topic, table and notify"),
        });
    };
    let private = flag(request, Field::Private, false)?;
    let kind = match (field, private) {
        (Field::Topic, false) => TopicKind::Application,
        (Field::Topic, true) => TopicKind::Private,
        (_, true) => return Err(bad("private goes with topic only")),
        (Field::Table, false) => TopicKind::Table,
        _ => TopicKind::Notify,
    };
    let name = text(request, field)?.expect("the field was found above");
    Topic::new(kind, &name).map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))
}

fn since(request: &Request<'_>) -> Result<Since, Refusal> {
    let Some(place) = text(request, Field::Since)? else { return Ok(Since::Now) };
    place.parse().map_err(|error| Refusal::new(Code::BadPosition, format!("since is {error}")))
}

fn payload(request: &Request<'_>, kind: TopicKind) -> Result<Payload, Refusal> {
    let data = request.get_or_null(Field::Data).ok_or_else(|| missing("data is missing"))?;
    let payload = match kind {
        TopicKind::Notify => Payload::notify(data),
        _ => Payload::json(data),
    };
    payload.map_err(|error| bad(format!("data cannot be passed on: {error}")))
}

fn meta(request: &Request<'_>) -> Result<Arc<str>, Refusal> {
    let Some(meta) = request.get(Field::Meta) else { return Ok("{}".into()) };
    if !meta.starts_with('{') {
        return Err(bad("meta must be an object"));
    }
    json::check(meta).map_err(|error| bad(format!("meta cannot be passed on: {error}")))?;
    Ok(meta.into())
}

fn text(request: &Request<'_>, field: Field) -> Result<Option<Arc<str>>, Refusal> {
    let Some(json) = request.get(field) else { return Ok(None) };
    match serde_json::from_str(json) {
        Ok(Text(text)) => Ok(Some(text.into())),
        Err(_) => Err(bad(format!("{} must be a string", field.name()))),
    }
}

fn flag(request: &Request<'_>, field: Field, default: bool) -> Result<bool, Refusal> {
    match request.get(field) {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(bad(format!("{} must be true or false", field.name()))),
    }
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadField, message)
}

fn missing(message: &str) -> Refusal {
    Refusal::new(Code::MissingField, message)
}
