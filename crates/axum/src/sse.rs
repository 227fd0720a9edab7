//! Server-Sent Events: a session whose bytes are the body of one endless answer.
//!
//! The topics stand in the query; `id:` is the cursor, and a browser that comes back sends the
//! last one as `Last-Event-ID`, which wins over `since=` because it is the newer. Some libraries
//! send it as `lastEventId=` in the query. No `id:` names a place before everything up to there
//! was told, gaps included. Bytes are taken
//! from the session only when the connection has room for them, so a slow reader is sent from
//! history. A single topic on plain TCP has its socket to itself ([`plain`]).

mod plain;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, unfold};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use tidewire::{Dialect, Identity, Opening, Session};
use tidewire_protocol::{Close, Command, Refusal, Subscription, Wire};

use self::plain::Late;
use crate::client::client;
use crate::handshake::{GoOn, Query, SUBSCRIPTION_PARAMETERS, Subprotocol, token};
use crate::listen::{GivenUp, SocketPlace};
use crate::router::Transports;
use crate::started::{Answers, Noting, Progress};
use crate::takeover::{Seat, Takeover};

/// The first bytes: a comment, so that proxies and clients see the stream begin.
const HELLO: &[u8] = b":\n\n";

/// Tells a browser to come back two seconds after it lost the connection; Chromium's own pause is
/// three, Firefox's five.
const RETRY: &[u8] = b"retry: 2000\n\n";

/// Where the package `event-source-polyfill` puts the last id, since a page may not set headers.
pub(crate) const LAST_EVENT_ID: &str = "lastEventId";

/// The connection that an answer goes to.
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    given_up: GivenUp,
    /// Whether it can be taken over.
    seat: bool,
    socket: Option<Arc<SocketPlace>>,
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl Peer {
    fn of(extensions: &Extensions) -> Self {
        let given_up = extensions.get::<GivenUp>().cloned().unwrap_or_default();
        Self {
            address: client(extensions),
            given_up,
            seat: extensions.get::<Seat>().is_some(),
            socket: extensions.get().cloned(),
        }
    }
}

/// `GET /v1/sse`: topics by `topic=`, `private=`, `table=` and `notify=`, resumed by `Last-Event-ID` or
/// `since=`; of a single table what `events=`, `columns=` and `filter=` say, with `snapshot=` its
/// rows first.
pub(crate) async fn native(State(transports): State<Transports>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let opened = async {
        let (headers, peer) = (&parts.headers, Peer::of(&parts.extensions));
        let query = Query::read(&parts.uri)?;
        query.expect_only(&[&SUBSCRIPTION_PARAMETERS[..], &[LAST_EVENT_ID]].concat())?;
        let subscriptions = query.subscriptions_from(go_on(headers, &query)?)?;
        let token = token(headers, &query, Subprotocol::default())?;
        let address = peer.address.map(|peer| peer.ip());
        let identity = transports.node().identify(token.as_ref(), address).await?;
        open(&transports, transports.native(), identity, subscriptions, RETRY, peer).await
    };
    opened.await.unwrap_or_else(|refusal| transports.refuse(&refusal))
}

/// From where a stream goes on: what a client that comes back sends in `Last-Event-ID` or in
/// `lastEventId=`, of which an empty one is as good as none, else `since=`.
///
/// # Errors
/// `BadField` for a parameter that stands twice.
pub(crate) fn go_on<'a>(headers: &'a HeaderMap, query: &'a Query) -> Result<GoOn<'a>, Refusal> {
    let shown = match headers.get("last-event-id").filter(|id| !id.is_empty()) {
        // What is not text is no cursor.
        Some(id) => Some(id.to_str().unwrap_or("?")),
        None => query.one(LAST_EVENT_ID)?.filter(|id| !id.is_empty()),
    };
    Ok(match shown {
        Some(id) => GoOn::LastEventId(id),
        None => GoOn::Since(query.one("since")?),
    })
}

