//! The task that listens: connects, says LISTEN and UNLISTEN, hands notifications to the
//! publisher, and begins again when the connection is lost.
//!
//! It decides nothing: what to say and what to publish is known by [`Channels`](super::channels).
//! While the publisher is slow the connection is not read, so the server keeps what is to come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tidewire::Publisher;
use tidewire::sparing::Sparing;
use tidewire_protocol::{Draft, GapReason, Payload, Topic};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::channels::{Batch, Fate, quote};
use super::link::{Arrived, Link, Notification};
use super::self_test;
use super::shared::Shared;
use crate::connect::{ConnectError, Pool, Target};

/// Gaps said at the same time, so that 10,000 of them after a reconnect do not wait for one
/// another's round trip to a shared history.
const GAPS_AT_ONCE: usize = 64;

/// The task and what it knows.
pub(super) struct Listener {
    pub(super) target: Target,
    pub(super) pool: Pool,
    pub(super) publisher: Publisher,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) ping_interval: Duration,
    pub(super) answer_timeout: Duration,
    /// What cannot be delivered; any role chooses how often.
    pub(super) complaints: Sparing,
}

impl Listener {
    /// Listens until told to stop.
    pub(super) async fn run(self) {
        let _end = End(&self.shared);
        let mut backoff = Backoff::default();
        let mut tested = false;
        while !self.stop.is_cancelled() {
            match self.connect(&mut tested).await {
                Some(Ok(link)) => {
                    let since = Instant::now();
                    self.listen(link).await;
                    backoff.was_open(since);
                }
                Some(Err(error)) => self.shared.failed(&error),
                None => break,
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = backoff.pause() => {}
            }
        }
    }

    /// A connection that can be listened to; `None` when told to stop.
    async fn connect(&self, tested: &mut bool) -> Option<Result<Link, ConnectError>> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            outcome = self.checked_link(tested) => Some(outcome),
        }
    }

    async fn checked_link(&self, tested: &mut bool) -> Result<Link, ConnectError> {
        let mut link = Link::open(&self.target, self.pool.clone(), self.answer_timeout).await?;
        self_test::refuse_standby(&mut link, &self.target).await?;
        if !*tested {
            self_test::run(&mut link, &self.pool, &self.target).await?;
            *tested = true;
        }
        Ok(link)
    }

    /// Listens on one connection until it is lost or the task is told to stop.
    async fn listen(&self, link: Link) {
        self.shared.connected();
        let mut listening = Listening::new(self, link);
        let ended = loop {
            if let Err(ended) = listening.step().await {
                break ended;
            }
        };
        match ended {
            Ended::Stopped => listening.link.close().await,
            Ended::Lost(error) => {
                self.shared.disconnected();
                self.shared.failed(&error);
            }
        }
    }

    /// Says the gaps that are owed, then lets new readers in. One that cannot be said stays owed, and its channel silent.
    async fn say_gaps(&self) {
        let owed = self.shared.owed();
        stream::iter(owed)
            .for_each_concurrent(GAPS_AT_ONCE, |(topic, reason)| self.say_gap(topic, reason))
            .await;
        self.shared.wake_attaches();
    }

    async fn say_gap(&self, topic: Topic, reason: GapReason) {
        match self.publisher.interrupt(&topic, reason).await {
            Ok(()) => self.shared.paid(&topic),
            Err(error) => {
                if let Some(unsaid) = self.complaints.due() {
                    tracing::warn!(%topic, %reason, error = &error as &dyn std::error::Error,
                        unsaid, "a gap could not be told, so the channel stays silent until it can");
                }
            }
        }
    }
}

/// However the task ends, nobody is to believe that it still listens.
struct End<'l>(&'l Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

/// Why a connection is no longer listened on.
enum Ended {
    Stopped,
    Lost(ConnectError),
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

/// Statements on their way: what they change; `None` for a question after a sign of life.
struct Flight(Option<Batch>);

/// One connection being listened on.
struct Listening<'l> {
    listener: &'l Listener,
    link: Link,
    flight: Option<Flight>,
    /// Notifications that came before the answer to their LISTEN. The server sends at most what
    /// is waiting when LISTEN commits, so they are few.
    held: Vec<Notification>,
    /// When anything last came from the server, or was asked of it.
    heard: Instant,
}

impl<'l> Listening<'l> {
    fn new(listener: &'l Listener, link: Link) -> Self {
        Self { listener, link, flight: None, held: Vec::new(), heard: Instant::now() }
    }

