//! Which tables are listened to and whether their changes flow; pure.
//!
//! A table goes through three states: it is *wanted*, its membership of the publication is being
//! seen to, and it *flows*. It stops to flow when changes may have been missed, and then owes its
//! listeners a gap: the gap is said first, then changes flow again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidewire_protocol::{GapReason, Topic};
use tokio::time::Instant;

use super::assembly::Flow;

/// One run of a stream without a gap; changes that come in another one have a gap before them.
pub(super) type Run = u64;

/// A table.
#[derive(Debug)]
struct Entry {
    /// Until when it is kept although nobody listens; `None` while somebody does.
    lingers: Option<Instant>,
    flow: Flow,
    /// What is to be said before its changes flow.
    owed: Option<GapReason>,
    /// Whether it is in the publication, as far as is known.
    member: bool,
    /// Whether its changes ever flowed, so that somebody may wait for them.
    flowed: bool,
    /// One at a time sees to its membership.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    entries: HashMap<Topic, Entry>,
    /// Flows of every table there ever was, since the assembly may still hold one.
    flows: HashMap<Topic, Flow>,
    /// The run of the stream, while there is one.
    run: Option<Run>,
    runs: Run,
}

/// What is to be done so that a table flows.
#[derive(Debug)]
pub(super) enum Want {
    /// Nothing: it does.
    Flowing,
    /// Its membership must be seen to, by whoever holds the gate.
    Admit(Arc<tokio::sync::Mutex<()>>),
}

impl Tables {
    /// Somebody listens.
    pub(super) fn want(&mut self, topic: &Topic) -> Want {
        let flow = self.flow(topic);
        let run = self.run;
        let entry = self.entries.entry(topic.clone()).or_insert_with(|| Entry {
            lingers: None,
            flow,
            owed: Some(GapReason::NotListening),
            member: false,
            flowed: false,
            gate: Arc::default(),
        });
        entry.lingers = None;
        match entry.flow.is_on() && run.is_some() {
            true => Want::Flowing,
            false => Want::Admit(Arc::clone(&entry.gate)),
        }
    }

