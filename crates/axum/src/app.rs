//! All that is answered over HTTP: a router behind the checks that hold for every path.
//!
//! A layer of a router is boxed once for each route and cloned with it for each request, which cost
//! more than the checks themselves. Here they stand in front of the router, once; and what comes
//! all the time, a publication or a handshake, need not look for its way through it
//! ([`App::shortcut`]).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Response;
use http::header::{ORIGIN, VARY};
use http::{HeaderValue, Method};
use http_body::Body as _;
use tidewire_protocol::{Code, Refusal};
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::CorsLayer;

use crate::bodies::BodyShare;
use crate::host;
use crate::origin;
use crate::router::Transports;

/// What an answer depends on beside its address, for caches; CORS says the same where it is asked.
const VARIES: HeaderValue = HeaderValue::from_static("origin");

/// What axum takes of a body when nothing else is said: 2 MB.
const AXUMS_LIMIT: usize = 2 << 20;

/// An answer on its way.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

type Handler = Box<dyn Fn(Request) -> Answer + Send + Sync>;

/// Everything that is answered over HTTP; cheap to clone.
///
/// Made by [`finish`](crate::finish) and served by [`serve`](crate::serve), or by anything else
/// that takes a `tower` service.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    transports: Transports,
    router: Router,
    shortcuts: Vec<Shortcut>,
    cors: CorsLayer,
}

/// A path that is answered without a look into the router.
struct Shortcut {
    method: Method,
    path: &'static str,
    handler: Handler,
}

impl App {
    pub(crate) fn new(router: Router, transports: &Transports) -> Self {
        let cors = transports.origins().cors();
        let transports = transports.clone();
        Self(Arc::new(Inner { transports, router, shortcuts: Vec::new(), cors }))
    }

    /// Answers this method on exactly this path by `handler`, which is to be the router's own: every
    /// other method there, and whatever else the router knows of the path, stays the router's.
    ///
    /// To be called before the app is cloned or served.
    ///
    /// # Panics
    /// When the app was cloned before.
    #[must_use]
    pub fn shortcut<F>(
        mut self,
        method: Method,
        path: &'static str,
        handler: impl Fn(Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let handler: Handler = Box::new(move |request| Box::pin(handler(request)));
        let inner = Arc::get_mut(&mut self.0).expect("the app was not cloned yet");
        inner.shortcuts.push(Shortcut { method, path, handler });
        self
    }

    pub(crate) fn transports(&self) -> &Transports {
        &self.0.transports
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request) -> Response {
        // Only a browser's request has an origin, and only such a one asks first.
        if request.headers().contains_key(ORIGIN) || request.method() == Method::OPTIONS {
            let Ok(response) = self.0.cors.layer(Checked(self.clone())).oneshot(request).await;
            return response;
        }
        let mut response = self.checked(request).await;
        response.headers_mut().append(VARY, VARIES);
        response
    }

    /// The answer for those who may have one.
    async fn checked(&self, mut request: Request) -> Response {
        let transports = &self.0.transports;
        if let Err(refusal) = host::check(request.version(), request.headers()) {
            return transports.refuse(&refusal);
        }
        if let Err(refused) = origin::check(transports, request.headers(), request.uri()) {
            return *refused;
        }
        let limit = transports.node().limits().body_bytes;
        if request.body().size_hint().lower() > limit as u64 {
            let message = format!("a body is at most {limit} bytes");
            return transports.refuse(&Refusal::new(Code::TooLarge, message));
        }
        limit_body(&mut request, limit);
        let share = request.extensions().get::<BodyShare>().cloned();
        let response = self.routed(request).await;
        // Whatever the handler made of a body that it could not read to its end.
        match share.and_then(|share| share.refusal()) {
            Some(refusal) => transports.refuse(&refusal),
            None => response,
        }
    }

    /// The answer of whatever stands at the path.
    async fn routed(&self, request: Request) -> Response {
        let Inner { router, shortcuts, .. } = &*self.0;
        let fits = |shortcut: &&Shortcut| {
            shortcut.path == request.uri().path() && shortcut.method == *request.method()
        };
        if let Some(shortcut) = shortcuts.iter().find(fits) {
            return (shortcut.handler)(request).await;
        }
        let Ok(response) = router.clone().oneshot(request).await;
        response
    }
}

/// Puts the limit in force now on a body that is not known to be within it.
fn limit_body(request: &mut Request, limit: usize) {
    let allowed = limit.min(AXUMS_LIMIT) as u64;
    if request.body().size_hint().upper().is_none_or(|bytes| bytes > allowed) {
        DefaultBodyLimit::max(limit).apply(request);
    }
}

impl Service<Request> for App {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let app = self.clone();
        Box::pin(async move { Ok(app.answer(request).await) })
    }
}

/// The app behind CORS.
#[derive(Clone)]
struct Checked(App);

impl Service<Request> for Checked {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move { Ok(app.checked(request).await) })
    }
}
