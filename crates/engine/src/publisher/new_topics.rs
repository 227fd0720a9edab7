//! How many new topics one principal brings into being.
//!
//! Each topic is remembered for a while, and there are so many at most for all. Whether a topic is
//! new shows in the position of its first event, so that a publication on one that exists costs
//! nothing more; only a principal that made too many has the history asked first.

use tidewire_protocol::{Position, Refusal, Topic};

use super::{Inner, unavailable};
use crate::budget::{self, Budget, Principal, Rate, Rates};
use crate::limits::Limits;

/// The new topics of each principal.
#[derive(Default)]
pub(super) struct NewTopics(Rates);

impl NewTopics {
    /// Refuses a publication that would make another topic, where there were too many.
    ///
    /// # Errors
    /// `OverBudget`, and `Unavailable` when the history cannot be asked.
    pub(super) async fn admit(
        &self,
        topic: &Topic,
        principal: &Principal,
        inner: &Inner,
    ) -> Result<(), Refusal> {
        if *principal == Principal::Local || self.0.has_room(principal, rate(&inner.limits.load()))
        {
            return Ok(());
        }
        let head = inner.history.head(topic).await.map_err(|error| unavailable(&error))?;
        if head.seq > 0 {
            return Ok(());
        }
        let message = "too many new topics, use those that exist, or try again later";
        Err(budget::refusal(Budget::NewTopics, principal, &inner.metrics, message))
    }

    /// Counts a topic of which this is the first event.
    pub(super) fn note(&self, position: Position, principal: &Principal, inner: &Inner) {
        if position.seq == 1 && *principal != Principal::Local {
            self.0.take(principal, 1, rate(&inner.limits.load()));
        }
    }
}

fn rate(limits: &Limits) -> Rate {
    let budgets = &limits.budgets;
    Rate { per_second: budgets.new_topics_per_second, burst: budgets.new_topic_burst }
}
