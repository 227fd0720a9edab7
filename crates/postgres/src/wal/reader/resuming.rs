//! Beginning behind what the history holds, where it outlives the process; see
//! [`resume`](super::super::resume) for the rules.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tidewire::error::Kind;
use tidewire::history::Mark;
use tidewire_protocol::{Draft, GapReason, Topic, TopicKind};
use tokio::time::Instant;

use super::passing::runs;
use super::{Facts, Reader};
use crate::connect::replication::Line;
use crate::wal::error::{WalError, WalErrorKind};
use crate::wal::resume::{Told, failed};
use crate::wal::slot::Beginning;
use crate::wal::standing::Admitted;

/// The tables that were being told and are still published, as what they were told: whether they are
/// that still is for the log, and the next look, to say.
fn heirs(
    flowing: &HashMap<Topic, Bytes>,
    members: &HashMap<Topic, Admitted>,
) -> HashMap<Topic, Admitted> {
    let published = flowing.iter().filter(|(topic, _)| members.contains_key(topic));
    let heir =
        |(topic, place): (&Topic, &Bytes)| Some((topic.clone(), Admitted::take(topic, place)?));
    published.filter_map(heir).collect()
}

/// Topics that SQL spoke on which are remembered over restarts, to tell them when something may be
/// missing; each segment of a history on disk repeats all of them.
const SPOKEN: usize = 2_000;

/// What begins the marks of topics that SQL spoke on, where the slot does not stay.
pub(super) const PASSING: &str = "wal:/topic:";

impl Reader {
    /// How far the history is, if that is in the log of this server.
    pub(super) async fn told_before(
        &self,
        facts: &Facts,
        line: &mut Line,
    ) -> Result<Option<Told>, WalError> {
        let Some(mark) = self.marks.read(&self.shared.publisher).await? else { return Ok(None) };
        let (system, upto) = (&mark.system, mark.told.processed);
        let is_here = facts.has(system, mark.timeline, upto, line).await?;
        Ok(is_here.then_some(mark.told))
    }

    /// Whether the slot sends everything behind what was told. Where the history is of no help,
    /// the slot alone decides.
    pub(super) fn judge(&self, told: Option<Told>, beginning: &mut Beginning) -> Option<Told> {
        if !self.marks.are_kept() {
            return None;
        }
        let told = told.filter(|told| beginning.resumed && beginning.from <= told.processed);
        if beginning.resumed && told.is_none() {
            tracing::warn!(slot = beginning.slot, from = %beginning.from,
                "the history does not hold everything up to where the slot begins, so there is a \
                 gap between");
        }
        beginning.resumed = told.is_some();
        told
    }

    /// Takes over, at the first beginning, what flowed before; gives tables to be admitted again.
    pub(super) async fn take_over(
        &mut self,
        resumed: bool,
        members: &HashMap<Topic, Admitted>,
    ) -> Result<Vec<Topic>, WalError> {
        let first = self.facts.is_none();
        if first && !self.marks.are_kept() {
            self.recall_passing().await?;
        }
        let known = match first {
            true => self.marks.topics(&self.shared.publisher).await?,
            false => HashMap::new(),
        };
        let (flowing, spoken): (HashMap<Topic, Bytes>, HashMap<Topic, Bytes>) =
            known.into_iter().partition(|(topic, _)| topic.kind() == TopicKind::Table);
        self.spoken.extend(spoken.into_keys());
        // Without marks nobody can have kept a place from before, so what is published may flow.
        let heirs = match self.marks.are_kept() {
            true => heirs(&flowing, members),
            false => members.clone(),
        };
        if first && resumed {
            self.recall_partitions().await?;
        }
        let strangers = {
            let until = Instant::now() + self.options.linger;
            let mut tables = self.shared.tables();
            if first && resumed {
                tables.inherit(&heirs, until);
            }
            tables.connected(resumed, members);
            if first && !resumed && self.marks.are_kept() {
                let of_now = |topic: &Topic| Some((topic.clone(), members.get(topic)?.clone()));
                tables.inherit_debts(&heirs.keys().filter_map(of_now).collect(), until);
            }
            tables.strangers()
        };
        // Taken out of the publication while nobody was here to see it.
        for topic in flowing.keys().filter(|topic| !heirs.contains_key(topic)) {
            self.interrupt(topic).await?;
        }
        Ok(strangers)
    }

