//! `POST /v1/publish`: one publication, or a batch of which each has its own result.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use tidewire::Action;
use tidewire_axum::Caller;
use tidewire_protocol::{
    Code, FromObject, Payload, Position, Publication, Refusal, Topic, TopicKind,
};

use super::Api;

/// The header by which repeats are recognised.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What stands between a batch's key and the number of an item in the item's own key; no key that
/// a client gives has it.
const ITEM: char = '\0';

/// What answers are.
const JSON: &str = "application/json";

/// Bytes of an answer to one publication: a position is at most 40.
const ANSWER_BYTES: usize = 64;

/// Of writing into a string.
const INFALLIBLE: &str = "writing into a string does not fail";

/// One publication as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    topic: Option<String>,
    notify: Option<String>,
    private: Option<bool>,
    event: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    key: Option<String>,
}

/// `null` is data like any other; only what is not there is missing.
fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(reader).map(Some)
}

/// The body: one, or several.
enum Body {
    One(Item),
    Batch(Vec<Box<RawValue>>),
}

pub(super) async fn publish(State(api): State<Api>, request: Request) -> Response {
    match answer(&api, request).await {
        Ok(answer) => ([(CONTENT_TYPE, JSON)], answer).into_response(),
        Err(refusal) => api.refuse(&refusal),
    }
}

/// The answer as JSON.
async fn answer(api: &Api, request: Request) -> Result<String, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = Caller::of(&api.transports, &parts, &[]).await?;
    // Who has no token where one is needed sends no body.
    api.transports.node().admit(&caller.identity)?;
    let key = idempotency_key(&parts.headers)?;
    match read(&whole(body, api).await?)? {
        Body::One(item) => {
            api.transports.admit(&caller.identity, caller.client, 1)?;
            let mut answer = String::with_capacity(ANSWER_BYTES);
            print(say(api, &caller, item, key).await?, &mut answer);
            Ok(answer)
        }
        Body::Batch(items) => {
            check_batch(api, items.len())?;
            api.transports.admit(&caller.identity, caller.client, items.len())?;
            batch(api, &caller, items, key.as_ref()).await
        }
    }
}

/// Publishes what of a batch may be published, as a whole whether or not the caller waits for it,
/// and gives the answer with a result for each.
async fn batch(
    api: &Api,
    caller: &Caller,
    items: Vec<Box<RawValue>>,
    key: Option<&Arc<str>>,
) -> Result<String, Refusal> {
    let (mut publications, mut refused) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let key = key.map(|key| format!("{key}{ITEM}{index}").into());
        match allowed(api, caller, item, key).await {
            Ok(publication) => {
                publications.push(publication);
                refused.push(None);
            }
            Err(refusal) => refused.push(Some(refusal)),
        }
    }
    let publisher = api.transports.node().publisher();
    let mut published = publisher.submit_all(publications, caller.principal()).await?.into_iter();
    let mut answer = String::with_capacity(ANSWER_BYTES * (items.len() + 1));
    answer.push_str("{\"results\":[");
    for (index, refusal) in refused.into_iter().enumerate() {
        if index > 0 {
            answer.push(',');
        }
        let result = match refusal {
            Some(refusal) => Err(refusal),
            None => published.next().expect("a result for each publication"),
        };
        print_result(api, result, &mut answer);
    }
    answer.push_str("]}");
    Ok(answer)
}

/// All of the body, within the limit in force now.
async fn whole(body: axum::body::Body, api: &Api) -> Result<Bytes, Refusal> {
    let limit = api.transports.node().limits().body_bytes;
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::TooLarge, format!("a body is at most {limit} bytes")))
        }
        Err(_) => Err(Refusal::new(Code::BadField, "the body could not be read")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() => Ok(Some(key.into())),
        _ => Err(Refusal::new(Code::BadField, "Idempotency-Key must be printable ASCII")),
    }
}

fn read(body: &[u8]) -> Result<Body, Refusal> {
    let bad = |error: serde_json::Error| bad_json(&error);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => serde_json::from_slice(body).map(Body::Batch).map_err(bad),
        _ => serde_json::from_slice(body).map(|FromObject(item)| Body::One(item)).map_err(bad),
    }
}

