//! HTTP of every kind by hyper: what [`plain`](super::plain) leaves, TLS, and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::once;
use http::Request;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Timely;
use super::flight::InFlight;
use super::{Door, GivenUp, KEPT_ALIVE, Listening, Patient, SocketPlace};
use crate::app::App;

/// Bytes of request headers at most; proxies commonly allow 8 to 32 KiB.
const HEADER_BYTES: usize = 32 << 10;

/// Streams in flight on one HTTP/2 connection; browsers open at most a hundred.
const STREAMS: u32 = 128;

/// Bytes that a client may send on a stream, and on all of a connection, before they are read: what
/// nobody reads is counted for nobody. The least of RFC 9113, and a few streams at once.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Bytes of a body that is read before its request is looked at.
const SMALL_BODY: u64 = 64 << 10;

/// How long a connection on which part of a request came is waited for when the server stops.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// HTTP as all connections speak it.
pub(super) fn speaker(listening: &Listening) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        // A client that has nothing more to send still waits for its answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(KEPT_ALIVE.max(listening.handshake_timeout))
        .max_buf_size(HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEPT_ALIVE)
        .keep_alive_timeout(listening.handshake_timeout)
        .enable_connect_protocol();
    http
}

impl Door {
    /// Serves the connection until it ends, or the server stops.
    pub(super) async fn serve_http<IO>(&self, io: IO, peer: SocketAddr, place: &Arc<SocketPlace>)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let given_up = GivenUp::default();
        let in_flight = InFlight::on(place);
        let visitor = Visitor {
            given_up: given_up.clone(),
            in_flight: in_flight.clone(),
            app: self.app.clone(),
            peer,
            place: Arc::clone(place),
            body_timeout: self.listening.body_timeout,
        };
        let io = TokioIo::new(Patient::new(io, self.listening.write_timeout, given_up));
        let mut connection = pin!(self.http.serve_connection_with_upgrades(io, visitor));
        // 1. The connection ends by itself; 2. or the server stops.
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // 1. The requests in flight end; 2. or nothing but half a request came for a while.
                tokio::select! {
                    biased;
                    ended = &mut connection => ended,
                    () = idle(&in_flight) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
    }
}

/// The request with its body, where that is small and its length known.
///
/// A request that is refused before its body was read ends the connection, and may cost the client
/// the answer.
async fn gathered(request: Request<Body>) -> Request<Body> {
    let is_small = |bytes| (1..=SMALL_BODY).contains(&bytes);
    if !request.body().size_hint().exact().is_some_and(is_small) {
        return request;
    }
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(whole) => Body::from(whole.to_bytes()),
        Err(error) => Body::from_stream(once(ready(Err::<Bytes, _>(error)))),
    };
    Request::from_parts(parts, body)
}

/// Ends when no request has been in flight for [`LAST_REQUEST`].
async fn idle(in_flight: &InFlight) {
    let mut rounds = 0;
    while rounds < 2 {
        tokio::time::sleep(LAST_REQUEST / 2).await;
        rounds = if in_flight.is_none() { rounds + 1 } else { 0 };
    }
}

/// One connection's way to its answers.
struct Visitor {
    app: App,
    peer: SocketAddr,
    place: Arc<SocketPlace>,
    body_timeout: Duration,
    given_up: GivenUp,
    in_flight: InFlight,
}

impl Service<Request<Incoming>> for Visitor {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let transports = self.app.transports();
        let client = transports.proxies().client(self.peer, request.headers());
        // Held until the request is answered: as long as its body may be in memory.
        let share = (!request.body().is_end_stream())
            .then(|| transports.bodies().begin(transports.node(), client));
        let mut request = request.map(|body| match &share {
            Some(share) => Timely::wrap(body, share.clone(), self.body_timeout),
            None => Body::empty(),
        });
        request.extensions_mut().insert(ConnectInfo(client));
        if let Some(share) = &share {
            request.extensions_mut().insert(share.clone());
        }
        request.extensions_mut().insert(self.given_up.clone());
        request.extensions_mut().insert(Arc::clone(&self.place));
        let in_flight = self.in_flight.begin();
        let app = self.app.clone();
        Box::pin(async move {
            let answer = app.answer(gathered(request).await).await;
            drop(share);
            Ok(in_flight.until_taken(answer))
        })
    }
}
