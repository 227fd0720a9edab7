//! All subscriptions of one session. What one of them costs does not depend on how many there are:
//! they are found by their topics, and counted as they come and go.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use tidewire_protocol::{Topic, TopicKind};

use super::super::sharing::Wish;
use super::{Phase, Subscribed};

/// Subscriptions up to which a search is as quick as a map, which would cost every session memory.
const FEW: usize = 16;

/// The subscriptions of a session, each at a place that holds until one is removed.
#[derive(Default)]
pub(in super::super) struct Subscriptions {
    list: Vec<Subscribed>,
    /// Places by topic, once there were more than a few.
    #[expect(clippy::box_collection, reason = "most sessions have none, and a pointer is a sixth")]
    index: Option<Box<HashMap<Topic, Vec<usize>>>>,
    /// Those that catch up.
    behind: usize,
    /// What the client has in them; presence goes with its topic.
    count: usize,
}

impl Subscriptions {
    /// Adds one; gives its place.
    pub(in super::super) fn push(&mut self, subscribed: Subscribed) -> usize {
        let place = self.list.len();
        self.behind += behind(&subscribed);
        self.count += counted(&subscribed);
        self.list.push(subscribed);
        match &mut self.index {
            Some(index) => {
                index.entry(self.list[place].topic()).or_default().push(place);
            }
            None if self.list.len() > FEW => {
                let mut index: HashMap<Topic, Vec<usize>> = HashMap::new();
                for (place, held) in self.list.iter().enumerate() {
                    index.entry(held.topic()).or_default().push(place);
                }
                self.index = Some(Box::new(index));
            }
            None => {}
        }
        place
    }

    /// Takes one out; the last one has its place from then on.
    pub(in super::super) fn remove(&mut self, place: usize) -> Subscribed {
        let removed = self.list.swap_remove(place);
        self.behind -= behind(&removed);
        self.count -= counted(&removed);
        if let Some(index) = &mut self.index {
            move_place(index, &removed.topic(), place, None);
            if let Some(moved) = self.list.get(place) {
                move_place(index, &moved.topic(), self.list.len(), Some(place));
            }
        }
        removed
    }

    /// The places of those to a topic.
    pub(in super::super) fn places_of<'s>(
        &'s self,
        topic: &'s Topic,
    ) -> impl Iterator<Item = usize> + use<'s> {
        let (found, all) = match &self.index {
            Some(index) => (index.get(topic).map(Vec::as_slice).unwrap_or_default(), 0..0),
            None => (&[][..], 0..self.list.len()),
        };
        let searched = all.filter(|place| self.list[*place].entry().topic == *topic);
        found.iter().copied().chain(searched)
    }

    /// Whether any of them catches up.
    pub(in super::super) fn is_any_behind(&self) -> bool {
        self.behind > 0
    }

    /// How many subscriptions the client has.
    pub(in super::super) fn count(&self) -> usize {
        self.count
    }

    pub(in super::super) fn set_phase(&mut self, place: usize, phase: Phase) {
        let held = &mut self.list[place];
        self.behind -= behind(held);
        held.phase = phase;
        self.behind += behind(held);
    }

    /// Changes the wishes of one; gives how many more there are then, or less than nothing.
    pub(in super::super) fn change_wishes(
        &mut self,
        place: usize,
        change: impl FnOnce(&mut Vec<Wish>),
    ) -> i64 {
        let held = &mut self.list[place];
        let (before, counted_before) = (held.count() as i64, counted(held));
        held.change_wishes(change);
        self.count = self.count + counted(held) - counted_before;
        held.count() as i64 - before
    }
}

fn behind(held: &Subscribed) -> usize {
    usize::from(matches!(held.phase, Phase::CatchingUp { .. }))
}

fn counted(held: &Subscribed) -> usize {
    if held.entry().topic.kind() == TopicKind::Presence { 0 } else { held.count() }
}

/// Changes a place in the index, or takes it out.
fn move_place(
    index: &mut HashMap<Topic, Vec<usize>>,
    topic: &Topic,
    from: usize,
    to: Option<usize>,
) {
    let places = index.get_mut(topic).expect("every topic is in the index");
    let at = places.iter().position(|place| *place == from).expect("every place is, too");
    match to {
        Some(to) => places[at] = to,
        None => drop(places.swap_remove(at)),
    }
    if places.is_empty() {
        index.remove(topic);
    }
}

impl Deref for Subscriptions {
    type Target = [Subscribed];

    fn deref(&self) -> &[Subscribed] {
        &self.list
    }
}

impl DerefMut for Subscriptions {
    fn deref_mut(&mut self) -> &mut [Subscribed] {
        &mut self.list
    }
}

impl IntoIterator for Subscriptions {
    type Item = Subscribed;
    type IntoIter = std::vec::IntoIter<Subscribed>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}
