//! Judging a client again: after it has shown another token, and after keys or rules have changed.
//!
//! What the client is not allowed any more ends, each with a message of its own; all else goes on
//! without a gap.

use std::sync::Arc;

use tidewire_protocol::filter::Filter;
use tidewire_protocol::{Close, Code, Refusal, Topic, TopicKind};

use super::Session;
use crate::auth::{Action, Allowed, Identity};

impl Session {
    /// Judges the client again if that was asked for. Cancel safe: what was not finished is begun
    /// again the next time.
    pub(super) async fn review(&mut self) {
        let asked = self.mailbox.reviews();
        if asked != self.reviewed {
            // Rarely so, and what it needs is held only then.
            Box::pin(self.review_now(asked)).await;
        }
    }

    async fn review_now(&mut self, asked: u32) {
        match self.node.judge_again(&self.identity) {
            Ok(identity) => {
                // Who showed no token has as long to show one as before.
                if identity.has_token() {
                    self.become_identity(identity);
                }
                self.end_forbidden().await;
                self.reviewed = asked;
            }
            Err(refusal) => {
                tracing::debug!(session = %self.id, refusal = refusal.message, "revoked");
                self.mailbox.close(Close::Revoked);
            }
        }
    }

    /// Takes on an identity, and takes back what was done as somebody else.
    pub(super) async fn become_somebody(&mut self, identity: Identity) {
        let is_another = identity.subject != self.identity.subject;
        self.become_identity(identity);
        if is_another {
            for (topic, _) in self.tracked.clone() {
                self.untrack(&topic).await;
            }
        }
        self.end_forbidden().await;
    }

    /// Ends what the client is not allowed any more.
    async fn end_forbidden(&mut self) {
        let held = self.subscriptions.iter();
        let held = held.filter(|held| held.entry().topic.kind() != TopicKind::Presence);
        let held = held.map(|held| (held.key, held.topic(), held.presence, held.limit()));
        for (key, topic, presence, limit) in held.collect::<Vec<_>>() {
            if let Err(refusal) = self.may_keep(&topic, presence, limit.as_ref()).await
                && let Some(place) = self.subscriptions.iter().position(|held| held.key == key)
            {
                self.end(place, refusal);
            }
        }
        for (topic, _) in self.tracked.clone() {
            if self.may(Action::Track, &topic).await.is_err() {
                self.untrack(&topic).await;
            }
        }
        self.refuse_forbidden().await;
    }

    /// What may be heard of a topic.
    ///
    /// Who asks for presence and may not see it is refused the whole subscription.
    pub(super) async fn may_listen(
        &self,
        topic: &Topic,
        presence: bool,
    ) -> Result<Allowed, Refusal> {
        let allowed = self.may(Action::Subscribe, topic).await?;
        if presence {
            self.may(Action::Presence, topic).await?;
        }
        Ok(allowed)
    }

    /// Whether a subscription may go on that is limited to these rows.
    pub(super) async fn may_keep(
        &self,
        topic: &Topic,
        presence: bool,
        limit: Option<&Arc<Filter>>,
    ) -> Result<(), Refusal> {
        let allowed = self.may_listen(topic, presence).await?;
        if allowed.rows.as_ref() == limit {
            return Ok(());
        }
        let message = "other rows of this table may be shown to you now: subscribe again";
        Err(Refusal::new(Code::Forbidden, message))
    }
}
