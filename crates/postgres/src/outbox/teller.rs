//! From what the window tells to the publisher: rows are put in the order of their columns, and
//! handed over in batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewire::Publisher;
use tidewire::history::Mark;
use tidewire_protocol::change::{Change, Relation, Row};
use tidewire_protocol::{Draft, GapReason, Payload, Topic, TopicKind};

use super::relations::{self, Known, Misfit};
use super::shared::Shared;
use super::window::Item;
use crate::connect::Pool;

/// Drafts handed over together, and bytes of content in them: some milliseconds of work for a
/// history, and a bound for memory while a transaction of millions of rows is read.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Topics of messages that are remembered, to be told when messages were lost.
const VOICES: usize = 10_000;

/// Those of them that are remembered over restarts, where the history is; each segment of one on
/// disk repeats all.
const LASTING_VOICES: usize = 2_000;

/// What begins the names of their marks.
const VOICE: &str = "outbox/topic:";

/// A table that is followed.
pub(super) struct Table {
    pub(super) topic: Topic,
    pub(super) known: Known,
}

/// Hands over what is told.
pub(super) struct Teller {
    publisher: Publisher,
    shared: Arc<Shared>,
    /// For questions to the catalog while the reader's connection is busy with a poll.
    pool: Pool,
    pub(super) tables: HashMap<u32, Table>,
    drafts: Vec<Draft>,
    bytes: usize,
    /// Topics that have to be told a gap before anything newer, so nothing more in this round.
    silent: HashSet<Topic>,
    /// Topics of messages told.
    voices: HashSet<Topic>,
    /// Those of them that a history which outlives the process has yet to remember.
    new_voices: HashSet<Topic>,
    /// Topics of messages that owe a gap and are silent until it was told.
    indebted: HashMap<Topic, GapReason>,
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
            silent: HashSet::new(),
            voices: HashSet::new(),
            new_voices: HashSet::new(),
            indebted: HashMap::new(),
        }
    }

    /// Tells items in order. Not cancel safe: they count as told.
    pub(super) async fn tell(&mut self, items: &mut Vec<Item>) {
        for item in items.drain(..) {
            match item {
                Item::Message { topic, name, payload, json } => {
                    self.message(&topic, name, &payload, json);
                }
                Item::Unrecorded { rel, why } => self.unrecorded(rel, &why).await,
                change @ Item::Change { .. } => self.change(change).await,
            }
            if self.drafts.len() >= BATCH || self.bytes >= BATCH_BYTES {
                self.flush().await;
            }
        }
    }

    /// Hands over what was not handed over yet.
    pub(super) async fn flush(&mut self) {
        self.bytes = 0;
        let mut drafts = std::mem::take(&mut self.drafts);
        self.remember_voices().await;
        drafts.retain(|draft| !self.silent.contains(&draft.topic));
        if drafts.is_empty() {
            return;
        }
        let topics: Vec<Topic> = drafts.iter().map(|draft| draft.topic.clone()).collect();
        let outcomes = self.publisher.publish(drafts).await;
        for (topic, outcome) in topics.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                tracing::warn!(%topic, error = &error as &dyn std::error::Error,
                    "a change could not be published");
                self.owe(topic, GapReason::ConnectionLost);
            }
        }
    }

    /// A round begins: topics of messages are told the gaps that they owe, or stay silent.
    pub(super) async fn begin_round(&mut self) {
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

    /// Tells a gap; gives whether it was told.
    pub(super) async fn gap(&mut self, topic: &Topic, reason: GapReason) -> bool {
        match self.publisher.interrupt(topic, reason).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%topic, %reason, error = &error as &dyn std::error::Error,
                    "a gap could not be told, so the table stays silent until it can");
                false
            }
        }
    }

    /// Tells the topics of messages that some were lost.
    pub(super) async fn lost_messages(&mut self, reason: GapReason) {
        for topic in std::mem::take(&mut self.voices) {
            if !self.gap(&topic, reason).await {
                self.owe(topic, reason);
            }
        }
    }

    /// The process begins. Where the history outlived the one before, messages that were said in
    /// between may be missing on every topic that was spoken on.
    pub(super) async fn recall_voices(&mut self) {
        let marks = self.publisher.marks(VOICE).await.unwrap_or_default();
        for mark in marks {
            let name = mark.source.strip_prefix(VOICE).expect("it was asked for");
            let Ok(topic) = Topic::application(name) else { continue };
            let forget = vec![Mark { place: Bytes::new(), ..mark.clone() }];
            let reason = GapReason::ConnectionLost;
            if let Err(error) = self.publisher.interrupt_marked(&topic, reason, forget).await {
                tracing::warn!(%topic, error = &error as &dyn std::error::Error,
                    "a gap could not be told, so the topic stays silent until it can");
                self.owe(topic, reason);
            }
        }
    }

    /// Before anything is told on them, so that none is forgotten. Where that fails they stay
    /// silent.
    async fn remember_voices(&mut self) {
        let voices = std::mem::take(&mut self.new_voices);
        if voices.is_empty() {
            return;
        }
        let mark = |topic: &Topic| Mark {
            source: format!("{VOICE}{}", topic.name()).into(),
            place: Bytes::from_static(b"1"),
        };
        let marks = voices.iter().map(mark).collect();
        if let Err(error) = self.publisher.publish_marked(Vec::new(), marks).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "topics that SQL speaks on could not be remembered"
            );
            for topic in &voices {
                self.owe(topic.clone(), GapReason::ConnectionLost);
            }
            self.new_voices = voices;
        }
    }

    /// A message is told on a topic.
    fn heard(&mut self, topic: &Topic) {
        if self.voices.len() >= VOICES || !self.voices.insert(topic.clone()) {
            return;
        }
        if self.publisher.keeps_marks() && self.voices.len() <= LASTING_VOICES {
            self.new_voices.insert(topic.clone());
        }
    }

    fn message(&mut self, topic: &str, name: Option<String>, payload: &str, json: bool) {
        // The SQL function checks names; by hand anything can be written into a table.
        let Ok(topic) = Topic::application(topic) else {
            tracing::warn!(topic, "a message in the outbox has no valid topic");
            return;
        };
        let text = || Payload::Text(payload.into());
        let payload = match json {
            true => Payload::json(payload).unwrap_or_else(|error| {
                tracing::warn!(%topic, %error, "a JSON message is told as text");
                text()
            }),
            false => text(),
        };
        self.heard(&topic);
        self.bytes += payload.len();
        let mut draft = Draft::message(topic, payload);
        draft.name = name.map(Into::into);
        self.drafts.push(draft);
    }

    async fn unrecorded(&mut self, rel: u32, why: &str) {
        self.shared.metrics.unrecorded.inc();
        let Some(topic) = self.tables.get(&rel).map(|table| table.topic.clone()) else { return };
        tracing::warn!(%topic, why, "a change could not be recorded, so it is told as a gap");
        self.flush().await;
        if !self.gap(&topic, GapReason::ConnectionLost).await {
            self.owe(topic, GapReason::ConnectionLost);
        }
    }

    async fn change(&mut self, item: Item) {
        let Item::Change { rel, operation, record, old, transaction, index, last } = item else {
            return;
        };
        let record = self.row(rel, record).await;
        let old = self.row(rel, old).await;
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

    async fn row(&mut self, rel: u32, text: Option<String>) -> Option<(Arc<Relation>, Row)> {
        let text = text?;
        // Twice: before and after the catalog was asked again, and once more when it has no
        // better answer, which then is accepted.
        for asked in 0..3 {
            match self.tables.get(&rel)?.known.row(&text) {
                Ok(row) => return Some(row),
                Err(Misfit::NoObject) => return None,
                Err(misfit) if asked == 0 => self.look_again(rel, &misfit).await,
                Err(misfit) => self.tables.get_mut(&rel)?.known.accept(&misfit),
            }
        }
        None
    }

    /// Asks the catalog about a table that was altered.
    async fn look_again(&mut self, rel: u32, misfit: &Misfit) {
        let Some(table) = self.tables.get_mut(&rel) else { return };
        match ask(&self.pool, rel).await {
            Some(known) => table.known.renew(known),
            None => {
                tracing::warn!(topic = %table.topic, "a table was altered, and how is unknown");
                table.known.accept(misfit);
            }
        }
    }
}

/// What the catalog says about one table, if it can be asked.
async fn ask(pool: &Pool, rel: u32) -> Option<Known> {
    let connection = pool.get().await.ok()?;
    let loaded = connection.run(async |client| relations::load(client, &[rel]).await).await;
    let (_, known) = loaded?.ok()?.pop()?;
    Some(known)
}

/// For questions to the catalog in the middle of a poll.
pub(super) const CATALOG_LIMIT: Duration = Duration::from_secs(5);
