//! Listeners to whom nothing is said for a while, though the topic goes on: those with filters,
//! and those whose own publications are all that is said and are kept from them.
//!
//! Everything for a member that is live was put into its mailbox up to the topic's own position,
//! so that is the place to tell.

use std::collections::HashMap;

use tidewire_protocol::{Position, SessionId, Topic};

use super::{LiveTopic, MemberId};
use crate::bookmark::{Pace, Passed, Silence, in_turn};
use crate::delivery::Batch;
use crate::mailbox::{Offer, SubscriptionKey};

/// Members from whom something of their own was withheld since they were told a place, and what
/// was said since the first of them.
#[derive(Default)]
pub(super) struct Withheld {
    members: HashMap<MemberId, Silence>,
    said: Passed,
}

impl LiveTopic {
    /// The member says something that it does not want to hear itself.
    pub(crate) fn withhold(&mut self, session: SessionId, key: SubscriptionKey) {
        let held = self.withheld.get_or_insert_default();
        held.members.entry((session, key)).or_insert_with(|| Silence::broken(held.said));
    }

    pub(super) fn forget_withheld(&mut self, id: MemberId) -> bool {
        let Some(held) = &mut self.withheld else { return false };
        let was_there = held.members.remove(&id).is_some();
        if held.members.is_empty() {
            self.withheld = None;
        }
        was_there
    }

    /// Only while there is somebody, so that it costs other topics nothing.
    pub(super) fn count_withheld(&mut self, batch: &Batch) {
        if let Some(held) = &mut self.withheld {
            held.said.add_all(batch);
        }
    }

    /// Everything up to here was handed to the member; `None` when it is not live.
    pub(crate) fn reached(&self, session: SessionId, key: SubscriptionKey) -> Option<Position> {
        let id = (session, key);
        let is_picky = || self.selective.as_ref().is_some_and(|picky| picky.contains(id));
        if self.places.contains_key(&id) || is_picky() {
            return self.at;
        }
        self.ahead.iter().find(|(member, ..)| member.id() == id).map(|(.., position)| *position)
    }

    /// Those who were silent for as long as they may be and whose turn it is; to be asked for once
    /// a tick.
    pub(crate) fn silent(&mut self, pace: Pace) -> Vec<MemberId> {
        let mut silent: Vec<_> =
            self.selective.as_mut().map(|picky| picky.silent(pace)).unwrap_or_default();
        if let Some(Withheld { members, said }) = self.withheld.as_deref_mut() {
            let due = |(id, silence): (&MemberId, &mut Silence)| {
                Some((silence.goes_on(*said, pace)?, *id))
            };
            silent.extend(members.iter_mut().filter_map(due));
        }
        in_turn(silent)
    }

    /// Tells those of them who are still live how far they have everything; how many could be told.
    /// Whoever had no room is told at another time.
    pub(crate) fn tell_place(&mut self, silent: &[MemberId], topic: &Topic, limit: usize) -> u64 {
        let Some(at) = self.at else { return 0 };
        let mut told = 0;
        for id in silent {
            if let Some(picky) = &mut self.selective
                && picky.contains(*id)
            {
                told += u64::from(picky.tell_place(*id, topic, at, limit));
            } else if self.forget_withheld(*id) {
                told += u64::from(self.tell_member(*id, topic, at, limit));
            }
        }
        told
    }

    fn tell_member(&self, id: MemberId, topic: &Topic, at: Position, limit: usize) -> bool {
        let Some(place) = self.places.get(&id) else { return false };
        let group = &self.groups[place.group];
        let bookmark = group.form.bookmark(topic, at);
        let mailbox = &group.members[place.index].mailbox;
        bookmark.is_some_and(|bookmark| mailbox.offer(bookmark, limit) == Offer::Taken)
    }
}
