//! A topic as the listeners of one lane see it: where it is, and who receives what comes.
//!
//! Pure and synchronous, behind one lock; see [`lanes`](super::lanes). A member receives by push
//! exactly the events after the position it went live at; whoever cannot take an event is taken
//! off and told where it was, and goes on from history. So every live member has everything up to
//! the lane's own position.

mod silence;

use std::collections::HashMap;
use std::sync::Arc;

use tidewire_protocol::dialect::Movement;
use tidewire_protocol::{Event, Position, SessionId};

use self::silence::Withheld;
use super::selective::Selective;
use crate::delivery::{Batch, Encoded, Form, within};
use crate::mailbox::{Mailbox, SubscriptionKey};
use crate::upstream::Prepared;

/// One subscription that receives by push.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) session: SessionId,
    pub(crate) key: SubscriptionKey,
    pub(crate) mailbox: Arc<Mailbox>,
    /// What of a table it wants; `None` for everything.
    pub(crate) wants: Option<Arc<Prepared>>,
}

impl Member {
    pub(super) fn id(&self) -> MemberId {
        (self.session, self.key)
    }

    /// The events that the member is to have, and what each means to it.
    ///
    /// # Errors
    /// When its filter cannot be applied any more; the session finds out when it catches up.
    fn wanted<'a>(
        &self,
        events: impl Iterator<Item = &'a Arc<Event>>,
    ) -> Result<Vec<(&'a Arc<Event>, Movement)>, String> {
        let admitted = events.filter(|event| event.audience.admits(self.session));
        wanted(self.wants.as_deref(), admitted)
    }
}

/// The events that a listener wants, and what each means to it.
///
/// # Errors
/// When its filter cannot be applied any more, why.
pub(crate) fn wanted<'a>(
    wants: Option<&Prepared>,
    events: impl Iterator<Item = &'a Arc<Event>>,
) -> Result<Vec<(&'a Arc<Event>, Movement)>, String> {
    let Some(wants) = wants else { return Ok(events.map(within).collect()) };
    let mut list = Vec::new();
    for event in events {
        list.extend(wants.admits(event)?.map(|movement| (event, movement)));
    }
    Ok(list)
}

pub(super) type MemberId = (SessionId, SubscriptionKey);

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Events handed over, each member counted.
    pub(crate) events: u64,
    /// Members taken off because they had no room.
    pub(crate) fallen: u64,
}

/// One topic for the listeners of one lane.
#[derive(Default)]
pub(crate) struct LiveTopic {
    at: Option<Position>,
    groups: Vec<Group>,
    places: HashMap<MemberId, Place>,
    /// Members that want only some changes of a table.
    selective: Option<Box<Selective>>,
    /// Members that read ahead of the topic from history, and up to where.
    ahead: Vec<(Member, Form, Position)>,
    /// Members that may be silent although they want everything.
    withheld: Option<Box<Withheld>>,
}

/// Members that share encoded bytes.
struct Group {
    form: Form,
    members: Vec<Member>,
}

#[derive(Clone, Copy)]
struct Place {
    group: usize,
    index: usize,
}

impl LiveTopic {
    /// Everything up to here was handed over; `None` until the topic is placed.
    pub(crate) fn at(&self) -> Option<Position> {
        self.at
    }

    /// Members that receive what comes.
    pub(crate) fn len(&self) -> usize {
        let selective = self.selective.as_ref().map_or(0, |selective| selective.len());
        self.places.len() + selective + self.ahead.len()
    }

    /// Places the topic before anything was handed over.
    pub(crate) fn place(&mut self, at: Position) {
        self.at = Some(at);
    }

    /// From now on the member receives by push what comes after `position`.
    ///
    /// `false` when the topic is past that position already: read on from history, then try again.
    pub(crate) fn go_live(&mut self, member: Member, form: &Form, position: Position) -> bool {
        let Some(at) = self.at else { return false };
        if at.epoch != position.epoch || at.seq > position.seq {
            return false;
        }
        if at == position {
            self.insert(member, form);
        } else {
            self.ahead.push((member, form.clone(), position));
        }
        true
    }

    /// From now on the member receives what comes; `say` is told the position first, so that what
    /// it queues comes before any event. `None` when the topic is not placed yet.
    pub(crate) fn go_live_now(
        &mut self,
        member: Member,
        form: &Form,
        say: impl FnOnce(Position),
    ) -> Option<Position> {
        let at = self.at?;
        say(at);
        self.insert(member, form);
        Some(at)
    }

    /// The member receives nothing any more; gives the place up to which it has everything, if it
    /// was live.
    pub(crate) fn leave(&mut self, session: SessionId, key: SubscriptionKey) -> Option<Position> {
        self.forget_withheld((session, key));
        if let Some(place) = self.places.remove(&(session, key)) {
            self.take_off(place);
            return self.at;
        }
        if self.selective.as_mut().is_some_and(|held| held.remove((session, key))) {
            return self.at;
        }
        let ahead = self.ahead.iter().position(|(member, ..)| member.id() == (session, key))?;
        Some(self.ahead.swap_remove(ahead).2)
    }

