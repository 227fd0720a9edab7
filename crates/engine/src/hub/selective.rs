//! Members of a table's topic that want only some of its changes.
//!
//! A member whose filter demands something of a column is found by the value that a row has there:
//! a change costs what matches, not what listens. The others are asked one by one.

mod column;
mod ranges;
mod runs;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use tidewire_protocol::filter::Demand;
use tidewire_protocol::{Body, Event, Position, Topic};

use self::column::ColumnIndex;
use self::runs::{Run, Runs, Singles};
use super::live_topic::{Delivered, Member, MemberId};
use crate::bookmark::{Pace, Passed, Silence};
use crate::delivery::{Batch, Form};
use crate::mailbox::Offer;
use crate::upstream::Prepared;

/// Members that want only some changes.
#[derive(Default)]
pub(super) struct Selective {
    members: HashMap<MemberId, Picky, BuildHasherDefault<IdHasher>>,
    columns: Vec<ColumnIndex>,
    /// Members that no column finds.
    rest: HashSet<MemberId>,
    /// All that was handed over, whoever wanted it.
    said: Passed,
}

/// A member and what it wants.
struct Picky {
    member: Member,
    form: Form,
    wants: Arc<Prepared>,
    silence: Silence,
}

impl Picky {
    fn demand(&self) -> Option<&Demand> {
        self.wants.rows.as_ref()?.demand()
    }
}

/// For ids of members, which begin with a random number of our own.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number without a pattern (of the golden ratio) spreads what is not random.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a member is to have of a batch.
#[derive(Default)]
struct Chosen {
    run: Run,
    /// The place of the first event to which its filter cannot be applied any more.
    unfit: Option<usize>,
}

impl Selective {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn insert(&mut self, member: Member, form: Form, wants: Arc<Prepared>) {
        let id = member.id();
        let silence = Silence::broken(self.said);
        let picky = Picky { member, form, wants, silence };
        match picky.demand() {
            Some(demand) => self.column(demand).insert(demand, id),
            None => drop(self.rest.insert(id)),
        }
        self.members.insert(id, picky);
    }

    /// Whether the member was here.
    pub(super) fn remove(&mut self, id: MemberId) -> bool {
        let Some(picky) = self.members.remove(&id) else { return false };
        match picky.demand() {
            Some(demand) => self.remove_from_column(demand, id),
            None => drop(self.rest.remove(&id)),
        }
        true
    }

