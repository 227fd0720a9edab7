//! Telling where the history ends with the process: what it does not take cannot be read again, so it
//! is a gap, told before anything newer on its topic.

use tidewire_protocol::{Draft, GapReason, Topic, TopicKind};

use super::{Teller, VOICES};
use crate::outbox::marks::Told;
use crate::outbox::shared::Owed;

impl Teller {
    pub(super) async fn publish_alone(&mut self, mut drafts: Vec<Draft>) {
        drafts.retain(|draft| !self.silent.contains(&draft.topic));
        let topics: Vec<Topic> = drafts.iter().map(|draft| draft.topic.clone()).collect();
        let outcomes = self.publisher.publish(drafts).await;
        for (topic, outcome) in topics.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                if let Some(unsaid) = self.complaints.due() {
                    tracing::warn!(%topic, error = &error as &dyn std::error::Error, unsaid,
                        "a change could not be published");
                }
                self.owe(topic, GapReason::ConnectionLost);
            }
        }
    }

    /// A round begins: topics of messages are told the gaps that they owe, or stay silent.
    pub(in crate::outbox) async fn begin_round(&mut self) {
        self.silent.clear();
        for (topic, reason) in std::mem::take(&mut self.indebted) {
            // Once one failed, the others would not fare better.
            if !self.silent.is_empty() || !self.gap(&topic, reason).await {
                self.owe(topic, reason);
            }
        }
    }

    /// Something of the topic was lost, so it is silent until a gap was told there.
    fn owe(&mut self, topic: Topic, reason: GapReason) {
        match topic.kind() {
            TopicKind::Table => self.shared.owe(&topic, reason),
            _ if self.indebted.len() < VOICES => {
                self.indebted.entry(topic.clone()).or_insert(reason);
            }
            _ => {}
        }
        self.silent.insert(topic);
    }

    /// Tells gaps of tables. One that cannot be told stays owed, and its table silent.
    pub(super) async fn pay_alone(&mut self, debts: Vec<(Owed, Option<Told>)>) {
        for (owed, told) in debts {
            if self.gap(&owed.topic, owed.reason).await {
                self.paid(owed, told);
            }
        }
    }

    /// Tells a gap; gives whether it was told.
    async fn gap(&self, topic: &Topic, reason: GapReason) -> bool {
        match self.publisher.interrupt(topic, reason).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%topic, %reason, error = &error as &dyn std::error::Error,
                    "a gap could not be told, so the table stays silent until it can");
                false
            }
        }
    }

    /// Everything after a place was lost: tables owe a gap, and topics of messages are told it.
    pub(super) async fn lose_alone(&mut self, reason: GapReason) {
        self.shared.owe_all(reason);
        for topic in std::mem::take(&mut self.voices) {
            if !self.gap(&topic, reason).await {
                self.owe(topic, reason);
            }
        }
    }
}
