//! What the reading task and those who add tables share: the tables, who waits, how it goes.
//!
//! Locks are held for moments and never across a wait.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tidewire_protocol::{GapReason, Topic};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::metrics::OutboxMetrics;
use crate::changes::SourceStatus;
use crate::naming::Naming;
use crate::steadiness::Steadiness;

/// A table that somebody listens to.
#[derive(Debug)]
struct Followed {
    /// Which table the topic stands for.
    oid: u32,
    /// How that is named at the place up to which the outbox was read.
    sight: Sight,
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
        Self { oid, sight: Sight::Unseen, owed, ready: false, flows: true, lingers: None }
    }

    /// Whether its table has the name of the topic.
    fn is_named(&self, topic: &Topic) -> bool {
        matches!(&self.sight, Sight::Named(naming) if naming.is_of(topic))
    }
}

/// What the last poll saw of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    /// No poll looked yet, so nothing can be told of it, not even its gap: rows that the next poll
    /// brings may have been written under another name.
    Unseen,
    /// There is none with this oid.
    Gone,
    Named(Naming),
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
    /// Whether it works, as last looked at.
    connected: bool,
    since: SystemTime,
    steadiness: Steadiness,
    last_error: Option<String>,
}

impl Health {
    fn look(&mut self, metrics: &OutboxMetrics) {
        let works = self.steadiness.is_steady();
        if self.connected != works {
            (self.connected, self.since) = (works, SystemTime::now());
        }
        if works {
            self.last_error = None;
        }
        metrics.connected.set(i64::from(works));
    }
}

/// A gap that a table owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) topic: Topic,
    /// The table of which this is the gap.
    pub(super) oid: u32,
    /// The table whose changes flow once the gap was said, if they do.
    pub(super) naming: Option<Naming>,
    pub(super) reason: GapReason,
}

/// A poll that begins: the tickets it answers, and the tables whose changes it is to bring.
pub(super) struct Round {
    pub(super) ticket: u64,
    pub(super) tables: Vec<(u32, Topic)>,
    /// The tables whose names it is to see.
    pub(super) followed: Vec<u32>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let (since, steadiness) = (SystemTime::now(), Steadiness::default());
        let health = Health { connected: false, since, steadiness, last_error: None };
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
        table.ready && table.flows && table.owed.is_none() && table.is_named(topic)
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

    /// A topic whose table has another name now follows this one from the next poll on.
    pub(super) fn follow_renamed(&self, topic: &Topic, oid: u32) {
        let mut tables = self.tables.lock();
        if let Some(table) = tables.get_mut(topic).filter(|table| table.oid != oid) {
            *table = Followed { lingers: table.lingers, ..Followed::fresh(oid) };
        }
        drop(tables);
        self.wake.notify_one();
    }

    /// Goes on following a table that was told before this process began.
    pub(super) fn inherit(&self, topic: &Topic, naming: &Naming, until: Instant) {
        let mut tables = self.tables.lock();
        let lingering = Followed { lingers: Some(until), ..Followed::fresh(naming.oid) };
        let followed = tables.entry(topic.clone()).or_insert(lingering);
        // Somebody may have been quicker to listen than we were to connect.
        if followed.oid == naming.oid {
            (followed.owed, followed.sight) = (None, Sight::Named(naming.clone()));
        }
    }

    /// A poll sees these names of the tables that it was asked for. Those that were delivered and
    /// have another name, or had one meanwhile, owe a gap; they are given.
    pub(super) fn observe(
        &self,
        followed: &[u32],
        namings: &HashMap<u32, Naming>,
    ) -> Vec<(Topic, u32)> {
        let asked: HashSet<u32> = followed.iter().copied().collect();
        let mut changed = Vec::new();
        for (topic, table) in self.tables.lock().iter_mut() {
            if !asked.contains(&table.oid) {
                continue;
            }
            let now = namings.get(&table.oid).cloned().map_or(Sight::Gone, Sight::Named);
            if table.sight == now {
                continue;
            }
            if std::mem::replace(&mut table.sight, now) != Sight::Unseen {
                table.owed.get_or_insert(GapReason::NotListening);
                changed.push((topic.clone(), table.oid));
            }
        }
        changed
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

    /// Those that have the name of their topic.
    pub(super) fn named(&self) -> Vec<(u32, Topic)> {
        let tables = self.tables.lock();
        let named = tables.iter().filter(|(topic, table)| table.is_named(topic));
        named.map(|(topic, table)| (table.oid, topic.clone())).collect()
    }

    /// Topics with listeners whose table has another name now, or is gone.
    pub(super) fn unnamed(&self) -> Vec<Topic> {
        let tables = self.tables.lock();
        let unnamed = tables.iter().filter(|(topic, table)| {
            let is_seen = table.sight != Sight::Unseen;
            is_seen && table.lingers.is_none() && !table.is_named(topic)
        });
        unnamed.map(|(topic, _)| topic.clone()).collect()
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

    /// Gaps to be said now.
    pub(super) fn owed(&self) -> Vec<Owed> {
        let tables = self.tables.lock();
        let owed = tables.iter().filter_map(|(topic, table)| {
            let (oid, reason, flows) = (table.oid, table.owed?, table.flows);
            let naming = match &table.sight {
                Sight::Unseen => return None,
                Sight::Named(naming) if flows && naming.is_of(topic) => Some(naming.clone()),
                Sight::Gone | Sight::Named(_) => None,
            };
            Some(Owed { topic: topic.clone(), oid, naming, reason })
        });
        owed.collect()
    }

    /// Tables that owe a gap, now or once a poll has seen their name.
    pub(super) fn owing(&self) -> HashSet<Topic> {
        let tables = self.tables.lock();
        let owing = tables.iter().filter(|(_, table)| table.owed.is_some());
        owing.map(|(topic, _)| topic.clone()).collect()
    }

    /// The gap was said. A topic that follows another table since owes that one's.
    pub(super) fn paid(&self, topic: &Topic, oid: u32) {
        if let Some(table) = self.tables.lock().get_mut(topic).filter(|table| table.oid == oid) {
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
        let speaking = tables.iter().filter(|(topic, t)| t.owed.is_none() && t.is_named(topic));
        let speaking = speaking.map(|(topic, table)| (table.oid, topic.clone())).collect();
        let followed: HashSet<u32> = tables.values().map(|table| table.oid).collect();
        Round { ticket, tables: speaking, followed: followed.into_iter().collect() }
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
        let mut health = self.health.lock();
        health.steadiness.opened();
        health.look(&self.metrics);
        if health.connected {
            tracing::info!("reading row changes from the outbox");
        }
    }

    /// Looks whether reading works.
    pub(super) fn look(&self) {
        self.health.lock().look(&self.metrics);
    }

    pub(super) fn disconnected(&self) {
        let mut health = self.health.lock();
        health.steadiness.closed();
        health.look(&self.metrics);
    }

    /// Keeps and logs an error; the same one again is not worth a line.
    pub(super) fn failed(&self, text: String) {
        let mut health = self.health.lock();
        match health.steadiness.is_news(&text) {
            true => tracing::warn!(error = text, "not reading the outbox, trying again"),
            false => tracing::debug!(error = text, "still not reading the outbox"),
        }
        health.last_error = Some(text);
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.health.lock().last_error.clone()
    }

    pub(super) fn status(&self) -> SourceStatus {
        let mut health = self.health.lock();
        health.look(&self.metrics);
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
mod tests;
