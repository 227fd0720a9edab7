//! What a subscription needs before it can be answered: its topic attached at the source, a place
//! to begin at, the rows of a table.
//!
//! All of it may take long, and none of it touches the session: a [`Pending`] wish waits beside
//! the session's other requests, so that a database that is down holds up nothing else.
//!
//! [`Pending`]: super::waiting::Pending

use std::sync::Arc;

use tidewire_protocol::presence::Member;
use tidewire_protocol::{
    Body, Code, Event, Outcome, Position, Refusal, Since, Subscription, Topic, TopicKind,
};

use super::catch_up::{PAGE, Rows};
use super::subscribed::Listening;
use crate::budget::Principal;
use crate::history::Page;
use crate::hub::Entry;
use crate::node::Inner;
use crate::publisher::unavailable;
use crate::upstream::{Prepared, TableRows};

/// Everything that a wish needs to be carried out at once.
pub(super) struct Beginning {
    pub(super) listening: Listening,
    pub(super) wants: Option<Arc<Prepared>>,
    /// From where; `None` for where the topic is when the subscription goes live.
    pub(super) start: Option<Start>,
    pub(super) rows: Option<Rows>,
    pub(super) presence: Option<PresenceStart>,
}

/// How often *earliest* is asked for again when the history was trimmed in between.
const EARLIEST_TRIES: usize = 3;

/// How often rows are read anew when the history does not reach back far enough for them.
const SNAPSHOT_TRIES: usize = 3;

/// Where the presence of a topic begins for a listener.
pub(super) struct PresenceStart {
    pub(super) listening: Listening,
    pub(super) after: Position,
    pub(super) members: Vec<Member>,
}

/// What a subscription begins with.
pub(super) struct Start {
    pub(super) position: Position,
    pub(super) outcome: Outcome,
    /// What was read already.
    pub(super) events: Vec<Arc<Event>>,
}

impl Inner {
    pub(super) async fn beginning(
        self: &Arc<Self>,
        wish: &Subscription,
        principal: &Principal,
    ) -> Result<Beginning, Refusal> {
        let listening = self.listen(&wish.topic, principal).await?;
        let wants = self.prepare(wish, principal).await?;
        let mut start = self.start_of(wish).await?;
        let mut rows = None;
        if wish.snapshot && !is_resumed(start.as_ref()) {
            let _turn = self.snapshot_turn(principal, wish).await?;
            let (mut with_rows, found) = self.start_with_rows(wish).await?;
            // What was lost is named, although the rows make up for it.
            with_rows.outcome = start.map_or(Outcome::Fresh, |start| start.outcome);
            (start, rows) = (Some(with_rows), Some(found));
        }
        let presence = self.presence_start(wish, principal).await?;
        Ok(Beginning { listening, wants, start, rows, presence })
    }

    /// What is wanted of a table, made ready; `None` for everything.
    async fn prepare(
        &self,
        wish: &Subscription,
        principal: &Principal,
    ) -> Result<Option<Arc<Prepared>>, Refusal> {
        if wish.interest.is_everything() {
            return Ok(None);
        }
        let upstream = self.publisher.upstream(&wish.topic)?;
        let prepared = upstream.prepare(&wish.topic, &wish.interest).await?;
        Ok(Some(Arc::new(self.counted(prepared, principal)?)))
    }

    async fn head(&self, topic: &Topic) -> Result<Position, Refusal> {
        let head = self.history.head(topic).await;
        head.map_err(|error| unavailable(&error))
    }

    /// The rows of a table, and the place from which its changes are read: as early as the history
    /// allows, because a change may be said before a query sees it.
    ///
    /// # Errors
    /// `Unavailable` when the history is too short for the changes that the query did not see.
    async fn start_with_rows(&self, wish: &Subscription) -> Result<(Start, Rows), Refusal> {
        let upstream = self.publisher.upstream(&wish.topic)?;
        for _ in 0..SNAPSHOT_TRIES {
            let before = self.head(&wish.topic).await?;
            let found = upstream.snapshot(&wish.topic, &wish.interest).await?;
            let head = self.head(&wish.topic).await?;
            let start = self.start_at_earliest(&wish.topic).await;
            let mut start = start.map_err(|error| unavailable(&error))?;
            if covers(&start, &found) {
                let (all_told, is_complete) = (false, false);
                let rows = Rows { found, told: 0, all_told, is_complete, before, head };
                let events = std::mem::take(&mut start.events);
                if rows.have_all_of(&events) {
                    start.position = head;
                }
                start.outcome = Outcome::Fresh;
                return Ok((start, rows));
            }
        }
        let message = "the table changes faster than its history reaches back; keep more of it";
        Err(Refusal::new(Code::Unavailable, message))
    }

