//! From what the window tells to the publisher: rows are put in the order of their columns, and
//! handed over in batches.
//!
//! Where the history outlives the process, what is handed over comes with how far it is
//! ([`lasting`]); elsewhere what the history does not take is a gap ([`fleeting`]).

mod fleeting;
mod lasting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire::sparing::Sparing;
use tidewire::{Error, Publisher};
use tidewire_protocol::change::{Change, Relation, Row};
use tidewire_protocol::{Body, Draft, GapReason, Payload, Topic};

use super::marks::Told;
use super::place::Place;
use super::relations::{self, Known, Misfit};
use super::shared::{Owed, Shared};
use super::window::Item;
use crate::connect::Pool;

/// Drafts handed over together, and bytes of content in them: some milliseconds of work for a
/// history, and a bound for memory while a transaction of millions of rows is read.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Topics of messages that are remembered, to be told when messages were lost.
const VOICES: usize = 10_000;

/// A table that is followed.
pub(super) struct Table {
    pub(super) topic: Topic,
    pub(super) known: Known,
}

/// Hands over what is told.
pub(super) struct Teller {
    pub(super) publisher: Publisher,
    shared: Arc<Shared>,
    /// For questions to the catalog while the reader's connection is busy with a poll.
    pool: Pool,
    pub(super) tables: HashMap<u32, Table>,
    drafts: Vec<Draft>,
    bytes: usize,
    /// Tables whose changes are told, as they were when their gap was.
    flowing: HashMap<Topic, Told>,
    /// Topics of messages told.
    voices: HashSet<Topic>,
    /// Those of them that a history which outlives the process remembers.
    lasting: HashSet<Topic>,
    /// Topics that have to be told a gap before anything newer, so nothing more in this round.
    silent: HashSet<Topic>,
    /// Topics of messages that owe a gap and are silent until it was told.
    indebted: HashMap<Topic, GapReason>,
    /// What cannot be delivered; any role that writes rows chooses how often.
    complaints: Sparing,
}

impl Teller {
    pub(super) fn new(publisher: Publisher, shared: Arc<Shared>, pool: Pool) -> Self {
        Self {
            publisher,
            shared,
            pool,
            tables: HashMap::new(),
            drafts: Vec::new(),
            bytes: 0,
            flowing: HashMap::new(),
            voices: HashSet::new(),
            lasting: HashSet::new(),
            silent: HashSet::new(),
            indebted: HashMap::new(),
            complaints: Sparing::new(),
        }
    }

    /// Takes items in order. Not cancel safe: they count as told.
    pub(super) async fn tell(&mut self, items: &mut Vec<Item>) {
        for item in items.drain(..) {
            match item {
                Item::Message { topic, name, payload, json } => {
                    self.message(&topic, name, &payload, json);
                }
                Item::Unrecorded { rel, why, reason } => self.unrecorded(rel, &why, reason),
                Item::Lost { topic, why, reason } => {
                    self.lost_message(topic.as_deref(), &why, reason);
                }
                change @ Item::Change { .. } => self.change(change).await,
            }
        }
    }

