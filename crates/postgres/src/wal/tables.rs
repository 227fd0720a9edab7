//! Which tables are listened to and whether their changes flow; pure.
//!
//! A table goes through three states: it is *wanted*, its membership of the publication is being
//! seen to, and it *flows*. It stops to flow when changes may have been missed, and then owes its
//! listeners a gap: the gap is said first, then changes flow again.
//!
//! A topic is that of one relation at a time, the one it was [`Admitted`] with. Once that has another
//! name, or another has its name, it stops, is told the gap, and is admitted anew.

use std::collections::HashMap;
use std::sync::Arc;

use tidewire_protocol::{GapReason, Topic};
use tokio::time::Instant;

use super::assembly::Flow;
use super::pgoutput::Lsn;
use super::standing::{Admitted, Standing};

/// One run of a stream without a gap; changes that come in another one have a gap before them.
pub(super) type Run = u64;

/// Switches kept before those that nobody holds are looked for: some for each table that a large
/// application listens to.
const FLOWS: usize = 1_024;

/// A table.
#[derive(Debug)]
struct Entry {
    /// Until when it is kept although nobody listens; `None` while somebody does.
    lingers: Option<Instant>,
    /// The relation whose changes are meant.
    admitted: Option<Admitted>,
    /// While changes flow, their switch.
    flow: Option<Flow>,
    /// What is to be said before its changes flow.
    owed: Option<GapReason>,
    /// It stopped, and those who listen were not told yet.
    untold: bool,
    /// Whether it is in the publication, as far as is known.
    member: bool,
    /// Whether its changes ever flowed, so that somebody may wait for them.
    flowed: bool,
    /// One at a time sees to its membership.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn new(lingers: Option<Instant>, owed: Option<GapReason>) -> Self {
        let gate = Arc::default();
        let (admitted, flow, untold, member, flowed) = (None, None, false, false, false);
        Self { lingers, admitted, flow, owed, untold, member, flowed, gate }
    }

    fn oid(&self) -> Option<u32> {
        self.admitted.as_ref().map(|admitted| admitted.standing.naming.oid)
    }

    fn is_standing(&self, standing: Option<&Standing>) -> bool {
        self.admitted.as_ref().map(|admitted| &admitted.standing) == standing
    }

    /// It is not what it was admitted as: silent until it was admitted anew.
    fn stop(&mut self, reason: GapReason) {
        self.end();
        self.member = false;
        self.owed = Some(reason);
        self.untold = true;
    }

    /// Changes flow no more; whoever holds the switch has to ask for another.
    fn end(&mut self) {
        if let Some(flow) = self.flow.take() {
            flow.end();
        }
    }
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    entries: HashMap<Topic, Entry>,
    /// Switches that the assembly holds, by the topic and the relation.
    flows: HashMap<(Topic, u32), Flow>,
    /// Their number at which those that nobody holds any more are looked for.
    crowded: usize,
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
        let run = self.run;
        let owed = Some(GapReason::NotListening);
        let entry = self.entries.entry(topic.clone()).or_insert_with(|| Entry::new(None, owed));
        entry.lingers = None;
        match entry.flow.is_some() && run.is_some() {
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

    /// Changes of the table stop at once, although somebody may listen, and it is let go of.
    pub(super) fn let_go(&mut self, topic: &Topic, now: Instant) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.end();
            entry.member = false;
            entry.owed = Some(GapReason::ConnectionLost);
            entry.lingers = Some(now);
        }
    }

    /// A want that came to nothing: forgets the table if nobody else waits for it.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.entries.retain(|t, entry| t != topic || entry.member || entry.flowed);
    }

    /// The switch of the changes of this relation under this name.
    pub(super) fn flow(&mut self, topic: &Topic, oid: u32) -> Flow {
        if self.flows.len() >= self.crowded {
            self.flows.retain(|_, flow| flow.is_on() || flow.is_shared());
            self.crowded = (self.flows.len() * 2).max(FLOWS);
        }
        let flow = self.flows.entry((topic.clone(), oid)).or_default();
        if flow.has_ended() {
            *flow = Flow::default();
        }
        flow.clone()
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
    pub(super) fn connected(&mut self, resumed: bool, members: &HashMap<Topic, Admitted>) {
        if !resumed {
            self.stop_all(GapReason::ConnectionLost);
            // What only lingers is not worth a gap; who comes back is told that nobody listened.
            self.entries.retain(|_, entry| entry.lingers.is_none());
        }
        for (topic, entry) in &mut self.entries {
            let member = members.get(topic);
            entry.member = member.is_some();
            // What flows on stays what it was, and the next look compares that.
            if entry.flow.is_none() && entry.member {
                entry.admitted = member.cloned();
            }
        }
        self.runs += 1;
        self.run = Some(self.runs);
    }

    /// Takes over tables that were published before this process began; they flow from the start.
    pub(super) fn inherit(&mut self, heirs: &HashMap<Topic, Admitted>, until: Instant) {
        for (topic, admitted) in heirs {
            let flow = self.flow(topic, admitted.standing.naming.oid);
            flow.begin(admitted.from);
            let entry = self.entries.entry(topic.clone());
            // Somebody may have been quicker to listen than we were to connect.
            let entry = entry.or_insert_with(|| Entry::new(Some(until), None));
            (entry.admitted, entry.flow) = (Some(admitted.clone()), Some(flow));
            (entry.owed, entry.member, entry.flowed) = (None, true, true);
        }
    }

    /// Takes over tables that were told before this process began, after which something may be
    /// missing: they owe a gap, although nobody listens.
    pub(super) fn inherit_debts(&mut self, members: &HashMap<Topic, Admitted>, until: Instant) {
        for (topic, admitted) in members {
            let owed = Some(GapReason::ConnectionLost);
            let entry = self.entries.entry(topic.clone());
            entry.or_insert_with(|| {
                let (admitted, member, flowed) = (Some(admitted.clone()), true, true);
                Entry { admitted, member, flowed, ..Entry::new(Some(until), owed) }
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
            if entry.flow.is_some() {
                entry.end();
                entry.owed = Some(reason);
            }
        }
    }

    /// The log describes this relation, which has this name in what committed `at` that place. A
    /// topic that was another's, or whose relation has another name there, stops.
    pub(super) fn meet(&mut self, oid: u32, topic: Option<&Topic>, at: Lsn) {
        for (name, entry) in &mut self.entries {
            let is_later = entry.admitted.as_ref().is_some_and(|it| it.from <= at);
            let is_its_name = Some(name) == topic;
            if entry.flow.is_some() && is_later && (entry.oid() == Some(oid)) != is_its_name {
                entry.stop(GapReason::ConnectionLost);
            }
        }
    }

    /// The table is not what it was admitted as.
    pub(super) fn stop(&mut self, topic: &Topic) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.stop(GapReason::ConnectionLost);
        }
    }

    /// Tables that stopped and whose gap was not told yet.
    pub(super) fn untold(&self) -> Vec<Topic> {
        let untold = self.entries.iter().filter(|(_, entry)| entry.untold);
        untold.map(|(topic, _)| topic.clone()).collect()
    }

    /// Those who listen know that it stopped.
    pub(super) fn told(&mut self, topic: &Topic) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.untold = false;
        }
    }

    /// Something of the table could not be published: it owes a gap.
    pub(super) fn owe(&mut self, topic: &Topic, reason: GapReason) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.end();
            entry.owed = Some(reason);
        }
    }

    /// The table is in the publication, as this.
    pub(super) fn admitted(&mut self, topic: &Topic, admitted: Admitted) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.end();
            (entry.member, entry.admitted) = (true, Some(admitted));
        }
    }

    /// As what a table is in the stream, if it is.
    pub(super) fn admission(&self, topic: &Topic) -> Option<Admitted> {
        self.entries.get(topic)?.admitted.clone()
    }

    /// Whether changes of this relation are those of the topic.
    pub(super) fn tells(&self, topic: &Topic, oid: u32) -> bool {
        let entry = self.entries.get(topic).filter(|entry| entry.flow.is_some());
        entry.is_some_and(|entry| entry.oid() == Some(oid))
    }

    /// What has to be said before the table flows, and the run in which it will; `None` when it is
    /// no member or there is no stream.
    pub(super) fn debt(&self, topic: &Topic) -> Option<(Run, Option<GapReason>)> {
        let is_in = |entry: &&Entry| entry.member && entry.admitted.is_some();
        let entry = self.entries.get(topic).filter(is_in)?;
        Some((self.run?, entry.owed))
    }

    /// Members that owe a gap, while there is a stream to flow.
    pub(super) fn debtors(&self) -> Vec<Topic> {
        if self.run.is_none() {
            return Vec::new();
        }
        let owing =
            |entry: &Entry| entry.member && entry.flow.is_none() && entry.admitted.is_some();
        self.entries.iter().filter(|(_, e)| owing(e)).map(|(topic, _)| topic.clone()).collect()
    }

    /// The gap was said: changes flow, unless the stream was lost meanwhile.
    pub(super) fn paid(&mut self, topic: &Topic, run: Run) -> bool {
        let is_in = |entry: &&Entry| entry.member && self.run == Some(run);
        let entry = self.entries.get(topic).filter(is_in);
        let Some(admitted) = entry.and_then(|entry| entry.admitted.clone()) else { return false };
        let flow = self.flow(topic, admitted.standing.naming.oid);
        flow.begin(admitted.from);
        let entry = self.entries.get_mut(topic).expect("it was there");
        (entry.owed, entry.untold, entry.flowed) = (None, false, true);
        entry.flow = Some(flow);
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

    /// Tables that are published as far as is known, and as what.
    pub(super) fn members(&self) -> HashMap<Topic, Standing> {
        let members = self.entries.iter().filter(|(_, entry)| entry.member);
        members
            .filter_map(|(topic, entry)| Some((topic.clone(), entry.admitted.clone()?.standing)))
            .collect()
    }

    /// What the publication really holds. A table that is not in it, or is not what it was, stops
    /// and owes a gap; those are given.
    ///
    /// Only those that were members `before` it was looked at: another was admitted meanwhile.
    pub(super) fn compare(
        &mut self,
        members: &HashMap<Topic, Standing>,
        before: &HashMap<Topic, Standing>,
    ) -> Vec<Topic> {
        let mut lost = Vec::new();
        for (topic, entry) in &mut self.entries {
            let was_looked_at = before.contains_key(topic) && entry.is_standing(before.get(topic));
            let is_other = entry.member && was_looked_at && !entry.is_standing(members.get(topic));
            // One that is being admitted right now is not complained about.
            if is_other && entry.gate.try_lock().is_ok() {
                entry.stop(GapReason::ConnectionLost);
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
        if let Some(flow) = &entry.flow {
            flow.end();
        }
        self.entries.remove(topic);
        true
    }

    /// Whether changes of the table are told.
    pub(super) fn is_flowing(&self, topic: &Topic) -> bool {
        self.run.is_some() && self.entries.get(topic).is_some_and(|entry| entry.flow.is_some())
    }

    /// Whether anything is known of the table.
    pub(super) fn contains(&self, topic: &Topic) -> bool {
        self.entries.contains_key(topic)
    }
}

#[cfg(test)]
mod tests;