    /// Nobody listens any more; the table is kept for a while.
    pub(super) fn release(&mut self, topic: &Topic, until: Instant) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.lingers.get_or_insert(until);
        }
    }

    /// A want that came to nothing: forgets the table if nobody else waits for it.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.entries.retain(|t, entry| t != topic || entry.member || entry.flowed);
    }

    /// The switch of a table's changes.
    pub(super) fn flow(&mut self, topic: &Topic) -> Flow {
        self.flows.entry(topic.clone()).or_default().clone()
    }

    /// Tables that somebody listens to.
    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|entry| entry.lingers.is_none()).count()
    }

    /// The run of the stream, while there is one.
    pub(super) fn run(&self) -> Option<Run> {
        self.run
    }

    /// The stream runs. When it did not go on where it was, every table owes a gap; those that are
    /// members can be told it now, the others have to be admitted again.
    pub(super) fn connected(&mut self, resumed: bool, members: &HashSet<Topic>) {
        if !resumed {
            self.stop_all(GapReason::ConnectionLost);
            // What only lingers is not worth a gap; who comes back is told that nobody listened.
            self.entries.retain(|_, entry| entry.lingers.is_none());
        }
        for (topic, entry) in &mut self.entries {
            entry.member = members.contains(topic);
        }
        self.runs += 1;
        self.run = Some(self.runs);
    }

    /// Takes over tables that were published before this process began; they flow from the start.
    pub(super) fn inherit(&mut self, members: &HashSet<Topic>, until: Instant) {
        for topic in members {
            let flow = self.flow(topic);
            flow.turn(true);
            let entry = self.entries.entry(topic.clone()).or_insert_with(|| Entry {
                lingers: Some(until),
                flow,
                owed: None,
                member: true,
                flowed: true,
                gate: Arc::default(),
            });
            // Somebody may have been quicker to listen than we were to connect.
            (entry.owed, entry.member, entry.flowed) = (None, true, true);
        }
    }

    /// Takes over tables that were told before this process began, after which something may be
    /// missing: they owe a gap, although nobody listens.
    pub(super) fn inherit_debts(&mut self, members: &HashSet<Topic>, until: Instant) {
        for topic in members {
            let flow = self.flow(topic);
            self.entries.entry(topic.clone()).or_insert_with(|| Entry {
                lingers: Some(until),
                flow,
                owed: Some(GapReason::ConnectionLost),
                member: true,
                flowed: true,
                gate: Arc::default(),
            });
        }
    }

    /// The stream ended. Unless it may go on where it was, what flowed owes a gap.
    pub(super) fn disconnected(&mut self, may_resume: bool) {
        self.run = None;
        if !may_resume {
            self.stop_all(GapReason::ConnectionLost);
        }
    }

    fn stop_all(&mut self, reason: GapReason) {
        for entry in self.entries.values_mut() {
            if entry.flow.is_on() {
                entry.flow.turn(false);
                entry.owed = Some(reason);
            }
        }
    }

    /// Something of the table could not be published: it owes a gap.
    pub(super) fn owe(&mut self, topic: &Topic, reason: GapReason) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.flow.turn(false);
            entry.owed = Some(reason);
        }
    }

    /// The table is in the publication.
    pub(super) fn admitted(&mut self, topic: &Topic) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.member = true;
        }
    }

    /// What has to be said before the table flows, and the run in which it will; `None` when it is
    /// no member or there is no stream.
    pub(super) fn debt(&self, topic: &Topic) -> Option<(Run, Option<GapReason>)> {
        let entry = self.entries.get(topic).filter(|entry| entry.member)?;
        Some((self.run?, entry.owed))
    }

    /// Members that owe a gap, while there is a stream to flow.
    pub(super) fn debtors(&self) -> Vec<Topic> {
        if self.run.is_none() {
            return Vec::new();
        }
        let owing = |entry: &Entry| entry.member && !entry.flow.is_on();
        self.entries.iter().filter(|(_, e)| owing(e)).map(|(topic, _)| topic.clone()).collect()
    }

    /// The gap was said: changes flow, unless the stream was lost meanwhile.
    pub(super) fn paid(&mut self, topic: &Topic, run: Run) -> bool {
        let now = self.run;
        let Some(entry) = self.entries.get_mut(topic).filter(|_| now == Some(run)) else {
            return false;
        };
        entry.owed = None;
        entry.flowed = true;
        entry.flow.turn(true);
        true
    }

    /// Tables that flowed once and are no members now.
    pub(super) fn strangers(&self) -> Vec<Topic> {
        let is_stranger = |entry: &Entry| {
            entry.flowed
                && !entry.member
                && entry.lingers.is_none()
                && entry.gate.try_lock().is_ok()
        };
        self.entries.iter().filter(|(_, e)| is_stranger(e)).map(|(t, _)| t.clone()).collect()
    }

    /// Tables that are published as far as is known.
    pub(super) fn members(&self) -> HashSet<Topic> {
        let members = self.entries.iter().filter(|(_, entry)| entry.member);
        members.map(|(topic, _)| topic.clone()).collect()
    }

    /// What the publication really holds. A table that flowed and is not in it owes a gap, and is
    /// to be told at once; those are given.
    ///
    /// Only those that were members `before` it was looked at: another was admitted meanwhile.
    pub(super) fn compare(
        &mut self,
        members: &HashSet<Topic>,
        before: &HashSet<Topic>,
    ) -> Vec<Topic> {
        let mut lost = Vec::new();
        for (topic, entry) in &mut self.entries {
            let is_missing = before.contains(topic) && !members.contains(topic);
            // One that is being admitted right now is not complained about.
            if entry.member && is_missing && entry.gate.try_lock().is_ok() {
                entry.member = false;
                entry.flow.turn(false);
                entry.owed = Some(GapReason::ConnectionLost);
                lost.push(topic.clone());
            }
        }
        lost
    }

    /// Members that nobody has listened to for long, with the gate to hold while they are removed.
    pub(super) fn expired(&self, now: Instant) -> Vec<(Topic, Arc<tokio::sync::Mutex<()>>)> {
        let is_over = |entry: &Entry| entry.lingers.is_some_and(|until| until <= now);
        let over = self.entries.iter().filter(|(_, entry)| is_over(entry));
        over.map(|(topic, entry)| (topic.clone(), Arc::clone(&entry.gate))).collect()
    }

    /// Lets go of a table if still nobody listens; its changes stop at once.
    pub(super) fn expire(&mut self, topic: &Topic, now: Instant) -> bool {
        let is_over = |entry: &Entry| entry.lingers.is_some_and(|until| until <= now);
        let Some(entry) = self.entries.get(topic).filter(|entry| is_over(entry)) else {
            return false;
        };
        entry.flow.turn(false);
        self.entries.remove(topic);
        true
    }

    /// Whether changes of the table are told.
    pub(super) fn is_flowing(&self, topic: &Topic) -> bool {
        self.run.is_some() && self.entries.get(topic).is_some_and(|entry| entry.flow.is_on())
    }

    /// Whether anything is known of the table.
    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.entries.contains_key(topic)
    }
}

#[cfg(test)]
mod tests;
