//! What the reading task and those who add tables share: the tables, who waits, how it goes.
//!
//! Locks are held for moments and never across a wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tidewire_protocol::{GapReason, Topic};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::metrics::OutboxMetrics;
use crate::changes::SourceStatus;

/// A table that somebody listens to.
#[derive(Debug)]
struct Followed {
    /// Which table the topic stands for.
    oid: u32,
    /// A gap to be said before anything newer. The table is silent until it was said.
    owed: Option<GapReason>,
    /// A poll that began after the gap was said has ended.
    ready: bool,
    /// Its triggers are there.
    flows: bool,
    /// Until when it is followed although nobody listens; `None` while somebody does.
    lingers: Option<Instant>,
}

impl Followed {
    /// Somebody listens, and what happened before is unknown.
    fn fresh(oid: u32) -> Self {
        let owed = Some(GapReason::NotListening);
        Self { oid, owed, ready: false, flows: true, lingers: None }
    }
}

/// What the reading task and those who add tables share.
pub(super) struct Shared {
    tables: Mutex<HashMap<Topic, Followed>>,
    /// The newest ticket; each asks for a poll that begins later.
    asked: AtomicU64,
    /// The newest ticket that a finished poll answers.
    answered: watch::Sender<u64>,
    wake: Notify,
    health: Mutex<Health>,
    pub(super) metrics: OutboxMetrics,
}

/// How reading goes.
struct Health {
    connected: bool,
    since: SystemTime,
    last_error: Option<String>,
}

/// A gap that a table owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) topic: Topic,
    pub(super) oid: u32,
    /// Whether its changes flow once the gap was said.
    pub(super) flows: bool,
    pub(super) reason: GapReason,
}

