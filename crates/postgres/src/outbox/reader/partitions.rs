//! What happens to partitions without a word in the outbox: rows that come or go with one, and a
//! TRUNCATE of one that came later than the triggers.
//!
//! PostgreSQL gives each new partition the trigger for rows and not the one for TRUNCATE, so that is
//! made when the partition is seen, where the server may; until then its file is compared.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tidewire::history::Mark;
use tidewire_protocol::{GapReason, Topic};

use super::{Ended, Reader};
use crate::outbox::enabling;
use crate::outbox::link::Link;
use crate::partitions::{self, Fate, Layout};
use crate::sql;

/// What begins the names of the marks of layouts, where the history outlives the process.
const PARTS: &str = "outbox/parts:";

/// The partitions that followed tables had when they were last looked at.
#[derive(Default)]
pub(super) struct Parted {
    known: HashMap<Topic, Layout>,
    /// What the history keeps of it; `None` before it was asked.
    kept: Option<HashMap<Topic, Bytes>>,
    /// Tables that owe a gap once what was written before is told.
    changed: HashSet<Topic>,
    /// Partitions that were to get a trigger: it is tried once.
    tried: HashSet<u32>,
    /// Partitions, by their table, whose rows were read since the last look: one that came and went
    /// in between is known by nothing else.
    met: HashMap<u32, HashSet<u32>>,
}

impl Parted {
    /// A row of this partition is told as its table's.
    pub(super) fn meet(&mut self, table: u32, part: u32) {
        self.met.entry(table).or_default().insert(part);
    }

    /// Whether a partition whose rows were read is not there any more.
    fn misses(&self, now: &Layout) -> bool {
        let met = self.met.get(&now.table);
        met.is_some_and(|met| met.iter().any(|part| !now.has(*part)))
    }
}

impl Reader {
    /// Compares partitions with what they were.
    pub(super) async fn look_at_partitions(&mut self, link: &Link) -> Result<(), Ended> {
        self.recall_partitions().await?;
        let followed = self.shared.followed();
        let oids: Vec<u32> = followed.iter().map(|(oid, _)| *oid).collect();
        let mut found = link.answer(partitions::recorded(link.client(), &oids)).await?;
        let owing = self.shared.owing();
        let topics: HashSet<&Topic> = followed.iter().map(|(_, topic)| topic).collect();
        self.parted.known.retain(|topic, _| topics.contains(topic));
        self.parted.changed.retain(|topic| topics.contains(topic));
        for (oid, topic) in followed {
            let Some(layout) = found.remove(&oid) else { continue };
            self.complete(link, oid, &layout).await?;
            // One that owes a gap is told it soon, and that covers whatever became of it.
            let is_fine = owing.contains(&topic) || self.is_as_told(link, &topic, &layout).await?;
            match is_fine {
                true => drop(self.parted.known.insert(topic, layout)),
                false => drop(self.parted.changed.insert(topic)),
            }
        }
        self.parted.met.clear();
        self.keep_partitions().await;
        Ok(())
    }

    /// Whether no rows came or went with partitions.
    async fn is_as_told(&self, link: &Link, topic: &Topic, now: &Layout) -> Result<bool, Ended> {
        if self.parted.misses(now) {
            return Ok(false);
        }
        let Some(before) = self.parted.known.get(topic) else { return Ok(true) };
        match before.fate(now) {
            Fate::Same => Ok(true),
            Fate::Changed => Ok(false),
            // It may have been truncated before it had the trigger.
            Fate::Grown(new) if now.has_other_files(&new, |_| true) => Ok(false),
            Fate::Grown(new) => {
                let nothing = partitions::brought_nothing(link.client(), &new);
                Ok(link.answer(nothing).await?)
            }
        }
    }

    /// Everything that was written before the last look is told: now gaps may be owed.
    pub(super) fn tell_partitions(&mut self) {
        for topic in self.parted.changed.drain() {
            tracing::warn!(%topic, "partitions came or went with rows, or were truncated alone");
            self.shared.owe(&topic, GapReason::ConnectionLost);
        }
    }

    /// Has new partitions record that they are truncated, where that may be done.
    async fn complete(&mut self, link: &Link, oid: u32, layout: &Layout) -> Result<(), Ended> {
        let untold = layout.untold();
        if !self.options.install || untold.iter().all(|part| self.parted.tried.contains(part)) {
            return Ok(());
        }
        self.parted.tried.extend(untold);
        let installed = link.answer(sql::found(link.client())).await?;
        let Ok(installed) = sql::usable(installed) else { return Ok(()) };
        if let Err(error) = enabling::enable(link.client(), oid, &installed.schema).await {
            tracing::warn!(
                oid,
                error = &error as &dyn std::error::Error,
                "new partitions of a table cannot be given a trigger, so they are looked at"
            );
        }
        Ok(())
    }

    /// What a process before this one saw last.
    async fn recall_partitions(&mut self) -> Result<(), Ended> {
        if self.parted.kept.is_some() {
            return Ok(());
        }
        let mut kept = HashMap::new();
        for Mark { source, place } in self.teller.publisher.marks(PARTS).await? {
            let name = source.strip_prefix(PARTS).expect("it was asked for");
            let Ok(topic) = Topic::table(name) else { continue };
            if let Some(layout) = Layout::take(&place) {
                self.parted.known.insert(topic.clone(), layout);
            }
            kept.insert(topic, place);
        }
        self.parted.kept = Some(kept);
        Ok(())
    }

    /// Has a history that outlives the process keep the layouts of tables whose gaps were told.
    /// What it does not take is tried again at the next look.
    pub(super) async fn keep_partitions(&mut self) {
        if !self.teller.publisher.keeps_marks() {
            return;
        }
        let owing = self.shared.owing();
        let Parted { known, kept: Some(kept), changed, .. } = &self.parted else { return };
        let wanted =
            known.iter().filter(|(topic, _)| !owing.contains(topic) && !changed.contains(topic));
        let mut news: Vec<(Topic, Bytes)> = wanted
            .map(|(topic, layout)| (topic.clone(), layout.put()))
            .filter(|(topic, place)| kept.get(topic) != Some(place))
            .collect();
        let gone = kept.keys().filter(|topic| !known.contains_key(topic));
        news.extend(gone.map(|topic| (topic.clone(), Bytes::new())));
        if news.is_empty() {
            return;
        }
        let mark = |(topic, place): &(Topic, Bytes)| Mark {
            source: format!("{PARTS}{}", topic.name()).into(),
            place: place.clone(),
        };
        let marks = news.iter().map(mark).collect();
        match self.teller.publisher.publish_marked(Vec::new(), marks).await {
            Ok(_) => self.parted.kept.get_or_insert_default().extend(news),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the partitions of tables could not be remembered"
            ),
        }
        if let Some(kept) = &mut self.parted.kept {
            kept.retain(|_, place| !place.is_empty());
        }
    }
}