    /// Hands events over; the batch must follow [`LiveTopic::at`].
    pub(crate) fn deliver(&mut self, batch: &Batch, limit: usize) -> Delivered {
        debug_assert_eq!(self.at.map(Position::next), Some(batch.first()), "a hole in a topic");
        self.hand_over(batch, limit)
    }

    /// Hands over the news that events are missing, and goes on from the gap's position.
    pub(crate) fn tell_gap(&mut self, gap: &Batch, limit: usize) -> Delivered {
        // Whoever read ahead knows better than to be told; it is behind the topic now.
        for (member, _, position) in std::mem::take(&mut self.ahead) {
            member.mailbox.fell_behind(member.key, position);
        }
        self.hand_over(gap, limit)
    }

    fn hand_over(&mut self, batch: &Batch, limit: usize) -> Delivered {
        let mut delivered = Delivered::default();
        let before = self.at.unwrap_or(batch.first().before());
        for group in 0..self.groups.len() {
            self.hand_to_group(group, batch, before, limit, &mut delivered);
        }
        if let Some(selective) = &mut self.selective {
            selective.hand_over(batch, before, limit, &mut delivered);
        }
        self.count_withheld(batch);
        self.at = Some(batch.last());
        self.hand_to_ahead(batch, limit, &mut delivered);
        delivered
    }

    fn hand_to_group(
        &mut self,
        group: usize,
        batch: &Batch,
        before: Position,
        limit: usize,
        delivered: &mut Delivered,
    ) {
        if self.groups[group].members.is_empty() {
            return;
        }
        let encoded = batch.encoded(&self.groups[group].form);
        let mut index = 0;
        while let Some(member) = self.groups[group].members.get(index) {
            let (offered, count) = if batch.is_for(member.session) {
                (offer(member, &encoded, limit), batch.events().len())
            } else {
                let (selected, count) = selected(&self.groups[group].form, batch, member.session);
                (offer(member, &selected, limit), count)
            };
            match offered {
                Ok(()) => {
                    delivered.events += count as u64;
                    index += 1;
                }
                Err(taken) => {
                    delivered.fallen += 1;
                    member.mailbox.fell_behind(member.key, taken.unwrap_or(before));
                    let id = member.id();
                    self.places.remove(&id);
                    self.take_off(Place { group, index });
                }
            }
        }
    }

    /// Members that read ahead get what they have not read, and join their group when the topic
    /// has come to where they are.
    fn hand_to_ahead(&mut self, batch: &Batch, limit: usize, delivered: &mut Delivered) {
        let at = batch.last();
        for (member, form, position) in std::mem::take(&mut self.ahead) {
            if position.seq > at.seq {
                self.ahead.push((member, form, position));
                continue;
            }
            let unread = batch.events().iter().filter(|event| event.position.seq > position.seq);
            let Ok(unread) = member.wanted(unread) else {
                member.mailbox.fell_behind(member.key, position);
                continue;
            };
            let count = unread.len() as u64;
            match offer(&member, &form.encode(unread.into_iter()), limit) {
                Ok(()) => {
                    delivered.events += count;
                    self.insert(member, &form);
                }
                Err(taken) => {
                    delivered.fallen += 1;
                    member.mailbox.fell_behind(member.key, taken.unwrap_or(position));
                }
            }
        }
    }

    fn insert(&mut self, member: Member, form: &Form) {
        if let Some(wants) = member.wants.clone() {
            let selective = self.selective.get_or_insert_default();
            return selective.insert(member, form.clone(), wants);
        }
        let group = self.group(form);
        let members = &mut self.groups[group].members;
        self.places.insert(member.id(), Place { group, index: members.len() });
        members.push(member);
    }

    fn group(&mut self, form: &Form) -> usize {
        let known = self.groups.iter().position(|group| group.form == *form);
        known.unwrap_or_else(|| self.new_group(form))
    }

    /// Tags make forms come and go, so an empty group's place is used again.
    fn new_group(&mut self, form: &Form) -> usize {
        let group = Group { form: form.clone(), members: Vec::new() };
        let free = self.groups.iter().position(|group| group.members.is_empty());
        if let Some(index) = free {
            self.groups[index] = group;
            return index;
        }
        self.groups.push(group);
        self.groups.len() - 1
    }

    fn take_off(&mut self, place: Place) {
        let members = &mut self.groups[place.group].members;
        members.swap_remove(place.index);
        if let Some(moved) = members.get(place.index) {
            let id = moved.id();
            self.places.insert(id, place);
        }
    }
}

/// The events that the session may have, and how many they are.
fn selected(form: &Form, batch: &Batch, session: SessionId) -> (Encoded, usize) {
    let admitted = batch.events().iter().filter(|event| event.audience.admits(session));
    let admitted: Vec<_> = admitted.map(within).collect();
    let count = admitted.len();
    (form.encode(admitted.into_iter()), count)
}

fn offer(member: &Member, encoded: &Encoded, limit: usize) -> Result<(), Option<Position>> {
    encoded.offer_to(|outgoing| member.mailbox.offer(outgoing, limit))
}

#[cfg(test)]
mod tests;