/// A poll that begins: the tickets it answers, and the tables whose changes it is to bring.
pub(super) struct Round {
    pub(super) ticket: u64,
    pub(super) tables: Vec<(u32, Topic)>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let health = Health { connected: false, since: SystemTime::now(), last_error: None };
        Self {
            tables: Mutex::default(),
            asked: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            wake: Notify::new(),
            health: Mutex::new(health),
            metrics: OutboxMetrics::default(),
        }
    }

    /// Somebody listens; gives whether all changes of the table are being told.
    pub(super) fn want(&self, topic: &Topic) -> bool {
        let mut tables = self.tables.lock();
        let Some(table) = tables.get_mut(topic) else { return false };
        table.lingers = None;
        table.ready && table.flows && table.owed.is_none()
    }

    /// Follows a table from the next poll on.
    pub(super) fn follow(&self, topic: &Topic, oid: u32) {
        let mut tables = self.tables.lock();
        let followed = tables.entry(topic.clone()).or_insert_with(|| Followed::fresh(oid));
        followed.lingers = None;
        if followed.oid != oid || !followed.flows {
            *followed = Followed::fresh(oid);
        }
    }

    /// Goes on following a table that was told before this process began.
    pub(super) fn inherit(&self, topic: &Topic, oid: u32, until: Instant) {
        let mut tables = self.tables.lock();
        let lingering = Followed { lingers: Some(until), ..Followed::fresh(oid) };
        let followed = tables.entry(topic.clone()).or_insert(lingering);
        // Somebody may have been quicker to listen than we were to connect.
        if followed.oid == oid {
            followed.owed = None;
        }
    }

    /// Nobody listens to a table any more; it is followed for a while.
    pub(super) fn release(&self, topic: &Topic, until: Instant) {
        if let Some(table) = self.tables.lock().get_mut(topic) {
            table.lingers.get_or_insert(until);
        }
    }

    /// Does not follow tables any more that nobody came back to.
    pub(super) fn expire(&self, now: Instant) {
        self.tables.lock().retain(|_, table| table.lingers.is_none_or(|until| until > now));
    }

    /// Every table that is followed, silent ones too.
    pub(super) fn followed(&self) -> Vec<(u32, Topic)> {
        self.tables.lock().iter().map(|(topic, table)| (table.oid, topic.clone())).collect()
    }

    /// Whether a table's triggers are there. Where that changed, changes were or will be missed.
    pub(super) fn set_flows(&self, topic: &Topic, oid: u32, flows: bool) -> bool {
        let mut tables = self.tables.lock();
        match tables.get_mut(topic).filter(|table| table.oid == oid && table.flows != flows) {
            Some(table) => {
                table.flows = flows;
                table.owed = Some(GapReason::NotListening);
                true
            }
            None => false,
        }
    }

    /// Gaps to be said.
    pub(super) fn owed(&self) -> Vec<Owed> {
        let tables = self.tables.lock();
        let owed = tables.iter().filter_map(|(topic, table)| {
            let (oid, flows, reason) = (table.oid, table.flows, table.owed?);
            Some(Owed { topic: topic.clone(), oid, flows, reason })
        });
        owed.collect()
    }

    /// The gap was said.
    pub(super) fn paid(&self, topic: &Topic) {
        if let Some(table) = self.tables.lock().get_mut(topic) {
            table.owed = None;
        }
    }

    /// Something of the table was lost.
    pub(super) fn owe(&self, topic: &Topic, reason: GapReason) {
        if let Some(table) = self.tables.lock().get_mut(topic) {
            table.owed.get_or_insert(reason);
        }
    }

    /// Something of every table was lost.
    pub(super) fn owe_all(&self, reason: GapReason) {
        self.metrics.interruptions.inc();
        for table in self.tables.lock().values_mut() {
            table.owed.get_or_insert(reason);
        }
    }

    /// A poll begins.
    pub(super) fn begin_round(&self) -> Round {
        let ticket = self.asked.load(Ordering::SeqCst);
        let tables = self.tables.lock();
        let speaking = tables.iter().filter(|(_, table)| table.owed.is_none());
        Round { ticket, tables: speaking.map(|(topic, t)| (t.oid, topic.clone())).collect() }
    }

    /// Leaves out of a poll that begins what came to owe a gap meanwhile.
    pub(super) fn leave_out_owing(&self, round: &mut Round) {
        let tables = self.tables.lock();
        round.tables.retain(|(_, topic)| tables.get(topic).is_some_and(|t| t.owed.is_none()));
    }

    /// A poll ended, and what it brought was published.
    pub(super) fn end_round(&self, round: &Round) {
        let mut tables = self.tables.lock();
        for (oid, topic) in &round.tables {
            if let Some(table) = tables.get_mut(topic).filter(|table| table.oid == *oid) {
                table.ready = true;
            }
        }
        drop(tables);
        self.answered.send_if_modified(|answered| {
            let newer = *answered < round.ticket;
            *answered = round.ticket.max(*answered);
            newer
        });
    }

    /// Returns after a poll that began after this call, and what it brought was published.
    pub(super) async fn next_round(&self) {
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answered = self.answered.subscribe();
        self.wake.notify_one();
        // The sender lives as long as we do.
        let _ = answered.wait_for(|answered| *answered >= ticket).await;
    }

    /// Waits until somebody wants a poll. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wake.notified().await;
    }

    pub(super) fn connected(&self) {
        self.enter(true);
        self.health.lock().last_error = None;
        tracing::info!("reading row changes from the outbox");
    }

    pub(super) fn disconnected(&self) {
        self.enter(false);
    }

    fn enter(&self, connected: bool) {
        let mut health = self.health.lock();
        if health.connected != connected {
            health.connected = connected;
            health.since = SystemTime::now();
            self.metrics.connected.set(i64::from(connected));
        }
    }

    /// Keeps and logs an error; the same one again is not worth a line.
    pub(super) fn failed(&self, text: String) {
        let mut health = self.health.lock();
        if health.last_error.as_ref() == Some(&text) {
            tracing::debug!(error = text, "still not reading the outbox");
        } else {
            tracing::warn!(error = text, "not reading the outbox, trying again");
        }
        health.last_error = Some(text);
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.health.lock().last_error.clone()
    }

    pub(super) fn status(&self) -> SourceStatus {
        let health = self.health.lock();
        SourceStatus {
            name: "outbox",
            connected: health.connected,
            since: health.since,
            last_error: health.last_error.clone(),
            tables: self.tables.lock().values().filter(|table| table.lingers.is_none()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Topic {
        Topic::table("public.orders").unwrap()
    }

    #[test]
    fn a_table_is_silent_until_its_gap_was_said() {
        let shared = Shared::new();
        shared.follow(&orders(), 1);
        assert!(shared.begin_round().tables.is_empty());
        let reason = GapReason::NotListening;
        assert_eq!(shared.owed(), [Owed { topic: orders(), oid: 1, flows: true, reason }]);
        shared.paid(&orders());
        let round = shared.begin_round();
        assert_eq!(round.tables, [(1, orders())]);
        assert!(!shared.want(&orders()));
        shared.end_round(&round);
        assert!(shared.want(&orders()));
    }

    #[test]
    fn following_again_changes_nothing_unless_it_is_another_table() {
        let shared = Shared::new();
        shared.follow(&orders(), 1);
        shared.paid(&orders());
        shared.end_round(&shared.begin_round());
        shared.follow(&orders(), 1);
        assert!(shared.want(&orders()));
        shared.follow(&orders(), 2);
        assert_eq!(shared.owed().len(), 1);
    }

    #[test]
    fn a_table_is_followed_for_a_while_after_the_last_listener_and_before_the_first() {
        let (shared, now) = (Shared::new(), Instant::now());
        let while_ = |seconds| now + std::time::Duration::from_secs(seconds);
        shared.inherit(&orders(), 1, while_(2));
        assert_eq!(shared.begin_round().tables, [(1, orders())], "it flows at once");
        shared.expire(while_(1));
        shared.follow(&orders(), 1);
        shared.expire(while_(3));
        assert_eq!(shared.owed(), []);
        shared.release(&orders(), while_(4));
        shared.release(&orders(), while_(9));
        shared.expire(while_(4));
        assert_eq!(shared.followed(), []);
    }

    #[test]
    fn who_was_quicker_than_the_inheritance_is_told_no_gap_of_the_same_table() {
        let shared = Shared::new();
        for (oid, owed) in [(1, 0), (2, 1)] {
            shared.follow(&orders(), oid);
            shared.inherit(&orders(), 1, Instant::now());
            assert_eq!(shared.owed().len(), owed);
        }
    }

    #[test]
    fn triggers_that_go_and_come_are_gaps() {
        let shared = Shared::new();
        shared.follow(&orders(), 1);
        shared.paid(&orders());
        for flows in [false, true] {
            assert!(shared.set_flows(&orders(), 1, flows));
            assert!(!shared.set_flows(&orders(), 1, flows));
            assert_eq!(shared.owed().len(), 1, "{flows}");
            shared.paid(&orders());
        }
    }

    #[tokio::test]
    async fn a_round_answers_only_who_asked_before_it_began() {
        let shared = Shared::new();
        let early = shared.begin_round();
        let waiting = shared.next_round();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        shared.end_round(&early);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        shared.end_round(&shared.begin_round());
        waiting.await;
    }
}
