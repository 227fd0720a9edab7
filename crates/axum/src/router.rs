//! Which path speaks which dialect over which transport.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::Method;
use tidewire::budget::{self, Budget, Principal, Rate, Rates};
use tidewire::{Dialect, Identity, Node};
use tidewire_protocol::dialect::{Alle, AlleEvents, Fluxbase, Native};
use tidewire_protocol::{Code, Refusal};
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::bodies::Bodies;
use crate::client::Proxies;
use crate::origin::Origins;
use crate::websocket::{self, Parameters};
use crate::{alle, fluxbase, poll, refusal, sse};

/// What all transports share: the node, the rules for browsers, the tasks of WebSockets. Cheap to
/// clone.
#[derive(Clone)]
pub struct Transports(Arc<Inner>);

struct Inner {
    node: Node,
    origins: Arc<Origins>,
    native: Arc<dyn Dialect>,
    alle: Arc<dyn Dialect>,
    alle_events: Arc<dyn Dialect>,
    fluxbase: Arc<dyn Dialect>,
    tasks: TaskTracker,
    proxies: Proxies,
    publications: Rates,
    bodies: Bodies,
}

impl Transports {
    /// Transports to the sessions of `node`, for pages of `origins`.
    pub fn new(node: Node, origins: Origins) -> Self {
        Self(Arc::new(Inner {
            node,
            origins: Arc::new(origins),
            native: Arc::new(Native),
            alle: Arc::new(Alle),
            alle_events: Arc::new(AlleEvents),
            fluxbase: Arc::new(Fluxbase),
            tasks: TaskTracker::new(),
            proxies: Proxies::default(),
            publications: Rates::default(),
            bodies: Bodies::default(),
        }))
    }

    /// The same behind proxies that name their clients. To be called before the transports are
    /// cloned.
    ///
    /// # Panics
    /// When they were.
    #[must_use]
    pub fn behind(mut self, proxies: Proxies) -> Self {
        Arc::get_mut(&mut self.0).expect("the transports were not cloned yet").proxies = proxies;
        self
    }

    /// The node whose sessions these are.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Which web pages may connect.
    pub fn origins(&self) -> &Arc<Origins> {
        &self.0.origins
    }

    /// Upgrades a request to a WebSocket of the given dialect, or answers why not. Parameters
    /// other than a token are left to the caller.
    pub async fn websocket(&self, dialect: Arc<dyn Dialect>, request: Request) -> Response {
        websocket::open(self, dialect, Parameters::Any, request).await
    }

    /// Upgrades a request to a WebSocket of the Alle dialect; for `/`, where a browser gets a page
    /// unless [`is_upgrade`](crate::is_upgrade) says that the request is for a WebSocket.
    pub async fn alle(&self, request: Request) -> Response {
        self.websocket(Arc::clone(&self.0.alle), request).await
    }

    /// Waits until the last WebSocket has ended; they do when the node shuts down.
    pub async fn ended(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Takes the room for `count` publications over HTTP: by the subject of the token, else by the
    /// peer's address.
    ///
    /// # Errors
    /// `RateLimited` beyond `publishes_per_second` and `publish_burst` of the node's limits.
    pub fn admit(
        &self,
        identity: &Identity,
        peer: Option<SocketAddr>,
        count: usize,
    ) -> Result<(), Refusal> {
        let limits = self.0.node.limits();
        let rate = Rate { per_second: limits.publishes_per_second, burst: limits.publish_burst };
        let principal = Principal::of(identity, peer.map(|peer| peer.ip()));
        if self.0.publications.take(&principal, count, rate) {
            return Ok(());
        }
        budget::exceeded(Budget::Publications, &principal, self.0.node.metrics());
        let message = format!("more than {} publications a second, slow down", rate.per_second);
        Err(Refusal::new(Code::RateLimited, message))
    }

    /// The proxies in front of the server.
    pub fn proxies(&self) -> &Proxies {
        &self.0.proxies
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn native(&self) -> &Arc<dyn Dialect> {
        &self.0.native
    }

    pub(crate) fn alle_events(&self) -> &Arc<dyn Dialect> {
        &self.0.alle_events
    }

    pub(crate) fn fluxbase(&self) -> &Arc<dyn Dialect> {
        &self.0.fluxbase
    }

    /// The answer for a refused request, which is counted.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> Response {
        self.0.node.metrics().refused(refusal.code);
        refusal::response(refusal)
    }
}

/// The paths of the dialects; to be merged with others and [`finish`]ed.
///
/// | path | what |
/// |---|---|
/// | `/v1/ws`, `/v1/sse`, `/v1/poll` | the native dialect on each transport |
/// | `/alle` | Alle on a WebSocket |
/// | `/events`, `/sse` | Alle on Server-Sent Events |
/// | `POST /notify` | Alle's way to say something |
/// | `/realtime` | Fluxbase on a WebSocket |
pub fn router(transports: &Transports) -> Router {
    Router::new()
        .route("/v1/ws", any(native_websocket))
        .route("/v1/sse", get(sse::native))
        .route("/v1/poll", get(poll::native))
        .route("/alle", any(alle_websocket))
        .route("/events", get(alle::events))
        .route("/sse", get(alle::events))
        .route("/notify", post(alle::notify))
        .route("/realtime", any(fluxbase::websocket))
        .with_state(transports.clone())
}

/// Adds what holds for every path: JSON answers of 404 and 405, the check of origins, CORS, and
/// the limit of request bodies.
pub fn finish(router: Router, transports: &Transports) -> App {
    let router = router
        .fallback(refusal::not_found)
        .method_not_allowed_fallback(refusal::method_not_allowed);
    let (websocket, stream) = (transports.clone(), transports.clone());
    App::new(router, transports)
        .shortcut(Method::GET, "/v1/ws", move |request| {
            native_websocket(State(websocket.clone()), request)
        })
        .shortcut(Method::GET, "/v1/sse", move |request| {
            sse::native(State(stream.clone()), request)
        })
}

async fn native_websocket(State(transports): State<Transports>, request: Request) -> Response {
    let dialect = Arc::clone(transports.native());
    websocket::open(&transports, dialect, Parameters::Subscriptions, request).await
}

async fn alle_websocket(State(transports): State<Transports>, request: Request) -> Response {
    transports.alle(request).await
}
