//! Reads of what is missing, out of the worker's way.
//!
//! A read that is done at once, as with a history in memory, costs no task. Any other goes on
//! beside the worker, whose other topics do not wait; what it finds is put into the worker's inbox.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidewire_protocol::{Event, GapReason, Position};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Relay;
use crate::error::{Error, Kind};
use crate::history::Page;
use crate::hub::Entry;

/// Events read from history at a time.
const PAGE: usize = 512;

/// Time for one read; a store that needs longer is as good as down, and is asked again a second
/// later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads of one worker under way at once: some more than a pool of connections to a database has.
/// Other topics wait in a queue, each once.
const AT_ONCE: usize = 32;

/// What the history has after a place.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// What follows.
    Events(Vec<Arc<Event>>),
    /// What follows is gone; how far it is gone, and why.
    Lost { up_to: Position, reason: GapReason },
}

/// What is to be read.
pub(super) struct Wanted {
    pub(super) entry: Arc<Entry>,
    pub(super) after: Position,
    /// Most likely there is nothing: the topic is only looked at.
    pub(super) look: bool,
}

/// Reads of one worker; they end when this is dropped.
#[derive(Default)]
pub(super) struct Readings {
    tasks: JoinSet<()>,
    queue: VecDeque<Wanted>,
}

impl Readings {
    /// Reads; what is not found at once comes into the worker's inbox.
    pub(super) async fn begin(
        &mut self,
        relay: &Arc<Relay>,
        wanted: Wanted,
    ) -> Option<Result<Found, Error>> {
        if self.tasks.len() >= AT_ONCE {
            self.queue.push_back(wanted);
            return None;
        }
        let mut reading = relay.reading(&wanted);
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(found) => Some(found),
            Poll::Pending => {
                self.spawn(relay, wanted.entry, reading);
                None
            }
        }
    }

    /// Waits for the end of one, and begins the next; never ends while none is under way. Cancel
    /// safe.
    pub(super) async fn proceed(&mut self, relay: &Arc<Relay>) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
        if let Some(wanted) = self.queue.pop_front() {
            let reading = relay.reading(&wanted);
            self.spawn(relay, wanted.entry, reading);
        }
    }

    fn spawn(&mut self, relay: &Arc<Relay>, entry: Arc<Entry>, reading: Reading) {
        let post = Post { relay: Arc::clone(relay), entry, found: None };
        self.tasks.spawn(post.when_done(reading));
    }
}

type Reading = Pin<Box<dyn Future<Output = Result<Found, Error>> + Send>>;

/// Puts what was found into the worker's inbox, whatever becomes of the reading: its topic waits.
struct Post {
    relay: Arc<Relay>,
    entry: Arc<Entry>,
    found: Option<Result<Found, Error>>,
}

impl Post {
    async fn when_done(mut self, reading: Reading) {
        self.found = Some(reading.await);
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let broken = || Err(Error::new(Kind::History, "a read of the history broke off"));
        let found = self.found.take().unwrap_or_else(broken);
        self.relay.found(Arc::clone(&self.entry), found);
    }
}

impl Relay {
    fn reading(self: &Arc<Self>, wanted: &Wanted) -> Reading {
        let (relay, topic) = (Arc::clone(self), wanted.entry.topic.clone());
        let (after, look) = (wanted.after, wanted.look);
        Box::pin(async move {
            let reading = async {
                if look && relay.history.head(&topic).await? == after {
                    return Ok(Found::Nothing);
                }
                match relay.history.read(&topic, after, PAGE).await? {
                    Page::Events(events) if events.is_empty() => Ok(Found::Nothing),
                    Page::Events(events) => Ok(Found::Events(events)),
                    // A history that went back has nothing newer than what listeners have.
                    Page::Lost { head, reason: reason @ GapReason::PositionUnknown } => {
                        Ok(Found::Lost { up_to: head, reason })
                    }
                    // Listeners go on as early as the history allows.
                    Page::Lost { reason, .. } => {
                        let up_to = relay.history.earliest(&topic).await?;
                        Ok(Found::Lost { up_to, reason })
                    }
                }
            };
            timeout(PATIENCE, reading).await.unwrap_or_else(|_| Err(slow()))
        })
    }
}

fn slow() -> Error {
    Error::new(Kind::History, format!("a read took longer than {} s", PATIENCE.as_secs()))
}
