//! Fluxbase's statistics in its words: counts without a token, as the documented program has them,
//! and the list of connections of the newer one, for administrators.
//!
//! Parameters that are not known or make no sense are passed over, as it does.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tidewire::Connection;
use tidewire_axum::{Caller, Query};
use tidewire_protocol::dialect::rfc3339;
use tidewire_protocol::{Code, Refusal};

use super::Api;

/// Connections in one answer, unless `limit` says otherwise.
const PAGE: usize = 25;

/// Connections in one answer at most.
const LARGEST_PAGE: usize = 100;

/// `GET /api/realtime/stats`.
pub(super) async fn counts(State(api): State<Api>) -> Response {
    let stats = api.transports.node().stats();
    let body = json!({ "connections": stats.connections, "channels": stats.topics });
    std::future::ready(fresh(StatusCode::OK, body)).await
}

/// `GET /api/v1/realtime/stats`.
pub(super) async fn connections(State(api): State<Api>, request: Parts) -> Response {
    match list(&api, &request).await {
        Ok(list) => fresh(StatusCode::OK, list),
        Err(refusal) => refuse(&api, &refusal),
    }
}

async fn list(api: &Api, request: &Parts) -> Result<Value, Refusal> {
    let caller = Caller::with_any(&api.transports, request).await?;
    if !caller.identity.superuser {
        let code = match caller.identity.has_token() {
            true => Code::Forbidden,
            false => Code::Unauthorized,
        };
        return Err(Refusal::new(code, "only an administrator may see the connections"));
    }
    let Wish { limit, offset, search } = Wish::read(&caller.query)?;
    let wanted = |connection: &Connection| is_found(connection, &search);
    let page = offset..offset.saturating_add(limit);
    let (total, connections) = api.transports.node().connections(wanted, page);
    let connections: Vec<_> = connections.iter().map(described).collect();
    Ok(json!({
        "total_connections": total,
        "connections": connections,
        "limit": limit,
        "offset": offset,
    }))
}

/// Which connections.
struct Wish {
    limit: usize,
    offset: usize,
    /// In lower case.
    search: String,
}

impl Wish {
    fn read(query: &Query) -> Result<Self, Refusal> {
        let number = |name| Ok(query.one(name)?.and_then(|text| text.parse::<usize>().ok()));
        let limit = number("limit")?.filter(|limit| *limit > 0).unwrap_or(PAGE);
        Ok(Self {
            limit: limit.min(LARGEST_PAGE),
            offset: number("offset")?.unwrap_or(0),
            search: query.one("search")?.unwrap_or_default().to_lowercase(),
        })
    }
}

/// Whether the text is part of what is shown of the connection, in whatever case.
fn is_found(connection: &Connection, search: &str) -> bool {
    let found = |text: &str| text.to_lowercase().contains(search);
    search.is_empty()
        || found(&connection.id.to_string())
        || connection.subject.as_deref().is_some_and(found)
        || email(connection).is_some_and(found)
        || found(&address(connection))
}

fn described(connection: &Connection) -> Value {
    let since = i64::try_from(connection.since).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    json!({
        "id": connection.id.to_string(),
        "user_id": connection.subject,
        "email": email(connection),
        "remote_addr": address(connection),
        "connected_at": rfc3339(since),
    })
}

fn email(connection: &Connection) -> Option<&str> {
    connection.claims.as_ref()?.get("email")?.as_str()
}

fn address(connection: &Connection) -> String {
    connection.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

fn refuse(api: &Api, refusal: &Refusal) -> Response {
    api.transports.node().metrics().refused(refusal.code);
    let words = match refusal.code {
        Code::TokenInvalid | Code::TokenExpired => "Invalid or expired token",
        _ => &refusal.message,
    };
    let status = StatusCode::from_u16(refusal.code.status()).expect("a code's status is one");
    let mut response = fresh(status, json!({ "error": words }));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// An answer that is not kept.
fn fresh(status: StatusCode, body: Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