fn bad_json(error: &serde_json::Error) -> Refusal {
    let code = if error.is_data() { Code::BadField } else { Code::BadJson };
    // Not a name of ours, which says nothing to who sent it.
    let message =
        error.to_string().replace("expected an object", "expected a publication as an object");
    Refusal::new(code, message)
}

fn check_batch(api: &Api, count: usize) -> Result<(), Refusal> {
    let limit = api.transports.node().limits().batch;
    if count <= limit {
        return Ok(());
    }
    let message = format!("a batch has at most {limit} publications, this one has {count}");
    Err(Refusal::new(Code::TooLarge, message))
}

/// One publication of a batch that the caller may make.
async fn allowed(
    api: &Api,
    caller: &Caller,
    item: &RawValue,
    key: Option<Arc<str>>,
) -> Result<Publication, Refusal> {
    let FromObject(item) = serde_json::from_str(item.get()).map_err(|error| bad_json(&error))?;
    let publication = publication(item, key)?;
    caller.may(&api.transports, Action::Publish, &publication.topic).await?;
    Ok(publication)
}

/// What came of one of a batch; a refusal is its result and does not end the batch.
fn print_result(api: &Api, result: Result<Option<Position>, Refusal>, out: &mut String) {
    match result {
        Ok(position) => print(position, out),
        Err(refusal) => {
            api.transports.node().metrics().refused(refusal.code);
            let error = json!({ "error": {
                "code": refusal.code.word(),
                "message": refusal.message,
                "retry": refusal.code.retry().word(),
            }});
            write!(out, "{error}").expect(INFALLIBLE);
        }
    }
}

async fn say(
    api: &Api,
    caller: &Caller,
    item: Item,
    key: Option<Arc<str>>,
) -> Result<Option<Position>, Refusal> {
    let publication = publication(item, key)?;
    caller.may(&api.transports, Action::Publish, &publication.topic).await?;
    api.transports.node().publisher().submit(publication, caller.principal(), None).await
}

fn publication(item: Item, key: Option<Arc<str>>) -> Result<Publication, Refusal> {
    let topic = topic(&item)?;
    if item.event.is_some() && topic.kind() == TopicKind::Notify {
        let message = "\"event\" goes with \"topic\" only; a NOTIFY carries nothing but data";
        return Err(Refusal::new(Code::BadField, message));
    }
    let missing = || Refusal::new(Code::MissingField, "the field \"data\" is missing");
    let data = item.data.ok_or_else(missing)?;
    let payload = match topic.kind() {
        TopicKind::Notify => Payload::notify(data.get()),
        _ => Payload::json(data.get()),
    };
    if item.key.as_ref().is_some_and(|key| key.contains(char::is_control)) {
        return Err(Refusal::new(Code::BadField, "\"key\" must not have control characters"));
    }
    let payload = payload.map_err(|error| Refusal::new(Code::BadField, error.to_string()))?;
    Ok(Publication {
        topic,
        name: item.event.map(Into::into),
        payload,
        echo: true,
        idempotency_key: item.key.map(Into::into).or(key),
        confirm: true,
        reference: None,
    })
}

fn topic(item: &Item) -> Result<Topic, Refusal> {
    let private = item.private.unwrap_or(false);
    let topic = match (&item.topic, &item.notify) {
        (Some(name), None) if private => Topic::private(name),
        (Some(name), None) => Topic::application(name),
        (None, Some(channel)) if !private => Topic::notify(channel),
        (None, Some(_)) => {
            return Err(Refusal::new(Code::BadField, "a NOTIFY channel is never private"));
        }
        _ => {
            let none = item.topic.is_none() && item.notify.is_none();
            let code = if none { Code::MissingField } else { Code::BadField };
            return Err(Refusal::new(code, "name exactly one of \"topic\" and \"notify\""));
        }
    };
    topic.map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))
}

/// Appends what came of a publication; its position has no character that JSON would escape.
fn print(position: Option<Position>, out: &mut String) {
    match position {
        Some(position) => write!(out, "{{\"position\":\"{position}\"}}").expect(INFALLIBLE),
        None => out.push_str("{\"position\":null}"),
    }
}