    /// Whether there is enough to be handed over.
    pub(super) fn is_full(&self) -> bool {
        self.drafts.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// Hands over what was not handed over yet, which is all up to the place. Gives whether the
    /// place was kept.
    ///
    /// # Errors
    /// When the history, which outlives the process, did not take it, or nobody knows: reading has
    /// to begin behind what it holds.
    pub(super) async fn flush(&mut self, place: &Place) -> Result<bool, Error> {
        self.bytes = 0;
        let drafts = std::mem::take(&mut self.drafts);
        if drafts.is_empty() {
            return Ok(false);
        }
        if self.publisher.keeps_marks() {
            return self.publish_kept(drafts, place).await.map(|()| true);
        }
        self.publish_alone(drafts).await;
        Ok(false)
    }

    /// Reading begins again elsewhere.
    pub(super) fn forget_drafts(&mut self) {
        self.drafts.clear();
        self.bytes = 0;
    }

    /// Tells the gaps that tables owe, from which on they are told.
    ///
    /// # Errors
    /// As [`Teller::flush`].
    pub(super) async fn pay(&mut self, owed: Vec<Owed>, place: &Place) -> Result<(), Error> {
        let told = |owed: &Owed| {
            let naming = owed.naming.clone()?;
            let table = self.tables.get(&naming.oid).filter(|table| table.topic == owed.topic)?;
            Some(Told { naming, triggers: table.known.triggers.clone() })
        };
        let with_told = |owed| {
            let told = told(&owed);
            (owed, told)
        };
        let debts = owed.into_iter().map(with_told).collect();
        match self.publisher.keeps_marks() {
            true => self.pay_kept(debts, place).await,
            false => {
                self.pay_alone(debts).await;
                Ok(())
            }
        }
    }

    fn paid(&mut self, Owed { topic, oid, .. }: Owed, told: Option<Told>) {
        self.shared.paid(&topic, oid);
        match told {
            Some(told) => drop(self.flowing.insert(topic, told)),
            None => drop(self.flowing.remove(&topic)),
        }
    }

    /// Everything between what was told and the place was lost.
    ///
    /// # Errors
    /// As [`Teller::flush`].
    pub(super) async fn lose(&mut self, reason: GapReason, place: &Place) -> Result<(), Error> {
        match self.publisher.keeps_marks() {
            true => self.lose_kept(reason, place).await,
            false => {
                self.lose_alone(reason).await;
                Ok(())
            }
        }
    }

    /// A poll begins that tells of these tables, and so not of others.
    ///
    /// # Errors
    /// As [`Teller::flush`].
    pub(super) async fn tells_only(&mut self, tables: &[(u32, Topic)]) -> Result<(), Error> {
        let told: HashSet<&Topic> = tables.iter().map(|(_, topic)| topic).collect();
        let others = self.flowing.keys().filter(|topic| !told.contains(topic));
        let others: Vec<Topic> = others.cloned().collect();
        if others.is_empty() {
            return Ok(());
        }
        self.forget_kept(&others).await?;
        others.iter().for_each(|topic| drop(self.flowing.remove(topic)));
        Ok(())
    }

    /// Whether a table's triggers are not those with which it began to be told, so that changes may
    /// have been left out.
    pub(super) fn is_altered(&self, topic: &Topic, oid: u32, known: &Known) -> bool {
        let told = self.flowing.get(topic);
        told.is_some_and(|told| told.naming.oid != oid || told.triggers != known.triggers)
    }

    /// A message is told on a topic.
    fn heard(&mut self, topic: &Topic) {
        if self.voices.len() < VOICES && !self.voices.contains(topic) {
            self.voices.insert(topic.clone());
        }
    }

    fn message(&mut self, topic: &str, name: Option<String>, payload: &str, json: bool) {
        let read = match json {
            true => Payload::json(payload),
            false => Ok(Payload::Text(payload.into())),
        };
        let payload = match read {
            Ok(payload) => payload,
            Err(why) => {
                let reason = GapReason::ConnectionLost;
                return self.lost_message(Some(topic), &why.to_string(), reason);
            }
        };
        // The SQL function checks names; by hand anything can be written into a table.
        let Ok(topic) = Topic::application(topic) else {
            return self.lost_message(None, "it names no topic", GapReason::ConnectionLost);
        };
        self.heard(&topic);
        self.bytes += payload.len();
        let mut draft = Draft::message(topic, payload);
        draft.name = name.map(Into::into);
        self.drafts.push(draft);
    }

    /// A message cannot be delivered: a gap of its topic stands in its place, if that is known.
    fn lost_message(&mut self, topic: Option<&str>, why: &str, reason: GapReason) {
        self.shared.metrics.bad_messages.inc();
        if let Some(unsaid) = self.complaints.due() {
            tracing::warn!(topic, why, unsaid, "a message in the outbox cannot be delivered");
        }
        let Some(topic) = topic.and_then(|name| Topic::application(name).ok()) else { return };
        self.heard(&topic);
        self.gap_here(topic, reason);
    }

    fn unrecorded(&mut self, rel: u32, why: &str, reason: GapReason) {
        self.shared.metrics.unrecorded.inc();
        let Some(topic) = self.tables.get(&rel).map(|table| table.topic.clone()) else { return };
        if let Some(unsaid) = self.complaints.due() {
            tracing::warn!(%topic, why, unsaid,
                "a change could not be recorded or read, so its table has a gap");
        }
        self.gap_here(topic, reason);
    }

    /// A gap among the drafts; each row of a statement may be one, and the first tells of them all.
    fn gap_here(&mut self, topic: Topic, reason: GapReason) {
        let is_gap = |draft: &Draft| draft.topic == topic && matches!(draft.body, Body::Gap(_));
        if !self.drafts.last().is_some_and(is_gap) {
            self.drafts.push(Draft::gap(topic, reason));
        }
    }

    async fn change(&mut self, item: Item) {
        let Item::Change { rel, operation, record, old, transaction, index, last } = item else {
            return;
        };
        let (Ok(record), Ok(old)) = (self.row(rel, record).await, self.row(rel, old).await) else {
            return self.unrecorded(rel, "its row cannot be read", GapReason::HistoryTrimmed);
        };
        // Not followed any more since the round began.
        let Some(Table { topic, known }) = self.tables.get(&rel) else { return };
        // The names of the two are the same, so their relation is.
        let written_in = record.as_ref().or(old.as_ref()).map(|(relation, _)| relation);
        let relation = Arc::clone(written_in.unwrap_or(&known.relation));
        let [record, old] = [record, old].map(|row| row.map(|(_, row)| row));
        let change = Change { operation, relation, record, old, transaction, index, last };
        self.bytes += change.bytes();
        self.drafts.push(Draft::change(topic.clone(), change));
    }

    /// The row of a text; `None` without one, and of a table that is not followed any more.
    ///
    /// # Errors
    /// When the text is no row, or one that is too large.
    async fn row(
        &mut self,
        rel: u32,
        text: Option<String>,
    ) -> Result<Option<(Arc<Relation>, Row)>, NoRow> {
        let Some(text) = text else { return Ok(None) };
        // Twice: before and after the catalog was asked again, and once more when it has no
        // better answer, which then is accepted.
        for asked in 0..3 {
            let Some(table) = self.tables.get_mut(&rel) else { return Ok(None) };
            match table.known.row(&text) {
                Ok(row) => return Ok(Some(row)),
                Err(Misfit::NoObject) => return Err(NoRow),
                Err(misfit) if asked == 0 => self.look_again(rel, &misfit).await,
                Err(misfit) => table.known.accept(&misfit),
            }
        }
        Err(NoRow)
    }

    /// Asks the catalog about a table that was altered.
    async fn look_again(&mut self, rel: u32, misfit: &Misfit) {
        let Some(table) = self.tables.get_mut(&rel) else { return };
        let asked = ask(&self.pool, rel).await;
        match asked.filter(|known| known.is_of(&table.topic)) {
            Some(known) => table.known.renew(known),
            None => {
                tracing::warn!(topic = %table.topic, "a table was altered, and how is unknown");
                table.known.accept(misfit);
            }
        }
    }
}

/// A text is no row.
struct NoRow;

/// What the catalog says about one table, if it can be asked.
async fn ask(pool: &Pool, rel: u32) -> Option<Known> {
    let connection = pool.get().await.ok()?;
    let loaded = connection.run(async |client| relations::load(client, &[rel]).await).await;
    let (_, known) = loaded?.ok()?.pop()?;
    Some(known)
}

/// For questions to the catalog in the middle of a poll.
pub(super) const CATALOG_LIMIT: Duration = Duration::from_secs(5);
