//! `GET /v1/presence`: who is on a topic.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::request::Parts;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidewire::Action;
use tidewire_axum::Caller;
use tidewire_protocol::Refusal;
use tidewire_protocol::presence::Member;

use super::Api;

pub(super) async fn presence(State(api): State<Api>, request: Parts) -> Response {
    match answer(&api, &request).await {
        Ok(answer) => ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(refusal) => api.refuse(&refusal),
    }
}

async fn answer(api: &Api, request: &Parts) -> Result<Value, Refusal> {
    let known = ["topic", "notify", "private"];
    let caller = Caller::of(&api.transports, request, &known).await?;
    let topic = super::one_topic(&caller.query)?;
    caller.may(&api.transports, Action::Presence, &topic).await?;
    let members = api.transports.node().presence().members(&topic).await?;
    Ok(json!({ "members": members.iter().map(told).collect::<Vec<_>>() }))
}

fn told(member: &Member) -> Value {
    let meta: Option<Box<RawValue>> = serde_json::from_str(&member.meta).ok();
    let mut told = json!({ "ref": member.reference, "key": member.key, "meta": meta });
    if let Some(subject) = &member.subject {
        told["subject"] = json!(subject);
    }
    told
}