    /// Which partitions tables had when they were last looked at: what became of them since is for
    /// the keeper to find.
    async fn recall_partitions(&self) -> Result<(), WalError> {
        let layouts = self.marks.layouts(&self.shared.publisher).await?;
        let mut known = self.shared.partitions();
        layouts.into_iter().for_each(|(topic, layout)| known.set(&topic, layout));
        Ok(())
    }

    async fn interrupt(&self, topic: &Topic) -> Result<(), WalError> {
        let marks = self.shared.flows_no_more(topic);
        let publisher = &self.shared.publisher;
        publisher.interrupt_marked(topic, GapReason::ConnectionLost, marks).await.map_err(failed)
    }

    /// Tells the topics that SQL spoke on that something may be missing.
    pub(super) async fn interrupt_spoken(&mut self) -> Result<(), WalError> {
        for topic in self.spoken.iter().cloned().collect::<Vec<_>>() {
            self.interrupt(&topic).await?;
            self.spoken.remove(&topic);
            self.indebted.remove(&topic);
        }
        Ok(())
    }

    /// The process begins with a slot that does not stay. Where the history outlived the process
    /// before, messages may be missing on every topic that SQL spoke on.
    async fn recall_passing(&self) -> Result<(), WalError> {
        let publisher = &self.shared.publisher;
        for mark in publisher.marks(PASSING).await.map_err(failed)? {
            let name = mark.source.strip_prefix(PASSING).expect("it was asked for");
            let Ok(topic) = Topic::application(name) else { continue };
            let forget = vec![Mark { place: Bytes::new(), ..mark.clone() }];
            let reason = GapReason::ConnectionLost;
            publisher.interrupt_marked(&topic, reason, forget).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Where marks are kept, what follows must not be remembered before the gaps before it are.
    pub(super) fn nothing_is_owed(&self) -> Result<(), WalError> {
        if !self.marks.are_kept() || self.shared.tables().debtors().is_empty() {
            return Ok(());
        }
        let words = "the history does not take the gaps that are owed, so reading waits for it";
        Err(WalError::new(WalErrorKind::History, words))
    }

    /// From here on marks are of this log; after a gap, they begin here.
    pub(super) async fn begin_marks(
        &mut self,
        resumed: bool,
        facts: &Facts,
    ) -> Result<(), WalError> {
        let told = self.assembly.told();
        self.marks.begin(&facts.system, facts.timeline, told);
        match self.marks.are_kept() && !resumed {
            true => self.keep(Vec::new(), true).await,
            false => Ok(()),
        }
    }

    /// Publishes drafts together with how far they are. What the history does not take is read
    /// again: reading ends, and begins behind the newest mark.
    pub(super) async fn publish_marked(&mut self, drafts: Vec<Draft>) -> Result<(), WalError> {
        let brings = !drafts.is_empty();
        self.keep(drafts, brings).await
    }

    async fn keep(&mut self, drafts: Vec<Draft>, at_once: bool) -> Result<(), WalError> {
        self.shared.tell_stops().await;
        let told = self.assembly.told();
        let Some(mark) = self.marks.due(&told, at_once)? else { return Ok(()) };
        let mut marks = vec![mark];
        let spoken = self.newly_spoken(&drafts);
        marks.extend(spoken.iter().flat_map(|topic| self.shared.flows(topic)));
        let topics: HashSet<Topic> = runs(&drafts).into_iter().map(|(topic, _)| topic).collect();
        let publisher = &self.shared.publisher;
        let mut published = publisher.publish_marked(drafts, marks.clone()).await;
        if let Err(error) = &published
            && error.kind() == Kind::Refused
        {
            // To read it again would not make it smaller.
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "changes are more at once than the history takes, so their tables have a gap"
            );
            let gap = |topic| Draft::gap(topic, GapReason::HistoryTrimmed);
            published =
                publisher.publish_marked(topics.into_iter().map(gap).collect(), marks).await;
        }
        match published {
            Ok(_) => {
                self.marks.kept(told);
                self.spoken.extend(spoken);
                Ok(())
            }
            Err(error) => {
                self.shared.metrics.failures.inc();
                Err(failed(error))
            }
        }
    }

    pub(super) fn newly_spoken(&self, drafts: &[Draft]) -> HashSet<Topic> {
        let room = SPOKEN.saturating_sub(self.spoken.len());
        let others = drafts.iter().map(|draft| &draft.topic);
        let others = others.filter(|topic| topic.kind() != TopicKind::Table);
        let new: HashSet<&Topic> = others.filter(|topic| !self.spoken.contains(topic)).collect();
        new.into_iter().take(room).cloned().collect()
    }
}