    /// One more listener of the topic: attached at its source, followed and placed.
    async fn listen(
        self: &Arc<Self>,
        topic: &Topic,
        principal: &Principal,
    ) -> Result<Listening, Refusal> {
        let share = match topic.kind() {
            TopicKind::Notify => Some(self.channel(principal)?),
            _ => None,
        };
        let listening = Listening::new(self, topic, share);
        if matches!(topic.kind(), TopicKind::Notify | TopicKind::Table) {
            // Asked each time: while the source is down, nobody is told that events will come.
            self.publisher.upstream(topic)?.attach(topic).await?;
        }
        let started = listening.entry.started.get_or_try_init(|| self.place(&listening.entry));
        started.await.map_err(|error| unavailable(&error))?;
        Ok(listening)
    }

    async fn place(&self, entry: &Entry) -> Result<(), crate::Error> {
        self.broker.follow(&entry.topic).await?;
        let head = self.history.head(&entry.topic).await?;
        self.relay.place(entry, head);
        Ok(())
    }

    /// From where the subscription begins; `None` for where the topic is when it goes live.
    async fn start_of(&self, wish: &Subscription) -> Result<Option<Start>, Refusal> {
        let start = match wish.since {
            Since::Now => return Ok(None),
            Since::Earliest => self.start_at_earliest(&wish.topic).await,
            Since::Position(position) => {
                self.start_at(&wish.topic, position, Outcome::Resumed).await
            }
        };
        let start = start.map_err(|error| unavailable(&error))?;
        if let Outcome::Gap(reason) = start.outcome {
            self.metrics.gap(reason);
        }
        Ok(Some(start))
    }

    /// What was the earliest may be trimmed before it is read, so it is asked for again.
    async fn start_at_earliest(&self, topic: &Topic) -> Result<Start, crate::Error> {
        let mut tries = EARLIEST_TRIES;
        loop {
            tries -= 1;
            let earliest = self.history.earliest(topic).await?;
            let start = self.start_at(topic, earliest, Outcome::Fresh).await?;
            if start.outcome == Outcome::Fresh || tries == 0 {
                return Ok(start);
            }
        }
    }

    async fn start_at(
        &self,
        topic: &Topic,
        after: Position,
        outcome: Outcome,
    ) -> Result<Start, crate::Error> {
        Ok(match self.history.read(topic, after, PAGE).await? {
            Page::Events(events) => Start { position: after, outcome, events },
            Page::Lost { head, reason } => {
                Start { position: head, outcome: Outcome::Gap(reason), events: Vec::new() }
            }
        })
    }

    async fn presence_start(
        self: &Arc<Self>,
        wish: &Subscription,
        principal: &Principal,
    ) -> Result<Option<PresenceStart>, Refusal> {
        if !wish.presence {
            return Ok(None);
        }
        let listening = self.listen(&wish.topic.presence(), principal).await?;
        let head = self.history.head(&wish.topic.presence()).await;
        let after = head.map_err(|error| unavailable(&error))?;
        // The list is read after the place: what is told twice does no harm, see `PresenceDiff`.
        let members = self.presence.members(&wish.topic).await?;
        Ok(Some(PresenceStart { listening, after, members }))
    }
}

/// Whether everything after the given place follows, so that no rows are needed.
fn is_resumed(start: Option<&Start>) -> bool {
    start.is_some_and(|start| start.outcome == Outcome::Resumed)
}

/// Whether every change that is not in the rows is in the history from `start` on.
///
/// Changes come in the order of their commits. When the oldest one kept is in the rows, all that
/// were let go of committed before it; when nothing was let go of, nothing can be missing.
fn covers(start: &Start, found: &TableRows) -> bool {
    let oldest = start.events.iter().find_map(|event| match &event.body {
        Body::Change(change) => Some(change.transaction.id),
        _ => None,
    });
    start.outcome == Outcome::Fresh
        && (start.position.seq == 0 || oldest.is_none_or(|id| found.seen.contains(id)))
}
