//! Pulling from the history until a subscription can go live.
//!
//! What waits for a store is a [`Reading`], which touches nothing of the session and stays where
//! it is while the session attends to other things; what it found is then taken in at once. So a
//! slow store holds back no live event, and nothing is lost when waiting is given up.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::change::Row;
use tidewire_protocol::presence::Member;
use tidewire_protocol::{Answer, Body, Event, GapReason, Position, Topic, TopicKind};
use tokio::time::{sleep, timeout};
use tokio_util::sync::ReusableBoxFuture;

use super::{Phase, Session};
use crate::history::Page;
use crate::hub::wanted;
use crate::mailbox::SubscriptionKey;
use crate::node::Inner;
use crate::relay::gap_event;
use crate::upstream::TableRows;

/// Events read at a time: a page of small events fits the default mailbox many times, and one of
/// the largest is handed over in parts.
pub(super) const PAGE: usize = 64;

/// Rows told in one frame at most, so that a client can show the first ones early.
const PAGE_ROWS: usize = 500;

/// Pause after a store that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// Time for one try to read, pauses included.
///
/// A store that needs longer is as good as down, and the session's other subscriptions wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause where the relay has not come to where the history is: it is told to look, which takes
/// it one read.
const RELAY_LAG: Duration = Duration::from_millis(20);

/// Something on its way for one subscription.
pub(super) struct Reading {
    key: SubscriptionKey,
    after: Position,
    work: ReusableBoxFuture<'static, Found>,
}

/// What the history had.
pub(super) enum Found {
    Events(Vec<Arc<Event>>),
    /// The place is lost.
    Lost {
        head: Position,
        reason: GapReason,
    },
    /// Changes of presence were lost, so this is everyone who is there.
    Members {
        head: Position,
        members: Vec<Member>,
    },
    /// Nothing yet; the pause before the next try is over.
    Nothing,
}

/// Rows of a table on their way to the client, and what is known of its changes since.
pub(super) struct Rows {
    pub(super) found: TableRows,
    /// Rows told already.
    pub(super) told: usize,
    /// All rows were told.
    pub(super) all_told: bool,
    /// The client was told that they are complete.
    pub(super) is_complete: bool,
    /// Where the topic was when the rows were asked for.
    pub(super) before: Position,
    /// The place from which no change is in the rows.
    pub(super) head: Position,
}

impl Rows {
    /// Whether what follows after this place cannot be in the rows.
    fn is_passed_at(&self, after: Position) -> bool {
        after.epoch != self.head.epoch || after.seq >= self.head.seq
    }

    /// Whether they contain what the event tells.
    pub(super) fn have(&self, event: &Event) -> bool {
        match &event.body {
            Body::Change(change) => {
                event.position.seq <= self.head.seq
                    && self.found.seen.contains(change.transaction.id)
            }
            // What was missed before the rows were read is in them.
            _ => event.position.seq <= self.before.seq,
        }
    }

    /// Whether these events go up to the head, and none of them is left to tell.
    pub(super) fn have_all_of(&self, events: &[Arc<Event>]) -> bool {
        let events = self.up_to_head(events);
        let ends = events.last().is_some_and(|event| event.position == self.head);
        ends && events.iter().all(|event| self.have(event))
    }

    /// Of events that follow, those up to the head.
    fn up_to_head<'e>(&self, events: &'e [Arc<Event>]) -> &'e [Arc<Event>] {
        let head = self.head;
        let belongs = |event: &&Arc<Event>| {
            event.position.epoch == head.epoch && event.position.seq <= head.seq
        };
        &events[..events.iter().take_while(belongs).count()]
    }
}

impl Reading {
    /// Waits for what was asked for. Cancel safe.
    pub(super) async fn found(&mut self) -> Found {
        poll_fn(|context| self.work.poll(context)).await
    }
}

impl Session {
    /// Does one step for one subscription that is behind, if there is one and there is room;
    /// `false` when there is nothing to do but wait.
    pub(super) fn catch_up(&mut self) -> bool {
        if self.reading.is_some() || !self.has_room() {
            return false;
        }
        let Some((index, after)) = self.next_behind() else { return false };
        if self.subscriptions[index].rows().is_some_and(|rows| !rows.all_told) {
            self.tell_rows(index, after);
        } else if !self.try_to_go_live(index, after) {
            self.begin_reading(index, after);
        }
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.mailbox.has_room(self.node.limits.load().mailbox_bytes)
    }

