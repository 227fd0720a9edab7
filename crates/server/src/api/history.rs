//! `GET /v1/history`: what was said on a topic, paged both ways.
//!
//! With `after=` pages go forward, oldest first; otherwise backward from `before=` (or from now),
//! newest first. Each answer names the cursors to go on with in either direction.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use serde::Serialize;
use serde_json::value::RawValue;
use tidewire::history::Page;
use tidewire::{Action, Dialect, Event, Position, Prepared, Topic};
use tidewire_axum::{Caller, Query};
use tidewire_protocol::dialect::{Movement, Native, View};
use tidewire_protocol::{Body, Code, Frame, GapReason, Refusal};

use super::Api;

/// Events in an answer unless `limit=` says otherwise.
const DEFAULT_LIMIT: u64 = 100;

/// Events in an answer at most.
const MAX_LIMIT: u64 = 1_000;

/// Which way, and from where.
#[derive(Clone, Copy)]
enum Direction {
    Forward { after: Option<Position> },
    Backward { before: Option<Position> },
}

#[derive(Serialize)]
struct Answer {
    events: Vec<Box<RawValue>>,
    /// For `before=`: events older than these.
    before: Option<String>,
    /// For `after=`: events newer than these.
    after: Option<String>,
    /// What was asked for is lost; `after` is where the topic is now.
    gap: Option<&'static str>,
}

pub(super) async fn history(State(api): State<Api>, request: Parts) -> Response {
    match answer(&api, &request).await {
        Ok(answer) => {
            let body = serde_json::to_string(&answer).expect("answers are JSON");
            let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(refusal) => api.refuse(&refusal),
    }
}

async fn answer(api: &Api, request: &Parts) -> Result<Answer, Refusal> {
    let known = ["topic", "table", "notify", "private", "after", "before", "limit"];
    let caller = Caller::of(&api.transports, request, &known).await?;
    let topic = super::one_topic(&caller.query)?;
    let direction = direction(&caller.query)?;
    let limit = limit(&caller.query)?;
    let allowed = caller.may(&api.transports, Action::History, &topic).await?;
    let rows = api.transports.node().shown(&topic, &allowed).await?;
    let page = read(api, &topic, direction, limit).await;
    let (page, end) = page.map_err(|error| error.refusal().about(&topic))?;
    told(page, direction, end, rows.as_ref()).map_err(|why| Refusal::new(Code::BadField, why))
}

fn limit(query: &Query) -> Result<usize, Refusal> {
    match query.number("limit")?.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit as usize),
        _ => {
            let message = format!("limit must be between 1 and {MAX_LIMIT}");
            Err(Refusal::new(Code::BadField, message))
        }
    }
}

fn direction(query: &Query) -> Result<Direction, Refusal> {
    match (query.one("after")?, query.one("before")?) {
        (Some(_), Some(_)) => {
            Err(Refusal::new(Code::BadField, "give \"after\" or \"before\", not both"))
        }
        (Some("earliest"), None) => Ok(Direction::Forward { after: None }),
        (Some(after), None) => Ok(Direction::Forward { after: Some(position(after)?) }),
        (None, Some(before)) => Ok(Direction::Backward { before: Some(position(before)?) }),
        (None, None) => Ok(Direction::Backward { before: None }),
    }
}

fn position(text: &str) -> Result<Position, Refusal> {
    let parsed = text.parse::<Position>();
    parsed.map_err(|error| Refusal::new(Code::BadPosition, error.to_string()))
}

/// A page, and the cursor of an empty one.
async fn read(
    api: &Api,
    topic: &Topic,
    direction: Direction,
    limit: usize,
) -> Result<(Page, Option<Position>), tidewire::Error> {
    let history = api.transports.node().history();
    match direction {
        Direction::Forward { after } => {
            let after = match after {
                Some(after) => after,
                None => history.earliest(topic).await?,
            };
            // An empty page forward is at the end: the same cursor stays good.
            Ok((history.read(topic, after, limit).await?, Some(after)))
        }
        Direction::Backward { before } => {
            let page = history.read_back(topic, before, limit).await?;
            let is_empty = matches!(&page, Page::Events(events) if events.is_empty());
            if !is_empty || before.is_some() {
                return Ok((page, None));
            }
            // The head first: what is said between the two is on the page or after the cursor.
            let head = history.head(topic).await?;
            Ok((history.read_back(topic, None, limit).await?, Some(head)))
        }
    }
}

/// `end` is the cursor of an empty page, and `rows` what the caller may see of a table.
///
/// # Errors
/// When it cannot be decided what the caller may see, why.
fn told(
    page: Page,
    direction: Direction,
    end: Option<Position>,
    rows: Option<&Prepared>,
) -> Result<Answer, String> {
    match page {
        Page::Events(events) => told_events(&events, direction, end, rows),
        Page::Lost { head, reason } => Ok(lost(head, reason)),
    }
}

fn told_events(
    events: &[Arc<Event>],
    direction: Direction,
    end: Option<Position>,
    rows: Option<&Prepared>,
) -> Result<Answer, String> {
    let shown = events.iter().map(|event| match rows {
        Some(rows) => rows.show(event),
        None => Ok(Some(Arc::clone(event))),
    });
    let shown: Vec<Option<Arc<Event>>> = shown.collect::<Result<_, _>>()?;
    let (oldest, newest) = match direction {
        Direction::Forward { .. } => (events.first(), events.last()),
        Direction::Backward { .. } => (events.last(), events.first()),
    };
    Ok(Answer {
        events: shown.iter().flatten().filter_map(|event| raw(event)).collect(),
        before: oldest.map(|event| event.position.to_string()),
        after: newest.map(|event| event.position).or(end).map(|at| at.to_string()),
        gap: None,
    })
}

fn lost(head: Position, reason: GapReason) -> Answer {
    let after = Some(head.to_string());
    Answer { events: Vec::new(), before: None, after, gap: Some(reason.word()) }
}

/// What a subscriber without a filter sees of a change.
const UNFILTERED: View<'_> = View { tag: None, columns: None, movement: Movement::Within };

/// An event as the native dialect writes it.
fn raw(event: &Event) -> Option<Box<RawValue>> {
    let frame = match &event.body {
        Body::Change(change) => Native.change(event, change, &UNFILTERED),
        _ => Native.event(event, None),
    };
    match frame? {
        Frame::Text { text, .. } => RawValue::from_string(text).ok(),
        Frame::Binary(_) => None,
    }
}
