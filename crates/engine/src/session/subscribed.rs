//! A session's subscriptions: what each wants, and whether it catches up or is live.

mod list;

use std::sync::Arc;

use tidewire_protocol::filter::Filter;
use tidewire_protocol::{Event, Interest, Position, Subscription, Tag, Topic};

use super::catch_up::Rows;
use super::sharing::Wish;
use crate::bookmark::Passed;
use crate::budget::Share;
use crate::hub::{Entry, LaneIndex};
use crate::mailbox::SubscriptionKey;
use crate::node::Inner;
use crate::upstream::Prepared;

pub(super) use list::Subscriptions;

/// A subscription in force.
pub(super) struct Subscribed {
    pub(super) key: SubscriptionKey,
    pub(super) listening: Listening,
    pub(super) tag: Option<Tag>,
    /// Changed by [`Subscriptions::set_phase`] alone.
    phase: Phase,
    /// Whether changes of presence are wanted; they are a subscription of their own.
    pub(super) presence: bool,
    /// What few subscriptions have.
    pub(super) particulars: Option<Box<Particulars>>,
}

/// What few subscriptions have, kept apart because the others are many.
#[derive(Default)]
pub(super) struct Particulars {
    /// What the client tells apart by keys and hears as one; empty without a key.
    pub(super) wishes: Vec<Wish>,
    /// What of a table was asked for, by one without a key.
    pub(super) interest: Interest,
    /// What of a table is wanted in all, made ready; `None` for everything.
    pub(super) wants: Option<Arc<Prepared>>,
    /// The rows of a table that come first, until no change can be in them any more.
    pub(super) rows: Option<Rows>,
    /// What it read while catching up since it was told something.
    pub(super) passed: Passed,
}

impl Subscribed {
    /// One that is live in no lane yet; it begins at once.
    pub(super) fn new(
        key: SubscriptionKey,
        listening: Listening,
        tag: Option<Tag>,
        presence: bool,
    ) -> Self {
        let phase = Phase::Live { lane: LaneIndex::default() };
        Self { key, listening, tag, phase, presence, particulars: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.listening.entry
    }

    pub(super) fn topic(&self) -> Topic {
        self.entry().topic.clone()
    }

    pub(super) fn wishes(&self) -> &[Wish] {
        self.particulars.as_ref().map(|held| &held.wishes[..]).unwrap_or_default()
    }

    /// Whether it is the one with this name, or one of those.
    pub(super) fn is_named(&self, name: Option<&Arc<str>>) -> bool {
        match name {
            Some(name) => self.wishes().iter().any(|wish| wish.name == *name),
            None => self.wishes().is_empty(),
        }
    }

    /// How many subscriptions the client has in it.
    pub(super) fn count(&self) -> usize {
        self.wishes().len().max(1)
    }

    /// Changes the wishes, and with them what is wanted.
    fn change_wishes(&mut self, change: impl FnOnce(&mut Vec<Wish>)) {
        let particulars = self.particulars.get_or_insert_default();
        change(&mut particulars.wishes);
        let wants = particulars.wishes.iter().map(|wish| wish.wants.clone());
        particulars.wants = Prepared::any_of(wants.collect());
    }

    pub(super) fn wants(&self) -> Option<&Arc<Prepared>> {
        self.particulars.as_ref()?.wants.as_ref()
    }

    /// Rows beyond which nothing is shown: the same for all wishes of a session.
    pub(super) fn limit(&self) -> Option<Arc<Filter>> {
        let particulars = self.particulars.as_ref()?;
        let interest = particulars.wishes.first().map(|wish| &wish.interest);
        interest.unwrap_or(&particulars.interest).limit.clone()
    }

    pub(super) fn rows(&self) -> Option<&Rows> {
        self.particulars.as_ref()?.rows.as_ref()
    }

    /// Whether the same of the topic was asked for.
    pub(super) fn asks_the_same(&self, wish: &Subscription) -> bool {
        let interest = match &wish.key {
            Some(name) => self.wish(name).map(|held| &held.interest),
            None => self.particulars.as_ref().map(|held| &held.interest),
        };
        !wish.snapshot
            && interest.map_or(wish.interest.is_everything(), |held| *held == wish.interest)
            && self.tag == wish.tag
            && self.presence == wish.presence
    }

    /// Whether the rows that came first contain what the event tells.
    pub(super) fn has_in_rows(&self, event: &Event) -> bool {
        self.rows().is_some_and(|rows| rows.have(event))
    }
}

/// One listener of a topic; dropping it lets go of the topic.
pub(super) struct Listening {
    pub(super) node: Arc<Inner>,
    pub(super) entry: Arc<Entry>,
    /// Of what only so many may be followed for one principal.
    _share: Option<Box<Share>>,
}

impl Listening {
    pub(super) fn new(node: &Arc<Inner>, topic: &Topic, share: Option<Share>) -> Self {
        Self { node: Arc::clone(node), entry: node.hub.join(topic), _share: share.map(Box::new) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.node.hub.leave(&self.entry);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The session pulls what comes after this place.
    CatchingUp { after: Position },
    /// The hub pushes, in this lane of the topic.
    Live { lane: LaneIndex },
}
