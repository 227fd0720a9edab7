//! Members of a table's topic that want only some of its changes.
//!
//! A member whose filter demands one of a few values in a column is found by the value: a change
//! costs what matches, not what listens. The others are asked one by one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use tidewire_protocol::dialect::Movement;
use tidewire_protocol::{Body, Change, Event, Position};

use super::live_topic::{Delivered, Member, MemberId};
use crate::delivery::{Batch, Encoded, Form};
use crate::upstream::Prepared;

/// Members that want only some changes.
#[derive(Default)]
pub(super) struct Selective {
    members: HashMap<MemberId, Picky>,
    columns: Vec<ColumnIndex>,
    /// Members that no column finds.
    rest: Vec<MemberId>,
}

/// A member and what it wants.
struct Picky {
    member: Member,
    form: Form,
    wants: Arc<Prepared>,
}

/// Members by the value that a column must have.
struct ColumnIndex {
    column: Arc<str>,
    canonical: fn(&str) -> Cow<'_, str>,
    members: HashMap<Arc<str>, Vec<MemberId>>,
}

/// Bytes of an event for one form and movement, made when the first member wants them.
type Cache = Vec<(Form, Movement, Encoded)>;

impl Selective {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn insert(&mut self, member: Member, form: Form, wants: Arc<Prepared>) {
        let id = member.id();
        match wants.rows.as_ref().and_then(|rows| rows.key()) {
            Some(key) => {
                let index = self.index(key.column, key.canonical);
                for value in key.values {
                    index.members.entry(Arc::clone(value)).or_default().push(id);
                }
            }
            None => self.rest.push(id),
        }
        self.members.insert(id, Picky { member, form, wants });
    }

    /// Whether the member was here.
    pub(super) fn remove(&mut self, id: MemberId) -> bool {
        let Some(picky) = self.members.remove(&id) else { return false };
        match picky.wants.rows.as_ref().and_then(|rows| rows.key()) {
            Some(key) => {
                let index = self.index(key.column, key.canonical);
                for value in key.values {
                    index.remove(value, id);
                }
            }
            None => self.rest.retain(|held| *held != id),
        }
        true
    }

    fn index(&mut self, column: &Arc<str>, canonical: Canonical) -> &mut ColumnIndex {
        let fits = |index: &ColumnIndex| {
            index.column == *column && std::ptr::fn_addr_eq(index.canonical, canonical)
        };
        if let Some(place) = self.columns.iter().position(fits) {
            return &mut self.columns[place];
        }
        let members = HashMap::new();
        self.columns.push(ColumnIndex { column: Arc::clone(column), canonical, members });
        self.columns.last_mut().expect("one was pushed just now")
    }

    /// Hands each event to the members that want it; whoever has no room is taken off and told
    /// where it was.
    pub(super) fn hand_over(
        &mut self,
        batch: &Batch,
        before: Position,
        limit: usize,
        delivered: &mut Delivered,
    ) {
        let mut at = before;
        for event in batch.events() {
            self.hand_over_one(event, at, limit, delivered);
            at = event.position;
        }
    }

    fn hand_over_one(
        &mut self,
        event: &Arc<Event>,
        before: Position,
        limit: usize,
        delivered: &mut Delivered,
    ) {
        let mut cache = Cache::new();
        for id in self.candidates(event) {
            let picky = &self.members[&id];
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
            let encoded = encoded(&mut cache, &picky.form, event, movement);
            let offered = encoded.offer_to(|outgoing| picky.member.mailbox.offer(outgoing, limit));
            if offered.is_ok() {
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

    /// The members that may want the event.
    fn candidates(&self, event: &Event) -> Vec<MemberId> {
        let Body::Change(change) = &event.body else {
            return self.members.keys().copied().collect();
        };
        let mut found = self.rest.clone();
        for index in &self.columns {
            index.find(change, &mut found);
        }
        found
    }
}

type Canonical = fn(&str) -> Cow<'_, str>;

impl ColumnIndex {
    /// Members whose value the row has now or had before; all of them when that is not known.
    fn find(&self, change: &Change, found: &mut Vec<MemberId>) {
        let Some(place) = change.relation.column(&self.column) else {
            // The column is gone: each member must learn that its filter cannot be applied.
            return self.find_all(found);
        };
        let rows = change.record.iter().chain(&change.old);
        let mut values: Vec<Option<&str>> = rows.map(|row| row.0[place].json()).collect();
        if values.is_empty() || values.contains(&None) {
            return self.find_all(found);
        }
        values.dedup();
        let start = found.len();
        for value in values.into_iter().flatten() {
            if let Some(members) = self.members.get(&*(self.canonical)(value)) {
                found.extend_from_slice(members);
            }
        }
        // A filter with several values may have both the old and the new one.
        found[start..].sort_unstable();
        let mut unique = found.split_off(start);
        unique.dedup();
        found.append(&mut unique);
    }

    fn find_all(&self, found: &mut Vec<MemberId>) {
        let start = found.len();
        found.extend(self.members.values().flatten());
        found[start..].sort_unstable();
        let mut unique = found.split_off(start);
        unique.dedup();
        found.append(&mut unique);
    }

    fn remove(&mut self, value: &Arc<str>, id: MemberId) {
        let Some(members) = self.members.get_mut(value) else { return };
        members.retain(|held| *held != id);
        if members.is_empty() {
            self.members.remove(value);
        }
    }
}

fn encoded<'a>(
    cache: &'a mut Cache,
    form: &Form,
    event: &Arc<Event>,
    movement: Movement,
) -> &'a Encoded {
    let known = cache.iter().position(|(held, as_moved, _)| *as_moved == movement && held == form);
    let place = known.unwrap_or_else(|| {
        cache.push((form.clone(), movement, form.encode([(event, movement)].into_iter())));
        cache.len() - 1
    });
    &cache[place].2
}
