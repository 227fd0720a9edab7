//! Alle's two HTTP doors: a stream of NOTIFY channels, and a way to say something on one.
//!
//! Their answers are in Alle's own words and statuses, since its clients read those. Unlike the
//! program they come from, both check who asks.

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use tidewire::{Action, Identity};
use tidewire_protocol::{Code, FromObject, Payload, Publication, Refusal, Subscription, Topic};

use crate::caller::Caller;
use crate::handshake::{Query, Subprotocol, go_on_from, token};
use crate::router::Transports;
use crate::{refusal, sse};

/// `GET /events?channels=a,b`, also `/sse`. Resumes by `Last-Event-ID` or `since=`.
pub(crate) async fn events(
    State(transports): State<Transports>,
    peer: sse::Peer,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let opened = async {
        let query = Query::read(&uri)?;
        query.expect_only(&["channels", "since", sse::LAST_EVENT_ID])?;
        let mut subscriptions = channels(query.one("channels")?)?;
        go_on_from(&mut subscriptions, sse::go_on(&headers, &query)?)?;
        let identity = identify(&transports, &headers, &query, peer.address).await?;
        sse::open(&transports, transports.alle_events(), identity, subscriptions, b"", peer).await
    };
    opened.await.unwrap_or_else(|refusal| in_words(&transports, &refusal))
}

/// The channels, split at commas and not trimmed, as Alle does it.
fn channels(list: Option<&str>) -> Result<Vec<Subscription>, Refusal> {
    let list = list
        .ok_or_else(|| Refusal::new(Code::MissingField, "the parameter \"channels\" is missing"))?;
    let (mut subscriptions, mut invalid) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for name in list.split(',') {
        match Topic::notify(name) {
            // A channel named twice is listened to once.
            Ok(topic) if seen.insert(topic.clone()) => subscriptions.push(Subscription::to(topic)),
            Ok(_) => {}
            Err(error) => invalid.push(format!("'{name}': {error}")),
        }
    }
    if invalid.is_empty() {
        return Ok(subscriptions);
    }
    let message = format!("Invalid channel names: {}", invalid.join(", "));
    Err(Refusal::new(Code::BadTopic, message))
}

async fn identify(
    transports: &Transports,
    headers: &HeaderMap,
    query: &Query,
    client: Option<SocketAddr>,
) -> Result<Identity, Refusal> {
    let token = token(headers, query, Subprotocol::default())?;
    transports.node().identify(token.as_ref(), client.map(|client| client.ip())).await
}

/// A refusal as text, in Alle's words where it has some.
fn in_words(transports: &Transports, refused: &Refusal) -> Response {
    transports.node().metrics().refused(refused.code);
    let mut response = (refusal::status(refused.code), words(refused)).into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn words(refusal: &Refusal) -> String {
    match refusal.code {
        Code::Unauthorized => "Authentication required".to_owned(),
        Code::TokenInvalid | Code::TokenExpired => "Authentication failed".to_owned(),
        _ => refusal.message.clone(),
    }
}

/// What is to be said on a channel; other fields are ignored, as Alle does.
#[derive(Deserialize)]
pub(crate) struct Notification {
    channel: String,
    payload: String,
}

/// `POST /notify` with `{"channel":…,"payload":…}`.
pub(crate) async fn notify(State(transports): State<Transports>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Who has no token where one is needed sends no body.
    let caller = Caller::with_any(&transports, &parts).await;
    let caller =
        caller.and_then(|caller| transports.node().admit(&caller.identity).map(|()| caller));
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => return not_said(&transports, &refusal),
    };
    let request = Request::from_parts(parts, body);
    let notification = match Json::<FromObject<Notification>>::from_request(request, &()).await {
        Ok(Json(FromObject(notification))) => notification,
        Err(rejection) => return unreadable(&transports, rejection),
    };
    let topic = match Topic::notify(&notification.channel) {
        Ok(topic) => topic,
        Err(error) => {
            transports.node().metrics().refused(Code::BadTopic);
            return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response();
        }
    };
    let said = async {
        transports.admit(&caller.identity, caller.client, 1)?;
        say(&transports, &caller, topic, notification.payload).await
    };
    let said = said.await;
    said.map_or_else(|refusal| not_said(&transports, &refusal), |()| success())
}

/// A body that says nothing, in Alle's statuses.
fn unreadable(transports: &Transports, rejection: JsonRejection) -> Response {
    let (code, response) = match rejection {
        JsonRejection::JsonSyntaxError(error) => {
            let words = (StatusCode::UNPROCESSABLE_ENTITY, error.body_text());
            (Code::BadJson, words.into_response())
        }
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            (Code::TooLarge, other.into_response())
        }
        other => (Code::BadField, other.into_response()),
    };
    transports.node().metrics().refused(code);
    response
}

async fn say(
    transports: &Transports,
    caller: &Caller,
    topic: Topic,
    payload: String,
) -> Result<(), Refusal> {
    let node = transports.node();
    caller.may(transports, Action::Publish, &topic).await?;
    let publication = Publication {
        topic,
        name: None,
        payload: Payload::Text(payload.into()),
        echo: true,
        idempotency_key: None,
        confirm: true,
        reference: None,
    };
    node.publisher().submit(publication, caller.principal(), None).await.map(|_| ())
}

fn success() -> Response {
    Json(json!({"success": true})).into_response()
}

/// Alle answers 200 when PostgreSQL refuses; who may not ask, or too much, is told by status.
fn not_said(transports: &Transports, refused: &Refusal) -> Response {
    transports.node().metrics().refused(refused.code);
    let status = match refused.code {
        Code::Unauthorized
        | Code::TokenInvalid
        | Code::TokenExpired
        | Code::Forbidden
        | Code::RateLimited => refusal::status(refused.code),
        _ => StatusCode::OK,
    };
    (status, Json(json!({"success": false, "error": words(refused)}))).into_response()
}
