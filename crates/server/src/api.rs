//! The HTTP API: publish, history, presence, statistics, health, metrics; and the page at `/`.

mod publish;

mod history;

mod presence;

pub(crate) mod stats;

mod health;

mod metrics;

pub(crate) mod operators;

mod openapi;

mod page;

mod examples;

mod realtime;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{any, get, post};
use http::Method;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tidewire_adapters::DiskHistory;
use tidewire_axum::{App, Transports};
use tidewire_postgres::{NotifySource, TableSource};
use tidewire_protocol::{Code, Refusal, Topic};

pub(crate) use self::operators::Door;
pub(crate) use self::stats::STARTED;
use crate::assemble::Authentication;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) transports: Transports,
    pub(crate) notify: Option<Arc<NotifySource>>,
    pub(crate) tables: Option<Arc<TableSource>>,
    pub(crate) disk: Option<Arc<DiskHistory>>,
    pub(crate) authentication: Authentication,
    pub(crate) door: Door,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

impl Api {
    /// The answer for a refused request, which is counted.
    fn refuse(&self, refusal: &Refusal) -> Response {
        self.transports.node().metrics().refused(refusal.code);
        tidewire_axum::refusal_response(refusal)
    }
}

/// The paths of the API.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", any(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/favicon.ico", get(page::icon))
        .route("/v1/publish", post(publish::publish))
        .route("/v1/history", get(history::history))
        .route("/v1/presence", get(presence::presence))
        .route("/v1/stats", get(stats::stats))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/api/realtime/stats", get(realtime::counts))
        .route("/api/v1/realtime/stats", get(realtime::connections))
        .merge(examples::router())
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(api)
}

/// The paths for operators alone.
pub(crate) fn operators_router(api: Api) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(api)
}

/// Has what producers send all the time answered without a look into the router.
pub(crate) fn shortcuts(app: App, api: Api) -> App {
    app.shortcut(Method::POST, "/v1/publish", move |request| {
        publish::publish(State(api.clone()), request)
    })
}

/// The one topic that a request is about.
fn one_topic(query: &tidewire_axum::Query) -> Result<Topic, Refusal> {
    let mut named = query.subscriptions(None)?;
    if named.len() > 1 {
        return Err(Refusal::new(Code::BadField, "name one topic, not several"));
    }
    Ok(named.pop().expect("at least one topic is named").topic)
}
