//! Telling where the slot ends with the stream: what a history does not take then cannot be read
//! again, so it is a gap, told before anything newer on its topic.
//!
//! Tables owe it in [`tables`](super::super::tables), and topics that SQL speaks on owe it here.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tidewire::history::Mark;
use tidewire_protocol::{Draft, GapReason, Topic, TopicKind};

use super::resuming::PASSING;
use super::{Reader, SPOKEN};

impl Reader {
    /// Publishes, after the gaps that are owed.
    pub(super) async fn publish_alone(&mut self, mut drafts: Vec<Draft>) {
        self.pay_spoken().await;
        self.remember_passing(&drafts).await;
        let mut silent: HashSet<Topic> =
            runs(&drafts).into_iter().map(|(topic, _)| topic).collect();
        silent.retain(|topic| self.is_silent(topic));
        if !silent.is_empty() {
            drafts.retain(|draft| !silent.contains(&draft.topic));
        }
        if drafts.is_empty() {
            return;
        }
        let runs = runs(&drafts);
        let mut outcomes = self.shared.publisher.publish(drafts).await.into_iter();
        let mut failed: HashMap<&Topic, tidewire::Error> = HashMap::new();
        for (topic, count) in &runs {
            if topic.kind() != TopicKind::Table && self.spoken.len() < SPOKEN {
                self.spoken.insert(topic.clone());
            }
            for error in outcomes.by_ref().take(*count).filter_map(Result::err) {
                self.shared.metrics.failures.inc();
                failed.insert(topic, error);
            }
        }
        for (topic, error) in failed {
            if let Some(unsaid) = self.complaints.due() {
                tracing::warn!(%topic, error = &error as &dyn std::error::Error, unsaid,
                    "what PostgreSQL's log says could not be published");
            }
            match topic.kind() {
                TopicKind::Table => self.shared.tables().owe(topic, GapReason::ConnectionLost),
                _ => self.owe(topic),
            }
        }
    }

    /// Whether a gap has to be told on the topic first, or nobody listens to the table any more.
    fn is_silent(&self, topic: &Topic) -> bool {
        match topic.kind() {
            TopicKind::Table => !self.shared.tables().is_flowing(topic),
            _ => self.indebted.contains(topic),
        }
    }

    /// As many as are remembered owe a gap.
    fn owe(&mut self, topic: &Topic) {
        if self.indebted.len() < SPOKEN {
            self.indebted.insert(topic.clone());
        }
    }

    async fn pay_spoken(&mut self) {
        for topic in self.indebted.iter().cloned().collect::<Vec<_>>() {
            if !self.shared.interrupt(&topic, GapReason::ConnectionLost, Vec::new()).await {
                // The others would not fare better.
                return;
            }
            self.indebted.remove(&topic);
        }
    }

    /// Has a history that outlives the process remember topics that SQL speaks on, before anything
    /// is told on them. What it does not remember stays silent and is tried again.
    async fn remember_passing(&mut self, drafts: &[Draft]) {
        if !self.shared.publisher.keeps_marks() {
            return;
        }
        let new: HashSet<Topic> = self.newly_spoken(drafts);
        let mark = |topic: &Topic| Mark {
            source: format!("{PASSING}{}", topic.name()).into(),
            place: Bytes::from_static(b"1"),
        };
        let marks: Vec<Mark> = new.iter().map(mark).collect();
        if !marks.is_empty()
            && let Err(error) = self.shared.publisher.publish_marked(Vec::new(), marks).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "topics that SQL speaks on could not be remembered"
            );
            self.shared.metrics.failures.inc();
            new.iter().for_each(|topic| self.owe(topic));
        }
    }
}

/// The topics of drafts in order, each with how many follow one another on it: rows mostly come in
/// long runs, and what is asked of a topic is asked once for each.
pub(super) fn runs(drafts: &[Draft]) -> Vec<(Topic, usize)> {
    let runs = drafts.chunk_by(|one, next| one.topic == next.topic);
    runs.map(|run| (run[0].topic.clone(), run.len())).collect()
}
