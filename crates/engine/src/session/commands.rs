//! What a client asks, carried out.

use std::sync::Arc;

use tidewire_protocol::presence::Member;
use tidewire_protocol::{
    Answer, Code, Command, Outcome, Position, Publication, Reference, Refusal, Since, Subscription,
    Tag, Topic, TopicKind,
};

use super::beginning::{Beginning, PresenceStart, Start};
use super::sharing::Wish;
use super::subscribed::{Listening, Particulars, Phase, Subscribed};
use super::waiting::Pending;
use super::{Patience, Session};
use crate::auth::{Action, Allowed, Identity};
use crate::budget::Principal;
use crate::hub::LaneIndex;
use crate::mailbox::SubscriptionKey;
use crate::node::Place;

impl Session {
    /// Acts on one command; what the client is told is queued.
    ///
    /// Not cancel safe: a command that is dropped halfway may or may not be carried out.
    ///
    /// # Errors
    /// A refusal, which is not queued: the caller says it in its own way.
    pub async fn perform(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Subscribe(wish) => {
                let (topic, reference) = (wish.topic.clone(), wish.reference.clone());
                let done = self.subscribe(wish).await;
                done.map_err(|refusal| refusal.about(&topic).to(reference))
            }
            Command::Unsubscribe { topic, key, reference } => {
                self.unsubscribe(topic, key.as_ref(), reference);
                Ok(())
            }
            Command::Publish(publication) => self.publish(publication).await,
            Command::Track { topic, key, meta, reference } => {
                let done = self.track(&topic, key, meta, reference.clone()).await;
                done.map_err(|refusal| refusal.about(&topic).to(reference))
            }
            Command::Untrack { topic, reference } => {
                self.untrack(&topic).await;
                self.say(&Answer::Untracked { topic, reference });
                Ok(())
            }
            Command::Authenticate { token, reference } => self.identify(token, reference).await,
            Command::Ping { reference } => {
                self.say(&Answer::Pong { reference });
                Ok(())
            }
        }
    }

    async fn subscribe(&mut self, mut wish: Subscription) -> Result<(), Refusal> {
        if wish.implied && self.place_of(&wish.topic, wish.key.as_ref()).is_some() {
            return Ok(());
        }
        let allowed = self.may_listen(&wish.topic, wish.presence).await?;
        wish.interest.limit = allowed.rows;
        let (topic, name) = (&wish.topic, wish.key.as_ref());
        // One that replaces what is in force needs no room, but others behind it would.
        if self.place_of(topic, name).is_none() || self.is_awaited(topic, name) {
            self.check_room()?;
        }
        // Only what has a source outside may take long; all else is answered in order.
        let has_source = matches!(wish.topic.kind(), TopicKind::Notify | TopicKind::Table);
        let mut pending = Pending::new(&self.node, wish, self.principal());
        if self.patience == Patience::Later && has_source {
            return self.carry_out_later(pending).await;
        }
        let done = pending.done().await;
        self.carry_out_wish(pending.wish, done)
    }

    pub(super) fn carry_out_wish(
        &mut self,
        wish: Subscription,
        done: Result<Beginning, Refusal>,
    ) -> Result<(), Refusal> {
        let done = done?;
        if self.repeats(&wish) {
            self.answer_again(wish, done.presence.map(|start| start.members));
            return Ok(());
        }
        if let Some(place) = self.shareable(&wish, &done) {
            self.widen(place, wish, done.wants.as_ref());
            return Ok(());
        }
        let Beginning { listening, wants, start, rows, presence } = done;
        // Only now is one that is in force replaced: a refused request changes nothing.
        let replaced = self.withdraw(&wish.topic, wish.key.as_ref());
        let start = start.or_else(|| go_on(replaced?));
        let wishes = Wish::named(&wish, wants.as_ref()).into_iter().collect();
        let interest = wish.interest.clone();
        let particulars = Particulars { wishes, interest, wants, rows, ..Particulars::default() };
        self.begin(listening, wish, start, presence, particulars);
        Ok(())
    }

    /// Whether the same wish is in force: then nothing changes, and nothing can be missed. Its
    /// source was asked all the same, since it may have lost the topic.
    fn repeats(&self, wish: &Subscription) -> bool {
        let place = self.place_of(&wish.topic, wish.key.as_ref());
        let held = place.map(|place| &self.subscriptions[place]);
        wish.since == Since::Now && held.is_some_and(|held| held.asks_the_same(wish))
    }

    fn answer_again(&mut self, wish: Subscription, members: Option<Vec<Member>>) {
        let place = self.place_of(&wish.topic, wish.key.as_ref());
        let place = place.expect("the subscription was found above");
        let position = match self.subscriptions[place].phase() {
            Phase::CatchingUp { after } => after,
            Phase::Live { lane } => self.live_position(place, lane),
        };
        self.say(&subscribed(wish, position, Outcome::Fresh, members));
    }

    fn live_position(&self, place: usize, lane: LaneIndex) -> Position {
        let at = self.subscriptions[place].entry().lanes.at(lane);
        at.expect("a topic with listeners is placed")
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let limit = self.node.limits.load().subscriptions;
        if self.pending.len() + self.subscriptions.count() < limit {
            return Ok(());
        }
        let message = format!("a connection has at most {limit} subscriptions");
        Err(Refusal::new(Code::TooManySubscriptions, message))
    }

    /// Answers and begins; nothing is waited for, so no event can come before the answer.
    fn begin(
        &mut self,
        listening: Listening,
        wish: Subscription,
        start: Option<Start>,
        presence: Option<PresenceStart>,
        particulars: Particulars,
    ) {
        let tag = wish.tag.clone();
        let (presence, members) = match presence {
            Some(start) => (Some((start.listening, start.after)), Some(start.members)),
            None => (None, None),
        };
        self.node.metrics.subscriptions.inc();
        let index = self.hold(listening, tag.clone(), wish.presence);
        if wish.key.is_some() || !wish.interest.is_everything() || wish.snapshot {
            self.subscriptions[index].particulars = Some(Box::new(particulars));
        }
        match start {
            Some(start) => self.begin_behind(index, wish, &start, members),
            None => self.begin_live(index, wish, members),
        }
        if let Some((listening, after)) = presence
            && self.subscriptions.len() > index
        {
            let index = self.hold(listening, tag, false);
            self.subscriptions.set_phase(index, Phase::CatchingUp { after });
            self.try_to_go_live(index, after);
        }
    }

    fn hold(&mut self, listening: Listening, tag: Option<Tag>, presence: bool) -> usize {
        let key = SubscriptionKey(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        self.subscriptions.push(Subscribed::new(key, listening, tag, presence))
    }

    fn begin_live(&mut self, index: usize, wish: Subscription, members: Option<Vec<Member>>) {
        let held = &self.subscriptions[index];
        let (form, member) = (self.form_of(held), self.member(held));
        let lane = held.entry().lanes.go_live_now(member, &form, |position| {
            self.say(&subscribed(wish, position, Outcome::Fresh, members));
        });
        let lane = lane.expect("a topic with listeners is placed");
        self.subscriptions.set_phase(index, Phase::Live { lane });
        self.watch(index);
    }

    fn begin_behind(
        &mut self,
        index: usize,
        wish: Subscription,
        start: &Start,
        members: Option<Vec<Member>>,
    ) {
        // With rows, what is replayed is part of the snapshot, which is complete at the head.
        let told = self.subscriptions[index].rows().map_or(start.position, |rows| rows.head);
        let answer = subscribed(wish, told, start.outcome, members);
        match self.subscriptions[index].rows() {
            // A stream that breaks in the middle of a snapshot must begin with it again.
            Some(_) => self.say_as(&answer, None),
            None => self.say(&answer),
        }
        self.subscriptions.set_phase(index, Phase::CatchingUp { after: start.position });
        if self.has_room() {
            self.hand_over(index, &start.events);
        }
        // It is the newest, so nothing is in its place if what was handed over has ended it.
        if let Some(held) = self.subscriptions.get(index)
            && let Phase::CatchingUp { after } = held.phase()
        {
            self.try_to_go_live(index, after);
        }
    }

    fn unsubscribe(&mut self, topic: Topic, name: Option<&Arc<str>>, reference: Option<Reference>) {
        let place = match name {
            Some(_) => self.place_of(&topic, name),
            None => self.any_place_of(&topic),
        };
        let tag = place.and_then(|place| self.subscriptions[place].tag.clone());
        self.take_back(&topic, name);
        match name {
            Some(_) => drop(self.withdraw(&topic, name)),
            None => self.leave_topic(&topic),
        }
        self.say(&Answer::Unsubscribed { topic, tag, reference });
    }

    /// Ends all that is in force of the topic, by whatever key.
    fn leave_topic(&mut self, topic: &Topic) {
        while let Some(place) = self.any_place_of(topic) {
            self.remove_with_presence(place);
        }
    }

    pub(super) fn remove_with_presence(&mut self, place: usize) -> Subscribed {
        let removed = self.remove(place);
        if removed.presence
            && let Some(place) = self.place_of(&removed.topic().presence(), None)
        {
            self.remove(place);
        }
        removed
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), Refusal> {
        let (topic, reference) = (&publication.topic, publication.reference.clone());
        let allowed = self.may(Action::Publish, topic).await;
        allowed.map_err(|refusal| refusal.about(topic).to(reference))?;
        self.publish_allowed(publication).await
    }

    /// Takes on the identity of a token and ends what it does not allow any more.
    ///
    /// # Errors
    /// `OverBudget` when its subject has as many connections as one may; nothing changes then.
    pub(super) async fn take_on(
        &mut self,
        identity: Identity,
        reference: Option<Reference>,
    ) -> Result<(), Refusal> {
        let taken = self.take_place_of(&identity);
        taken.map_err(|refusal| refusal.to(reference.clone()))?;
        let (subject, expires_at) = (identity.subject.clone(), identity.expires_at);
        self.say(&Answer::Authenticated { subject, expires_at, reference });
        self.become_somebody(identity).await;
        Ok(())
    }

    /// Whose budgets the session uses.
    pub(super) fn principal(&self) -> Principal {
        let held = self.node.sessions.with_place(self.id, |place| place.principal().clone());
        held.unwrap_or_else(|| Principal::of(&self.identity, None))
    }

    /// From now on the session counts as one of this identity's.
    fn take_place_of(&self, identity: &Identity) -> Result<(), Refusal> {
        let pass = |place: &mut Place| self.node.pass_place(place, identity);
        self.node.sessions.with_place(self.id, pass).unwrap_or(Ok(()))
    }

    /// Ends the subscription at `place` and says why.
    pub(super) fn end(&mut self, place: usize, refusal: Refusal) {
        let held = self.remove_with_presence(place);
        self.say(&Answer::Ended { topic: held.topic(), tag: held.tag.clone(), refusal });
    }

    pub(super) async fn may(&self, action: Action, topic: &Topic) -> Result<Allowed, Refusal> {
        self.node.authorizer.authorize(&self.identity, action, topic).await
    }
}

/// Where a subscription goes on that replaces another and names no place.
fn go_on(replaced: Phase) -> Option<Start> {
    match replaced {
        Phase::CatchingUp { after } => {
            Some(Start { position: after, outcome: Outcome::Fresh, events: Vec::new() })
        }
        Phase::Live { .. } => None,
    }
}

pub(super) fn subscribed(
    wish: Subscription,
    position: Position,
    outcome: Outcome,
    members: Option<Vec<Member>>,
) -> Answer {
    let Subscription { topic, tag, reference, .. } = wish;
    Answer::Subscribed { topic, position, outcome, members, tag, reference }
}