    /// In turn, so that one that cannot be read does not hold up the others.
    fn next_behind(&self) -> Option<(usize, Position)> {
        if !self.subscriptions.is_any_behind() {
            return None;
        }
        let count = self.subscriptions.len();
        (0..count).map(|offset| (self.turn + offset) % count).find_map(|index| {
            match self.subscriptions[index].phase() {
                Phase::CatchingUp { after } => Some((index, after)),
                Phase::Live { .. } => None,
            }
        })
    }

    pub(super) fn try_to_go_live(&mut self, index: usize, after: Position) -> bool {
        let waits = |rows: &Rows| !rows.all_told || !rows.is_passed_at(after);
        if self.subscriptions[index].rows().is_some_and(waits) {
            // The rows come first; and changes up to the head may be in them, which only reading
            // sorts out.
            return false;
        }
        self.complete_rows(index);
        if let Some(particulars) = &mut self.subscriptions[index].particulars {
            particulars.rows = None;
        }
        let held = &self.subscriptions[index];
        let (form, member) = (self.form_of(held), self.member(held));
        let lane = held.entry().lanes.go_live(member, &form, after);
        if let Some(lane) = lane {
            self.subscriptions.set_phase(index, Phase::Live { lane });
            self.watch(index);
        }
        lane.is_some()
    }

    fn begin_reading(&mut self, index: usize, after: Position) {
        let held = &self.subscriptions[index];
        let (key, work) = (held.key, read(Arc::clone(&self.node), held.topic(), after));
        let work = ReusableBoxFuture::new(work);
        self.turn = index + 1;
        self.reading = Some(Box::new(Reading { key, after, work }));
    }

    /// Hands over what was found, if its subscription is still where it was asked for.
    pub(super) fn take_in(&mut self, found: Found) {
        let Some(reading) = self.reading.take() else { return };
        let index = self.subscriptions.iter().position(|held| {
            held.key == reading.key && held.phase() == Phase::CatchingUp { after: reading.after }
        });
        let Some(index) = index else { return };
        match found {
            Found::Events(events) => self.hand_over(index, &events),
            Found::Lost { head, reason } => self.lose_place(index, head, reason),
            Found::Members { head, members } => self.tell_members_anew(index, head, members),
            Found::Nothing => {}
        }
    }

    /// Hands events to this session alone, as many as there is room for, and notes how far it
    /// came.
    pub(super) fn hand_over(&mut self, index: usize, events: &[Arc<Event>]) {
        let events = self.before_completion(index, events);
        let room = self.mailbox.room(self.node.limits.load().mailbox_bytes);
        let events = fitting(events, room / 2);
        let held = &self.subscriptions[index];
        let Some(last) = events.last() else { return };
        let mine = events
            .iter()
            .filter(|event| event.audience.admits(self.id) && !held.has_in_rows(event));
        let mine = match wanted(held.wants().map(|wants| &**wants), mine) {
            Ok(mine) => mine,
            Err(why) => return self.end_unfit(index, events, why),
        };
        let told = mine.last().map(|(event, _)| event.position);
        let count = mine.len() as u64;
        self.node.metrics.gaps_in(mine.iter().map(|(event, _)| *event));
        let mut form = self.form_of(held);
        // What is replayed belongs to the snapshot, which has no place in its middle.
        form.composite |= held.rows().is_some();
        let encoded = form.encode(mine.into_iter());
        // Always taken: there was room for half a mailbox.
        let _ = encoded.offer_to(|outgoing| self.mailbox.offer(outgoing, usize::MAX));
        self.node.metrics.deliveries.inc_by(count);
        self.subscriptions.set_phase(index, Phase::CatchingUp { after: last.position });
        self.tell_place(index, events, told);
    }

