//! Wishes that wait for what they need.
//!
//! What is asked for the same subscription is carried out in the order in which it was asked, so
//! that a wish that turns out to be refused has changed nothing, and each is answered by what came
//! of it. A later one begins when the earlier one is answered; others wait side by side. A wish
//! that is taken back while it waits is answered as what took it back is.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tidewire_protocol::{Answer, Refusal, Subscription, Topic};
use tokio_util::sync::ReusableBoxFuture;

use super::Session;
use super::beginning::Beginning;
use crate::budget::Principal;
use crate::node::Inner;

/// A wish that is on its way.
pub(super) struct Pending {
    pub(super) wish: Subscription,
    /// Another for the same subscription was asked for earlier.
    is_behind: bool,
    work: ReusableBoxFuture<'static, Result<Beginning, Refusal>>,
}

impl Pending {
    pub(super) fn new(node: &Arc<Inner>, wish: Subscription, principal: Principal) -> Self {
        let (node, asked) = (Arc::clone(node), wish.clone());
        let work = ReusableBoxFuture::new(async move { node.beginning(&asked, &principal).await });
        Self { wish, is_behind: false, work }
    }

    /// Waits until the wish can be carried out, or not. Cancel safe.
    pub(super) async fn done(&mut self) -> Result<Beginning, Refusal> {
        poll_fn(|context| self.work.poll(context)).await
    }

    /// What came of it, if that is known without waiting.
    pub(super) async fn done_already(&mut self) -> Option<Result<Beginning, Refusal>> {
        poll_fn(|context| match self.work.poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn is_for(&self, topic: &Topic, name: Option<&Arc<str>>) -> bool {
        self.wish.topic == *topic && self.wish.key.as_ref() == name
    }
}

/// Waits for the first of several wishes whose turn it is; gives its place. Cancel safe, and never
/// ends when there is none.
pub(super) async fn first_done(pending: &mut [Pending]) -> (usize, Result<Beginning, Refusal>) {
    poll_fn(|context| {
        for (place, pending) in pending.iter_mut().enumerate() {
            if !pending.is_behind
                && let Poll::Ready(done) = pending.work.poll(context)
            {
                return Poll::Ready((place, done));
            }
        }
        Poll::Pending
    })
    .await
}

impl Session {
    /// Whether anything that was asked for the same subscription still waits.
    pub(super) fn is_awaited(&self, topic: &Topic, name: Option<&Arc<str>>) -> bool {
        self.pending.iter().any(|held| held.is_for(topic, name))
    }

    /// Carries the wish out at once if it can be, or else when it can be.
    pub(super) async fn carry_out_later(&mut self, mut pending: Pending) -> Result<(), Refusal> {
        pending.is_behind = self.is_awaited(&pending.wish.topic, pending.wish.key.as_ref());
        if !pending.is_behind
            && let Some(done) = pending.done_already().await
        {
            return self.carry_out_wish(pending.wish, done);
        }
        self.pending.push(pending);
        Ok(())
    }

    /// Answers a wish that had to wait.
    pub(super) fn settle(&mut self, place: usize, done: Result<Beginning, Refusal>) {
        let wish = self.take_pending(place);
        let (topic, reference) = (wish.topic.clone(), wish.reference.clone());
        if let Err(refusal) = self.carry_out_wish(wish, done) {
            self.refuse(refusal.about(&topic).to(reference));
        }
    }

    /// It is the turn of the next for the same subscription.
    fn take_pending(&mut self, place: usize) -> Subscription {
        let Pending { wish, .. } = self.pending.remove(place);
        let mut rest = self.pending.iter_mut();
        if let Some(next) = rest.find(|held| held.is_for(&wish.topic, wish.key.as_ref())) {
            next.is_behind = false;
        }
        wish
    }

    /// Takes back what waits for the topic by this name, or without one by whatever name.
    ///
    /// Nobody did anything wrong, so it is no error: each is told that it is not subscribed.
    pub(super) fn take_back(&mut self, topic: &Topic, name: Option<&Arc<str>>) {
        let taken = |held: &mut Pending| {
            held.wish.topic == *topic && (name.is_none() || held.wish.key.as_ref() == name)
        };
        let taken: Vec<_> = self.pending.extract_if(.., taken).map(|held| held.wish).collect();
        for Subscription { topic, tag, reference, .. } in taken {
            self.say(&Answer::Unsubscribed { topic, tag, reference });
        }
    }

    /// Refuses what waits and is not allowed any more.
    pub(super) async fn refuse_forbidden(&mut self) {
        let mut place = 0;
        while let Some(held) = self.pending.get(place) {
            let (topic, presence) = (held.wish.topic.clone(), held.wish.presence);
            let limit = held.wish.interest.limit.clone();
            match self.may_keep(&topic, presence, limit.as_ref()).await {
                Ok(()) => place += 1,
                Err(refusal) => {
                    let reference = self.take_pending(place).reference;
                    self.refuse(refusal.about(&topic).to(reference));
                }
            }
        }
    }
}