    pub(super) fn contains(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// Those who were silent for as long as they may be, and how much has passed each by; to be
    /// asked for once a tick.
    pub(super) fn silent(&mut self, pace: Pace) -> Vec<(u64, MemberId)> {
        let said = self.said;
        let due =
            |(id, picky): (&MemberId, &mut Picky)| Some((picky.silence.goes_on(said, pace)?, *id));
        self.members.iter_mut().filter_map(due).collect()
    }

    /// Tells a member that it has everything up to `at`; whether there was something to tell, and
    /// room for it.
    pub(super) fn tell_place(
        &mut self,
        id: MemberId,
        topic: &Topic,
        at: Position,
        limit: usize,
    ) -> bool {
        let Some(picky) = self.members.get_mut(&id) else { return false };
        let bookmark = picky.form.bookmark(topic, at);
        let told = bookmark.is_some();
        let is_full = |bookmark| picky.member.mailbox.offer(bookmark, limit) == Offer::Full;
        if bookmark.is_some_and(is_full) {
            return false;
        }
        picky.silence = Silence::broken(self.said);
        told
    }

    fn column(&mut self, demand: &Demand) -> &mut ColumnIndex {
        let known = self.columns.iter().position(|column| column.is_for(demand));
        let place = known.unwrap_or_else(|| {
            self.columns.push(ColumnIndex::new(demand));
            self.columns.len() - 1
        });
        &mut self.columns[place]
    }

    /// A table that is altered again and again leaves no empty index behind.
    fn remove_from_column(&mut self, demand: &Demand, id: MemberId) {
        let place = self.columns.iter().position(|column| column.is_for(demand));
        let place = place.expect("the member's column has an index");
        self.columns[place].remove(demand, id);
        if self.columns[place].is_empty() {
            self.columns.swap_remove(place);
        }
    }

    /// Hands each event to the members that want it, all of a batch at once; whoever has no room is
    /// taken off and told where it was.
    pub(super) fn hand_over(
        &mut self,
        batch: &Batch,
        before: Position,
        limit: usize,
        delivered: &mut Delivered,
    ) {
        // Whoever is told something in the middle of a batch counts as told all of it: near enough.
        self.said.add_all(batch);
        if let [event] = batch.events() {
            return self.hand_over_one(event, before, limit, delivered);
        }
        let mut runs = Runs::new(batch);
        for (id, chosen) in self.choose(batch) {
            self.hand_over_run(id, chosen, &mut runs, (batch, before), limit, delivered);
        }
    }

    /// What each member is to have of the batch; those who are to have nothing are left out.
    fn choose(&self, batch: &Batch) -> HashMap<MemberId, Chosen, BuildHasherDefault<IdHasher>> {
        let mut all = HashMap::<MemberId, Chosen, BuildHasherDefault<IdHasher>>::default();
        for (place, event) in batch.events().iter().enumerate() {
            for id in self.candidates(event) {
                let picky = &self.members[&id];
                let is_over = || all.get(&id).is_some_and(|chosen| chosen.unfit.is_some());
                if !event.audience.admits(picky.member.session) || is_over() {
                    continue;
                }
                match picky.wants.admits(event) {
                    Ok(Some(movement)) => {
                        all.entry(id).or_default().run.push((place as u32, movement));
                    }
                    Ok(None) => {}
                    Err(_) => all.entry(id).or_default().unfit = Some(place),
                }
            }
        }
        all
    }

    fn hand_over_run(
        &mut self,
        id: MemberId,
        chosen: Chosen,
        runs: &mut Runs<'_>,
        (batch, before): (&Batch, Position),
        limit: usize,
        delivered: &mut Delivered,
    ) {
        let place_before = |place: usize| match place {
            0 => before,
            place => batch.events()[place - 1].position,
        };
        if let Some(&(first, _)) = chosen.run.first() {
            let picky = self.members.get_mut(&id).expect("who is to have something is a member");
            let count = chosen.run.len() as u64;
            let encoded = runs.encoded(&picky.form, chosen.run);
            let mailbox = &picky.member.mailbox;
            if let Err(taken) = encoded.offer_to(|outgoing| mailbox.offer(outgoing, limit)) {
                delivered.fallen += 1;
                return self.take_off(id, taken.unwrap_or(place_before(first as usize)));
            }
            picky.silence = Silence::broken(self.said);
            delivered.events += count;
        }
        // The session meets the event again when it catches up, and ends there.
        if let Some(unfit) = chosen.unfit {
            self.take_off(id, place_before(unfit));
        }
    }

    /// The same for a single event, as most batches are.
    fn hand_over_one(
        &mut self,
        event: &Arc<Event>,
        before: Position,
        limit: usize,
        delivered: &mut Delivered,
    ) {
        let mut singles = Singles::default();
        for id in self.candidates(event) {
            let picky = self.members.get_mut(&id).expect("who is found is a member");
            if !event.audience.admits(picky.member.session) {
                continue;
            }
            let movement = match picky.wants.admits(event) {
                Ok(Some(movement)) => movement,
                Ok(None) => continue,
                // The session meets the event again when it catches up, and ends there.
                Err(_) => {
                    self.take_off(id, before);
                    continue;
                }
            };
            let encoded = singles.encoded(&picky.form, event, movement);
            let offered = encoded.offer_to(|outgoing| picky.member.mailbox.offer(outgoing, limit));
            if offered.is_ok() {
                picky.silence = Silence::broken(self.said);
                delivered.events += 1;
            } else {
                delivered.fallen += 1;
                self.take_off(id, before);
            }
        }
    }

    fn take_off(&mut self, id: MemberId, at: Position) {
        let picky = &self.members[&id];
        picky.member.mailbox.fell_behind(picky.member.key, at);
        self.remove(id);
    }

    /// The members that may want the event, each once.
    fn candidates(&self, event: &Event) -> Vec<MemberId> {
        let Body::Change(change) = &event.body else {
            return self.members.keys().copied().collect();
        };
        let mut found: Vec<_> = self.rest.iter().copied().collect();
        for column in &self.columns {
            column.find(change, &mut found);
        }
        found
    }
}

#[cfg(test)]
mod tests;