    /// What follows, but only up to the head while rows are told: there they are complete, and a
    /// client that has been told so can go on from the place it was told.
    fn before_completion<'e>(
        &mut self,
        index: usize,
        events: &'e [Arc<Event>],
    ) -> &'e [Arc<Event>] {
        let Some(rows) = self.subscriptions[index].rows() else { return events };
        let part = rows.up_to_head(events);
        if part.is_empty() && !events.is_empty() {
            self.complete_rows(index);
            return events;
        }
        part
    }

    /// Tells some of the rows that come before the changes.
    fn tell_rows(&mut self, index: usize, after: Position) {
        let page = self.mailbox.room(self.node.limits.load().mailbox_bytes) / 4;
        let held = &mut self.subscriptions[index];
        let particulars = held.particulars.as_mut();
        let Some(rows) = particulars.and_then(|held| held.rows.as_mut()) else { return };
        let rest = &rows.found.rows[rows.told..];
        let mut bytes = 0;
        let fits = rest.iter().take_while(|row| {
            bytes += row.bytes();
            bytes <= page
        });
        // One row is told however large it is.
        let count = fits.count().clamp(1, PAGE_ROWS).min(rest.len());
        let some = rest[..count].to_vec();
        rows.told += count;
        rows.all_told = rows.told == rows.found.rows.len();
        let last = rows.all_told && rows.is_passed_at(after);
        rows.is_complete = last;
        // None are said too: what follows belongs to them.
        self.say_rows(index, some, last);
    }

    /// Says that the rows are complete, with what was told since, if that was not said.
    fn complete_rows(&mut self, index: usize) {
        let particulars = self.subscriptions[index].particulars.as_mut();
        let Some(rows) = particulars.and_then(|held| held.rows.as_mut()) else { return };
        if !std::mem::replace(&mut rows.is_complete, true) {
            self.say_rows(index, Vec::new(), true);
        }
    }

    fn say_rows(&mut self, index: usize, rows: Vec<Row>, last: bool) {
        let held = &self.subscriptions[index];
        let Some(told) = held.rows() else { return };
        let relation = Arc::clone(&told.found.relation);
        let columns = held.wants().and_then(|wants| wants.columns.clone());
        let (topic, tag) = (held.topic(), held.tag.clone());
        self.say(&Answer::Rows { topic, relation, rows, columns, last, tag });
    }

    /// What this subscription should have next is gone: says so, and goes on from the head.
    fn lose_place(&mut self, index: usize, head: Position, reason: GapReason) {
        let gap = Arc::new(gap_event(&self.subscriptions[index].topic(), head, reason));
        self.hand_over(index, &[gap]);
    }

    /// A listener that lost changes of presence is given the whole list.
    fn tell_members_anew(&mut self, index: usize, head: Position, members: Vec<Member>) {
        let topic = self.subscriptions[index].topic().subject();
        let tag = self.subscriptions[index].tag.clone();
        self.say(&Answer::Members { topic, members, tag });
        self.subscriptions.set_phase(index, Phase::CatchingUp { after: head });
    }
}

/// The first events of about so many bytes; at least one.
fn fitting(events: &[Arc<Event>], bytes: usize) -> &[Arc<Event>] {
    let mut sum = 0;
    let fits = events.iter().take_while(|event| {
        let before = sum;
        sum += event.content_bytes();
        before == 0 || sum <= bytes
    });
    &events[..fits.count()]
}

/// One try, for no longer than another subscription should wait for its turn.
async fn read(node: Arc<Inner>, topic: Topic, after: Position) -> Found {
    let found = timeout(PATIENCE, read_patiently(Arc::clone(&node), topic.clone(), after)).await;
    found.unwrap_or_else(|_| {
        tracing::warn!(%topic, "catching up takes too long");
        node.metrics.failures.inc();
        Found::Nothing
    })
}

async fn read_patiently(node: Arc<Inner>, topic: Topic, after: Position) -> Found {
    let (head, reason) = match node.history.read(&topic, after, PAGE).await {
        Ok(Page::Events(events)) if events.is_empty() => {
            node.relay.check(&topic);
            sleep(RELAY_LAG).await;
            return Found::Nothing;
        }
        Ok(Page::Events(events)) => return Found::Events(events),
        Ok(Page::Lost { head, reason }) => (head, reason),
        Err(error) => {
            tracing::warn!(%topic, error = &error as &dyn std::error::Error, "catching up");
            return fail(&node).await;
        }
    };
    if topic.kind() != TopicKind::Presence {
        return Found::Lost { head, reason };
    }
    match node.presence.members(&topic.subject()).await {
        Ok(members) => Found::Members { head, members },
        Err(_) => fail(&node).await,
    }
}

async fn fail(node: &Inner) -> Found {
    node.metrics.failures.inc();
    sleep(RETRY).await;
    Found::Nothing
}
