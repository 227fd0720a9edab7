//! Long-poll: a session for the time of one request.
//!
//! The cursor is all there is: each answer carries the one to go on from, and the next request may
//! reach another node. A client that goes away while it waits drops the session with the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use serde_json::json;
use tidewire::{Identity, Opening, Session};
use tidewire_protocol::{Close, Code, Command, Refusal, Subscription, Wire};
use tokio::time::Instant;

use crate::client::client;
use crate::handshake::{Query, SUBSCRIPTION_PARAMETERS, Subprotocol, token};
use crate::router::Transports;
use crate::started::{Answers, Noting, Progress, Started};

/// How long a poll waits when it does not say: under the 30 s of common proxies.
const TIMEOUT: Duration = Duration::from_secs(25);

/// Events in one answer when the client does not say, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// `GET /v1/poll`: waits for events after the cursor `since=`.
pub(crate) async fn native(State(transports): State<Transports>, request: Parts) -> Response {
    let polled = async {
        let query = Query::read(&request.uri)?;
        let wish = Wish::read(&query, transports.node().limits().poll_timeout)?;
        let client = client(&request.extensions);
        let token = token(&request.headers, &query, Subprotocol::default())?;
        let address = client.map(|client| client.ip());
        let identity = transports.node().identify(token.as_ref(), address).await?;
        poll(&transports, identity, client, wish).await
    };
    polled.await.unwrap_or_else(|refusal| transports.refuse(&refusal))
}

/// What a poll asks for.
struct Wish {
    subscriptions: Vec<Subscription>,
    timeout: Duration,
    limit: usize,
}

impl Wish {
    fn read(query: &Query, longest: Duration) -> Result<Self, Refusal> {
        query.expect_only(&[&SUBSCRIPTION_PARAMETERS[..], &["timeout", "limit"]].concat())?;
        let timeout = query.number("timeout")?.map_or(TIMEOUT, Duration::from_secs);
        let limit = match query.number("limit")? {
            None => LIMIT,
            Some(limit @ 1..=1_000) => limit as usize,
            Some(_) => {
                let message = format!("limit must be 1 to {MAX_LIMIT}");
                return Err(Refusal::new(Code::BadField, message));
            }
        };
        let subscriptions = query.subscriptions(query.one("since")?)?;
        Ok(Self { subscriptions, timeout: timeout.min(longest), limit })
    }
}

async fn poll(
    transports: &Transports,
    identity: Identity,
    client: Option<SocketAddr>,
    wish: Wish,
) -> Result<Response, Refusal> {
    let noting = Noting::new(transports.native(), Answers::Kept);
    let opening = Opening::new(Arc::clone(&noting) as _, Wire::Lines, identity).peer(client);
    let mut session = transports.node().open(opening)?;
    let mut progress = Progress::of(&wish.subscriptions);
    let snapshot = wish.subscriptions.iter().any(|one| one.snapshot);
    for subscription in wish.subscriptions {
        session.perform(Command::Subscribe(subscription)).await?;
    }
    let mut answer = Polled::default();
    let mut rows_due = false;
    for started in noting.take() {
        progress.reach(&started.topic, started.position);
        rows_due = snapshot && !started.resumed;
        answer.begin(&started);
    }
    // A part of a snapshot is worth nothing: there is no cursor to go on from inside it.
    let timeout = if rows_due { wish.timeout.max(TIMEOUT) } else { wish.timeout };
    let deadline = Instant::now() + timeout;
    let rows_missing = || rows_due && !noting.rows_are_complete();
    let ended = answer.wait(&mut session, &mut progress, wish.limit, deadline, rows_missing).await;
    session.close(ended.unwrap_or(Close::Normal));
    if rows_missing() {
        let message = "the rows of the table were not complete in time";
        return Err(Refusal::new(Code::Unavailable, message));
    }
    answer.into_response(&progress, ended)
}

/// What a poll is answered with.
#[derive(Default)]
struct Polled {
    /// JSON texts, joined by commas.
    events: String,
    /// Events among them, which the limit is about; rows are not counted.
    count: usize,
    gaps: Vec<serde_json::Value>,
    /// Some came that were over the limit.
    is_cut: bool,
}

impl Polled {
    fn begin(&mut self, started: &Started) {
        if let Some(reason) = started.gap {
            let topic = &started.topic;
            self.gaps.push(json!({topic.kind().word(): topic.name(), "reason": reason.word()}));
        }
    }

    /// Collects until there is something to say and no rows are missing, or the time is over; why
    /// the session ended, if it did.
    async fn wait(
        &mut self,
        session: &mut Session,
        progress: &mut Progress,
        limit: usize,
        deadline: Instant,
        rows_missing: impl Fn() -> bool,
    ) -> Option<Close> {
        loop {
            // Asked for first: all up to there is in what is taken then.
            let reached = session.reached();
            self.collect(session, progress, limit);
            if !self.is_cut {
                // Where nothing was for it, the next poll need not look again.
                reached.iter().for_each(|(topic, position)| progress.pass(topic, *position));
            }
            if !rows_missing() && (!self.events.is_empty() || !self.gaps.is_empty()) {
                // More of what was missed may be there already, up to the limit.
                match session.ready().now_or_never() {
                    Some(Ok(())) if self.count < limit => continue,
                    _ => return None,
                }
            }
            match tokio::time::timeout_at(deadline, session.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Some(why),
                Err(_elapsed) => return None,
            }
        }
    }

    fn collect(&mut self, session: &mut Session, progress: &mut Progress, limit: usize) {
        for outgoing in session.take() {
            match &outgoing.mark {
                // Rows of a table, the only answer that is told here.
                None => self.add(&outgoing.bytes),
                // What completes the rows belongs to them.
                Some(mark) if !progress.is_ahead(&mark.0, mark.1) => self.add(&outgoing.bytes),
                // What is over the limit comes with the next poll.
                Some(_) if self.count == limit => self.is_cut = true,
                Some(mark) => {
                    progress.reach(&mark.0, mark.1);
                    self.add(&outgoing.bytes);
                    self.count += 1;
                }
            }
        }
    }

    fn add(&mut self, line: &[u8]) {
        if !self.events.is_empty() {
            self.events.push(',');
        }
        let text = std::str::from_utf8(line).expect("dialects write UTF-8");
        self.events.push_str(text.trim_end());
    }

    fn into_response(self, progress: &Progress, ended: Option<Close>) -> Result<Response, Refusal> {
        let mut retry_after = None;
        match ended {
            None => {}
            // The cursor is good on any node, so this ends like one that waited in vain.
            Some(Close::Restart { after }) => retry_after = Some(after),
            Some(Close::TokenExpired) => {
                return Err(Refusal::new(Code::TokenExpired, Close::TokenExpired.meaning()));
            }
            Some(why) => return Err(Refusal::new(Code::Unavailable, why.meaning())),
        }
        let mut response = self.body(progress).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        Ok(response)
    }

    fn body(self, progress: &Progress) -> String {
        let (events, cursor) = (self.events, progress.cursor());
        let Some(first) = self.gaps.first() else {
            return format!(r#"{{"events":[{events}],"cursor":"{cursor}"}}"#);
        };
        let gap = json!({"reason": first["reason"], "topics": self.gaps});
        format!(r#"{{"events":[{events}],"cursor":"{cursor}","gap":{gap}}}"#)
    }
}
