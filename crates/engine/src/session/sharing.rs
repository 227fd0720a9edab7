//! Subscriptions of one client to the same topic that share one listener.
//!
//! A client may ask for parts of a table that overlap, each part by a key of its own. It hears
//! them as one: a listener wants what any of its wishes wants, and so a change comes once. When a
//! wish comes or goes, the listener leaves the live topic and joins it again where it was.

use std::sync::Arc;

use tidewire_protocol::{
    Answer, Code, Event, Interest, Outcome, Position, Refusal, Since, Subscription, Topic,
    TopicKind,
};

use super::beginning::Beginning;
use super::commands::subscribed;
use super::{Phase, Session, Subscribed};
use crate::hub::wanted;
use crate::upstream::Prepared;

/// One of the things that a listener was asked for.
pub(super) struct Wish {
    /// The client's key.
    pub(super) name: Arc<str>,
    /// What of a table was asked for.
    pub(super) interest: Interest,
    /// The same made ready; `None` for everything.
    pub(super) wants: Option<Arc<Prepared>>,
}

impl Wish {
    /// A wish with a key; `None` without one.
    pub(super) fn named(asked: &Subscription, wants: Option<&Arc<Prepared>>) -> Option<Self> {
        let (name, interest) = (asked.key.clone()?, asked.interest.clone());
        Some(Self { name, interest, wants: wants.cloned() })
    }

    /// Why it cannot be applied to these events, if it cannot.
    fn unfit(&self, events: &[Arc<Event>]) -> Option<String> {
        wanted(self.wants.as_deref(), events.iter()).err()
    }
}

impl Subscribed {
    /// The wish with this name.
    pub(super) fn wish(&self, name: &Arc<str>) -> Option<&Wish> {
        self.wishes().iter().find(|wish| wish.name == *name)
    }
}

impl Session {
    /// The listener that takes the wish as one more: it tells the same in the same way, from now
    /// on and without rows that come first.
    pub(super) fn shareable(&self, wish: &Subscription, done: &Beginning) -> Option<usize> {
        let plain = wish.key.is_some() && wish.since == Since::Now;
        if !plain || wish.snapshot || wish.presence {
            return None;
        }
        let columns = |wants: Option<&Arc<Prepared>>| wants.and_then(|wants| wants.columns.clone());
        let known = self.place_of(&wish.topic, wish.key.as_ref());
        let mut places = self.subscriptions.places_of(&wish.topic);
        places.find(|&place| {
            let held = &self.subscriptions[place];
            known.is_none_or(|known| known == place)
                && !held.wishes().is_empty()
                && held.tag == wish.tag
                && !held.presence
                && held.rows().is_none()
                && columns(held.wants()) == columns(done.wants.as_ref())
        })
    }

    /// Adds a wish to the listener, or puts it in the place of the one with the same name.
    pub(super) fn widen(
        &mut self,
        place: usize,
        asked: Subscription,
        wants: Option<&Arc<Prepared>>,
    ) {
        let after = self.step_back(place);
        let more = self.subscriptions.change_wishes(place, |wishes| {
            wishes.retain(|wish| Some(&wish.name) != asked.key.as_ref());
            wishes.extend(Wish::named(&asked, wants));
        });
        self.node.metrics.subscriptions.inc_by(more);
        self.say(&subscribed(asked, after, Outcome::Fresh, None));
        self.try_to_go_live(place, after);
    }

    /// Takes back what was asked for by this name, if anything was, and ends the listener with its
    /// last wish; gives where that one was.
    pub(super) fn withdraw(&mut self, topic: &Topic, name: Option<&Arc<str>>) -> Option<Phase> {
        let place = self.place_of(topic, name)?;
        if self.subscriptions[place].count() == 1 {
            return Some(self.remove_with_presence(place).phase());
        }
        let after = self.step_back(place);
        self.drop_wishes(place, |wish| Some(&wish.name) == name);
        self.try_to_go_live(place, after);
        Some(self.subscriptions[place].phase())
    }

    /// Ends those wishes that cannot be applied to the events, because the table was altered, and
    /// says why; the listener goes on with the others and meets the events again.
    pub(super) fn end_unfit(&mut self, place: usize, events: &[Arc<Event>], why: String) {
        let held = &self.subscriptions[place];
        let reasons: Vec<_> = held.wishes().iter().filter_map(|wish| wish.unfit(events)).collect();
        if reasons.len() == held.wishes().len() {
            return self.end(place, Refusal::new(Code::BadField, why));
        }
        let (topic, tag) = (held.topic(), held.tag.clone());
        self.drop_wishes(place, |wish| wish.unfit(events).is_some());
        for why in reasons {
            let (topic, tag) = (topic.clone(), tag.clone());
            let refusal = Refusal::new(Code::BadField, why);
            self.say(&Answer::Ended { topic, tag, refusal });
        }
    }

    /// Some of the wishes end, but not all.
    fn drop_wishes(&mut self, place: usize, mut ends: impl FnMut(&Wish) -> bool) {
        let ended = |wishes: &mut Vec<Wish>| wishes.retain(|wish| !ends(wish));
        let more = self.subscriptions.change_wishes(place, ended);
        if self.subscriptions[place].entry().topic.kind() != TopicKind::Presence {
            self.node.metrics.subscriptions.inc_by(more);
        }
    }

    /// Takes the listener off the live topic; gives the place after which it goes on.
    fn step_back(&mut self, place: usize) -> Position {
        let held = &self.subscriptions[place];
        if let Phase::Live { lane } = held.phase() {
            match held.entry().lanes.leave(lane, self.id, held.key) {
                Some(after) => self.subscriptions.set_phase(place, Phase::CatchingUp { after }),
                None => self.note_fallen(),
            }
        }
        match self.subscriptions[place].phase() {
            Phase::CatchingUp { after } => after,
            Phase::Live { .. } => {
                unreachable!("who is live is on its topic, or was told where it fell")
            }
        }
    }
}
