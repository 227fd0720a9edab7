//! Telling where the history outlives the process: what it takes, it takes together with how far the
//! outbox was told, so that nothing is told twice and nothing is left out, however the process ends.
//!
//! What the history does not take is read again: every error here ends reading, which begins behind
//! what the history holds. So nothing is ever owed here but the gap that a table begins with.

use std::collections::HashSet;

use tidewire::Error;
use tidewire::error::Kind;
use tidewire::history::Mark;
use tidewire_protocol::{Draft, GapReason, Topic, TopicKind};

use super::{Teller, VOICES};
use crate::outbox::marks::{self, Remembered, Told};
use crate::outbox::place::Place;
use crate::outbox::shared::Owed;

/// Topics of messages that are remembered over restarts; each segment of a history on disk repeats
/// all of them.
const LASTING_VOICES: usize = 2_000;

/// Tables that are remembered over restarts, for the same reason. Of more, those that were listened
/// to last begin with a gap after a restart.
const LASTING_TABLES: usize = 1_500;

impl Teller {
    /// Reading begins with this history.
    pub(in crate::outbox) fn recall(&mut self, remembered: &Remembered) {
        let tables = remembered.tables.iter().map(|(topic, told)| (topic.clone(), told.clone()));
        self.flowing.extend(tables);
        self.lasting.clone_from(&remembered.voices);
        let room = VOICES.saturating_sub(self.voices.len());
        self.voices.extend(remembered.voices.iter().take(room).cloned());
    }

    /// Whether anybody may wait for what comes after a place.
    pub(in crate::outbox) fn has_told(&self) -> bool {
        !self.flowing.is_empty() || !self.voices.is_empty()
    }

    /// Keeps the place alone.
    ///
    /// # Errors
    /// As [`Teller::flush`].
    pub(in crate::outbox) async fn keep(&self, place: &Place) -> Result<(), Error> {
        let marks = vec![marks::place(place)];
        self.publisher.publish_marked(Vec::new(), marks).await.map(drop)
    }

    pub(super) async fn publish_kept(
        &mut self,
        drafts: Vec<Draft>,
        place: &Place,
    ) -> Result<(), Error> {
        let topics: HashSet<Topic> = drafts.iter().map(|draft| draft.topic.clone()).collect();
        let spoken = self.newly_spoken(&topics);
        let mut marks = vec![marks::place(place)];
        marks.extend(spoken.iter().map(marks::voice));
        let mut published = self.publisher.publish_marked(drafts, marks.clone()).await;
        if let Err(error) = &published
            && error.kind() == Kind::Refused
        {
            // To read it again would not make it smaller.
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "changes are more at once than the history takes, so their topics have a gap"
            );
            let gap = |topic| Draft::gap(topic, GapReason::HistoryTrimmed);
            let gaps = topics.into_iter().map(gap).collect();
            published = self.publisher.publish_marked(gaps, marks).await;
        }
        published?;
        self.lasting.extend(spoken);
        Ok(())
    }

    fn newly_spoken(&self, topics: &HashSet<Topic>) -> Vec<Topic> {
        let room = LASTING_VOICES.saturating_sub(self.lasting.len());
        let spoken = topics.iter().filter(|topic| topic.kind() != TopicKind::Table);
        spoken.filter(|topic| !self.lasting.contains(topic)).take(room).cloned().collect()
    }

    /// All gaps at once, with the place: after a restart a table that is told from there must not be
    /// told what was before its gap.
    pub(super) async fn pay_kept(
        &mut self,
        debts: Vec<(Owed, Option<Told>)>,
        place: &Place,
    ) -> Result<(), Error> {
        let mut room = LASTING_TABLES.saturating_sub(self.flowing.len());
        let mut drafts = Vec::with_capacity(debts.len());
        let mut marks = vec![marks::place(place)];
        for (Owed { topic, reason, .. }, told) in &debts {
            drafts.push(Draft::gap(topic.clone(), *reason));
            let has_room = self.flowing.contains_key(topic) || room > 0;
            room = room.saturating_sub(1);
            marks.push(marks::table(topic, told.as_ref().filter(|_| has_room)));
        }
        self.publisher.publish_marked(drafts, marks).await?;
        debts.into_iter().for_each(|(owed, told)| self.paid(owed, told));
        Ok(())
    }

    /// Tables are not told any more from here on.
    pub(super) async fn forget_kept(&self, topics: &[Topic]) -> Result<(), Error> {
        if !self.publisher.keeps_marks() {
            return Ok(());
        }
        let marks = topics.iter().map(|topic| marks::table(topic, None)).collect();
        self.publisher.publish_marked(Vec::new(), marks).await.map(drop)
    }

    /// Everything up to a place was lost: all that was being told has a gap, at once and with the
    /// place, or a restart would forget those that had not been told.
    pub(super) async fn lose_kept(
        &mut self,
        reason: GapReason,
        place: &Place,
    ) -> Result<(), Error> {
        let topics = self.flowing.keys().chain(self.voices.union(&self.lasting));
        let drafts = topics.map(|topic| Draft::gap(topic.clone(), reason)).collect();
        let mut marks: Vec<Mark> = vec![marks::place(place)];
        marks.extend(self.lasting.iter().map(marks::no_voice));
        self.publisher.publish_marked(drafts, marks).await?;
        self.shared.metrics.interruptions.inc();
        self.voices.clear();
        self.lasting.clear();
        Ok(())
    }
}
