//! A session to which nothing is said: where it is all the same.

use std::sync::Arc;

use tidewire_protocol::{Event, Position, Topic, TopicKind};

use super::{Phase, Session};
use crate::bookmark::Pace;

impl Session {
    /// How far everything that was said for each subscription has been put into the mailbox, for
    /// transports that tell it at their end. What is taken afterwards may be newer.
    ///
    /// Subscriptions are left out that are in the middle of a snapshot, which has no place to go
    /// on from, and those of presence, which is told anew.
    pub fn reached(&mut self) -> Vec<(Topic, Position)> {
        self.note_fallen();
        let held = self.subscriptions.iter();
        let held = held.filter(|held| held.topic().kind() != TopicKind::Presence);
        let place = |phase, key, lanes: &crate::hub::Lanes| match phase {
            Phase::CatchingUp { after } => Some(after),
            Phase::Live { lane } => lanes.lane(lane)?.change(|live| live.reached(self.id, key)),
        };
        held.filter(|held| held.rows().is_none())
            .filter_map(|held| {
                let reached = place(held.phase(), held.key, &held.entry().lanes)?;
                Some((held.topic(), reached))
            })
            .collect()
    }

    /// Whoever is live from now on and may be silent is looked at from time to time.
    pub(super) fn watch(&self, index: usize) {
        let held = &self.subscriptions[index];
        if held.wants().is_some_and(|wants| !wants.is_everything()) {
            self.node.watched.watch(&held.listening.entry);
        }
    }

    /// What the client says on the topic next is kept from it, so it may be silent there.
    pub(super) fn withhold(&self, topic: &Topic) {
        for place in self.subscriptions.places_of(topic) {
            let held = &self.subscriptions[place];
            if let Phase::Live { lane } = held.phase()
                && let Some(lane) = held.entry().lanes.lane(lane)
            {
                lane.change(|live| live.withhold(self.id, held.key));
                self.node.watched.watch(&held.listening.entry);
            }
        }
    }

    /// Tells the place of a subscription that catches up when too much of what it read was not
    /// for it; `told` is what was.
    pub(super) fn tell_place(&mut self, index: usize, read: &[Arc<Event>], told: Option<Position>) {
        let Some(last) = read.last() else { return };
        let held = &mut self.subscriptions[index];
        if held.rows().is_some() || told == Some(last.position) {
            return;
        }
        let pace = Pace::from(self.node.history_limits(&last.topic));
        // Without a filter it is the client's own words that are kept from it: few.
        let is_due = held.particulars.as_mut().is_none_or(|particulars| {
            let passed = &mut particulars.passed;
            if told.is_some() {
                *passed = Default::default();
            }
            let unheard = read.iter().filter(|event| Some(event.position) > told);
            unheard.for_each(|event| passed.add(event));
            let much = passed.is_much(pace);
            if much {
                *passed = Default::default();
            }
            much
        });
        let form = self.form_of(&self.subscriptions[index]);
        if is_due && let Some(bookmark) = form.bookmark(&last.topic, last.position) {
            self.node.metrics.bookmarks.inc();
            // Always taken: there was room for half a mailbox.
            let _ = self.mailbox.offer(bookmark, usize::MAX);
        }
    }
}