/// A stream of the given topics, subscribed before the answer begins.
///
/// # Errors
/// Whatever refuses the session or one of the subscriptions.
pub(crate) async fn open(
    transports: &Transports,
    dialect: &Arc<dyn Dialect>,
    identity: Identity,
    subscriptions: Vec<Subscription>,
    greeting: &'static [u8],
    peer: Peer,
) -> Result<Response, Refusal> {
    let noting = Noting::new(dialect, Answers::Told);
    let opening = Opening::new(Arc::clone(&noting) as _, Wire::EventStream, identity);
    let opening = opening.peer(peer.address);
    let several = subscriptions.len() > 1;
    let opening = if several { opening.composite() } else { opening };
    let late = (peer.seat && !several).then(Late::default);
    let opening = match &late {
        Some(late) => opening.outlet(Box::new(late.clone())),
        None => opening,
    };
    let mut session = transports.node().open(opening)?;
    if let Some(socket) = &peer.socket
        && peer.seat
        && session.identity().has_token()
    {
        socket.authenticated();
    }
    session.welcome();
    let mut progress = Progress::of(&subscriptions);
    let snapshot = subscriptions.iter().any(|one| one.snapshot);
    for subscription in subscriptions {
        session.perform(Command::Subscribe(subscription)).await?;
    }
    for started in noting.take() {
        if started.gap.is_some() {
            progress.wait_for_gap(&started.topic);
        } else if !snapshot || started.resumed {
            // Inside a snapshot there is no place to go on from: it is told anew.
            progress.reach(&started.topic, started.position);
        }
    }
    let mut first = BytesMut::from(HELLO);
    first.extend_from_slice(greeting);
    // An id alone is no event, but what a client resumes from if the connection breaks now.
    put_id(&mut first, &progress);
    first.extend_from_slice(b"\n");
    let first = first.freeze();
    if let Some(late) = late {
        let transports = transports.clone();
        let mut response = answer(Body::empty());
        let socket = peer.socket;
        Takeover::by(&mut response, |given| late.begin(transports, session, socket, first, given));
        return Ok(response);
    }
    let progress = several.then_some(progress);
    let told = Told { session, progress, ended: false, given_up: peer.given_up };
    Ok(answer(Body::new(StreamBody::new(told.stream(first)))))
}

fn answer(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Neither kept nor compressed: both would hold events back.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn put_id(out: &mut BytesMut, progress: &Progress) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(progress.cursor().as_bytes());
    out.extend_from_slice(b"\n");
}

/// When a browser should come back.
fn last_words(why: Close) -> Vec<u8> {
    let retry = why.retry_after().map(|seconds| u32::from(seconds) * 1_000);
    retry.map_or_else(Vec::new, |pause| format!("retry: {pause}\n\n").into_bytes())
}

/// A session that is told to the end.
struct Told {
    session: Session,
    /// With several topics: how far each was told, to be written before each event.
    progress: Option<Progress>,
    ended: bool,
    /// Whether the connection was cut because nothing was taken from it.
    given_up: GivenUp,
}

/// The connection is over, and with it what it was told: one that left, or one cut off.
impl Drop for Told {
    fn drop(&mut self) {
        if !self.ended {
            let slow = self.given_up.is_so();
            self.session.close(if slow { Close::SlowConsumer } else { Close::Normal });
        }
    }
}

impl Told {
    fn stream(
        self,
        first: Bytes,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static {
        unfold((self, Some(first)), |(mut told, first)| async move {
            let bytes = match first {
                Some(first) => first,
                None => told.next().await?,
            };
            Some((Ok(Frame::data(bytes)), (told, None)))
        })
    }

    /// The next bytes; `None` after the goodbye.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            match self.session.ready().await {
                Ok(()) => {
                    let bytes = self.take();
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
                Err(why) => return Some(self.goodbye(why)),
            }
        }
        None
    }

    /// The last bytes: what waits, what the dialect says, and when a browser should come back.
    fn goodbye(&mut self, why: Close) -> Bytes {
        self.session.close(why);
        self.ended = true;
        let mut last = BytesMut::from(&self.take()[..]);
        last.extend_from_slice(&last_words(why));
        last.freeze()
    }

    /// All that waits, as one piece.
    fn take(&mut self) -> Bytes {
        let mut taken = self.session.take();
        if self.progress.is_none() && taken.len() == 1 {
            return taken.remove(0).bytes;
        }
        let mut joined = BytesMut::new();
        for outgoing in taken {
            if let (Some(progress), Some(mark)) = (&mut self.progress, &outgoing.mark) {
                progress.reach(&mark.0, mark.1);
                put_id(&mut joined, progress);
            }
            joined.extend_from_slice(&outgoing.bytes);
        }
        joined.freeze()
    }
}