    async fn step(&mut self) -> Result<(), Ended> {
        // Said before waiting, so that a flood of notifications cannot keep new channels out.
        self.send_wishes().await?;
        let listener = self.listener;
        let patience = match self.flight {
            Some(_) => listener.answer_timeout,
            None => listener.ping_interval,
        };
        tokio::select! {
            biased;
            // 1. Shutdown ends the connection politely.
            () = listener.stop.cancelled() => Err(Ended::Stopped),
            // 2. The server answers, or notifications come.
            arrived = self.link.next() => match arrived? {
                Arrived::Answer(answer) => self.answered(answer).await,
                Arrived::Notifications(taken) => self.take(taken).await,
            },
            // 3. Somebody comes or goes.
            () = listener.shared.wishes_changed() => Ok(()),
            // 4. Silence.
            () = sleep_until(self.heard + patience) => self.silent().await,
        }
    }

    async fn send_wishes(&mut self) -> Result<(), Ended> {
        if self.flight.is_some() {
            return Ok(());
        }
        if let Some(batch) = self.listener.shared.next_batch() {
            let sql = self.sql(&batch).await?;
            self.send(&sql, Some(batch));
        }
        Ok(())
    }

    fn send(&mut self, sql: &[u8], batch: Option<Batch>) {
        self.link.send(sql);
        self.flight = Some(Flight(batch));
        self.heard = Instant::now();
    }

    /// The statements of a batch; several in one message are one transaction. A channel that cannot
    /// exist in this database counts as listened to: nothing is ever said on it.
    async fn sql(&self, batch: &Batch) -> Result<Vec<u8>, Ended> {
        let mut sql = Vec::new();
        for (verb, channel) in batch.statements() {
            if let Some(name) = self.link.encoded(channel).await? {
                sql.extend_from_slice(verb.as_bytes());
                sql.push(b' ');
                quote(&name, &mut sql);
                sql.push(b';');
            }
        }
        Ok(sql)
    }

    async fn answered(&mut self, answer: Result<(), ConnectError>) -> Result<(), Ended> {
        self.heard = Instant::now();
        // A statement that fails changes nothing on the server; starting over is always right.
        answer?;
        let Some(Flight(Some(batch))) = self.flight.take() else { return Ok(()) };
        self.listener.shared.batch_done(&batch);
        self.listener.say_gaps().await;
        let held = std::mem::take(&mut self.held);
        self.publish(held).await;
        Ok(())
    }

    async fn take(&mut self, taken: Vec<Notification>) -> Result<(), Ended> {
        self.heard = Instant::now();
        self.listener.shared.metrics.received.inc_by(taken.len() as u64);
        self.listener.say_gaps().await;
        self.publish(taken).await;
        Ok(())
    }

    /// Nothing came for long: asks, or gives up when that was an answer not coming.
    async fn silent(&mut self) -> Result<(), Ended> {
        if self.flight.is_some() {
            return Err(self.link.silence().into());
        }
        self.send(b"", None);
        // What the history refused before may go now.
        self.listener.say_gaps().await;
        Ok(())
    }

    async fn publish(&mut self, notifications: Vec<Notification>) {
        let drafts = self.drafts(notifications);
        if drafts.is_empty() {
            return;
        }
        let topics: Vec<Topic> = drafts.iter().map(|draft| draft.topic.clone()).collect();
        let outcomes = self.listener.publisher.publish(drafts).await;
        for (topic, outcome) in topics.iter().zip(outcomes) {
            if let Err(error) = outcome {
                if let Some(unsaid) = self.listener.complaints.due() {
                    tracing::warn!(%topic, error = &error as &dyn std::error::Error, unsaid,
                        "a notification could not be published");
                }
                self.listener.shared.owe(topic);
            }
        }
    }

    /// What of the notifications is to be published now; some are held for later.
    fn drafts(&mut self, notifications: Vec<Notification>) -> Vec<Draft> {
        let mut drafts = Vec::with_capacity(notifications.len());
        let channels = self.listener.shared.channels();
        for notification in notifications {
            match channels.fate(&notification.channel) {
                Fate::Publish(topic) => drafts.push(self.draft(topic, notification.payload)),
                Fate::Hold => self.held.push(notification),
                Fate::Drop => {
                    self.listener.shared.metrics.dropped.inc();
                }
            }
        }
        drafts
    }

    /// A payload with a character that has no Unicode form is a gap of its channel.
    fn draft(&self, topic: Topic, payload: Option<String>) -> Draft {
        match payload {
            Some(text) => Draft::message(topic, Payload::Text(text.into())),
            None => {
                self.listener.shared.metrics.unreadable.inc();
                if let Some(unsaid) = self.listener.complaints.due() {
                    tracing::warn!(%topic, unsaid, "a notification has a character without a \
                        Unicode form, so its channel has a gap");
                }
                Draft::gap(topic, GapReason::ConnectionLost)
            }
        }
    }
}
