//! From messages to changes: puts transactions together and decides what is published; pure.
//!
//! PostgreSQL sends a transaction when it has committed, whole and after those that committed
//! before, so nothing has to be kept back but the newest change of each table, which may turn out to
//! be the last. A transaction of any size takes bounded memory that way.
//!
//! Positions: [`Assembly::processed`] is the place before which everything was made into drafts. It
//! may be confirmed once those drafts are kept.

mod message;
mod relations;
mod signature;
mod truncation;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use relations::Problem;
pub(super) use relations::{Described, Description, Flow, Known};
use signature::{Signatures, Verdict};
use tidewire::sparing::Sparing;
use tidewire_protocol::change::{Change, Operation, Row, RowBuilder, Snapshot, Transaction};
use tidewire_protocol::{Body, Draft, GapReason, Topic};

use super::error::{WalError, WalErrorKind};
use super::pgoutput::{self, Begin, Commit, DecodeError, Logical, Lsn, Message, Old, Tuple};
use super::resume::{Last, Part, Told};
use crate::charset::{Character, Charset, Undecoded};
use crate::values::Misshapen;

/// Bytes of one open transaction after which what it has is published.
const SPILL_BYTES: usize = 1 << 20;

/// Changes after which it is; a change costs some 200 bytes beside its content.
const SPILL_ITEMS: usize = 4_096;

/// What is wrong with a message that is no text.
const UNREADABLE: &str = "it has a character without a Unicode form";

/// What a message asks for before it can be taken; it is to be taken again then.
#[derive(Debug)]
pub(super) enum Need {
    /// How a table looks; to be answered with [`Assembly::know`], and not taken again.
    Relation(Description),
    /// The types of this table's columns were altered; to be answered with [`Assembly::know`].
    Shapes(Description),
    /// Nobody knows any more as what this relation is told; to be answered with [`Assembly::know`].
    Again(Description),
    /// Which partitions these tables have; to be answered with [`Assembly::know_parts`].
    Parts(Vec<u32>),
    /// A type may have changed, nothing more; not taken again.
    Forget(u32),
    /// The key of signed messages; to be answered with [`Assembly::know_key`].
    Key,
    /// What these characters are; to be answered with [`Assembly::charset`].
    Characters(Vec<Character>),
}

/// Why a message could not be taken.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Something has to be asked first.
    Need(Box<Need>),
    /// It makes no sense.
    Senseless(WalError),
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        let message = "a message of the log cannot be read";
        Self::Senseless(WalError::because(WalErrorKind::Protocol, message, error))
    }
}

/// A transaction whose commit was not read yet.
#[derive(Debug)]
struct Open {
    transaction: Arc<Transaction>,
    /// Published before on another connection.
    repeated: bool,
    /// Deeds that were taken on another connection and come again.
    again: usize,
    /// The indexes of the changes among them that were not published all the same, in order.
    kept_back: Vec<u32>,
    /// The same of this connection: how many deeds were published, and without which.
    spilled: (usize, Vec<u32>),
    /// Deeds seen.
    seen: usize,
    /// Changes seen.
    index: u32,
    /// What is to be published.
    deeds: Vec<Draft>,
    bytes: usize,
}

impl Open {
    /// Whether the next deed was published before: a change with its index, or a message.
    fn is_told(&self, index: Option<u32>) -> bool {
        let kept_back = |index| self.kept_back.binary_search(&index).is_ok();
        self.repeated || (self.seen < self.again && !index.is_some_and(kept_back))
    }
}

/// What was counted since last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) transactions: u64,
    pub(super) changes: u64,
    pub(super) messages: u64,
    /// Messages with our prefix that `tidewire.publish` did not write.
    pub(super) forged: u64,
    /// Messages meant for us that make no sense.
    pub(super) bad_messages: u64,
    /// Values told as a string because they do not fit their type.
    pub(super) misshapen: u64,
    /// Rows that were read and are too large to be told.
    pub(super) oversized: u64,
    /// Rows with a character that has no Unicode form, each of which is a gap.
    pub(super) unreadable: u64,
}

/// The partitions that have rows, by the table.
pub(super) type Parts = HashMap<u32, BTreeSet<u32>>;

/// Puts transactions together.
#[derive(Default)]
pub(super) struct Assembly {
    relations: HashMap<u32, Known>,
    charset: Charset,
    /// The partitions with rows of tables, for the message that is taken next.
    parts: Option<Parts>,
    open: Option<Open>,
    /// A transaction that the last connection ended in.
    suspended: Option<Open>,
    /// A transaction that was published in part before this process, or connection, began.
    part: Option<Part>,
    /// The commit of the newest transaction made into drafts.
    done: Lsn,
    /// Which one that was.
    last: Option<Last>,
    /// It has to come again, or this is another log.
    sought: bool,
    processed: Lsn,
    drafts: Vec<Draft>,
    bytes: usize,
    counts: Counts,
    epoch: Option<Snapshot>,
    builder: RowBuilder,
    signatures: Signatures,
    /// What cannot be delivered; any role that writes rows chooses how often.
    complaints: Sparing,
}

impl Assembly {
    /// Takes messages with our prefix whoever wrote them.
    pub(super) fn allow_unsigned(&mut self) {
        self.signatures.allow_unsigned();
    }

    /// The key of signed messages is this; none where nothing is installed.
    pub(super) fn know_key(&mut self, key: Option<String>) {
        self.signatures.learn(key);
    }

    /// Another connection begins. One that goes on where the last one was sends again what was not
    /// confirmed; after any other, what was half read will never be whole.
    pub(super) fn begin(&mut self, from: Lsn, resumed: bool) {
        self.relations.clear();
        self.part = None;
        let half_read = self.open.take().filter(|open| !open.repeated);
        self.suspended = half_read.or(self.suspended.take()).filter(|_| resumed);
        if !resumed {
            (self.done, self.last) = (Lsn(0), None);
            self.processed = from;
        }
        self.seek(from);
    }

    /// The log is sent again from a place on. Where the newest transaction that was told is behind
    /// that, it comes again, and until then nobody knows whether this log has what was told.
    fn seek(&mut self, from: Lsn) {
        self.sought = self.done != Lsn(0) && from <= self.done;
        self.processed = if self.sought { from } else { self.processed.max(from) };
    }

    /// A transaction comes, or everything up to a place has come.
    fn find(&mut self, at: Lsn, found: Option<Last>) -> Result<(), Trouble> {
        if !self.sought || at < self.done {
            return Ok(());
        }
        let is_it = at == self.done && found.is_some();
        if !is_it || (self.last.is_some() && self.last != found) {
            return Err(Trouble::Senseless(other_log(self.done)));
        }
        self.sought = false;
        Ok(())
    }

    /// Another connection begins, behind exactly what was told; nothing else of before counts.
    pub(super) fn resume(&mut self, told: &Told, from: Lsn) {
        self.begin(from, false);
        (self.done, self.last, self.processed) = (told.done, told.last, told.processed);
        self.seek(from);
        self.part = told.part.clone();
        (self.drafts, self.bytes) = (Vec::new(), 0);
    }

    /// How far the log is told once what was harvested is.
    pub(super) fn told(&self) -> Told {
        let open = self.open.as_ref().or(self.suspended.as_ref());
        let part = open.filter(|open| !open.repeated && open.spilled.0 > 0).map(|open| Part {
            commit: Lsn(open.transaction.lsn.unwrap_or_default()),
            seen: open.spilled.0,
            kept_back: open.spilled.1.clone(),
        });
        let part = part.or_else(|| self.part.clone());
        Told { done: self.done, last: self.last, processed: self.processed, part }
    }

    /// What bytes of text mean.
    pub(super) fn charset(&mut self) -> &mut Charset {
        &mut self.charset
    }

    /// Which transactions there are now, by which short ids are widened.
    pub(super) fn set_epoch(&mut self, epoch: Snapshot) {
        self.epoch = Some(epoch);
    }

    /// Takes one message. With `lenient`, values that do not fit their types are told as strings.
    pub(super) fn take(&mut self, bytes: &[u8], lenient: bool) -> Result<(), Trouble> {
        let message = pgoutput::decode(bytes)?;
        self.act(message, lenient)
    }

    /// The same with a message that was sent while its transaction still ran.
    pub(super) fn take_streamed(&mut self, bytes: &[u8], lenient: bool) -> Result<(), Trouble> {
        let (_, message) = pgoutput::decode_streamed(bytes)?;
        self.act(message, lenient)
    }

    fn act(&mut self, message: Message<'_>, lenient: bool) -> Result<(), Trouble> {
        match message {
            Message::Begin(begin) => self.begin_transaction(begin),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => need(match Description::of(&relation, &self.charset) {
                Ok(description) => Need::Relation(description),
                Err(characters) => Need::Characters(characters),
            }),
            Message::Type(kind) => need(Need::Forget(kind.oid)),
            Message::Insert(insert) => {
                self.change(Operation::Insert, insert.relation, Some(&insert.new), None, lenient)
            }
            Message::Update(update) => {
                let (new, old) = (Some(&update.new), update.old.as_ref());
                self.change(Operation::Update, update.relation, new, old, lenient)
            }
            Message::Delete(delete) => {
                let old = Some(&delete.old);
                self.change(Operation::Delete, delete.relation, None, old, lenient)
            }
            Message::Truncate(truncate) => self.truncate(&truncate.relations),
            Message::Logical(logical) => self.say(&logical),
            Message::Origin(_) => Ok(()),
            // What is about running transactions does not come here.
            other => Err(senseless(format!("an unexpected message {other:?}"))),
        }
    }

    /// The table of a row that was too large to be read, or the topic of such a message, from how it
    /// begins; `None` when nobody misses it.
    pub(super) fn oversized(&mut self, head: &[u8]) -> Option<Topic> {
        if let Some(content) = message::content(head) {
            // The signature is of all of it, and `tidewire.publish` writes none that is so large.
            let topic = message::topic(&self.charset.decode_lossy(content));
            let topic = topic.filter(|_| self.signatures.allows_unsigned());
            return self.lose_message(topic, GapReason::HistoryTrimmed);
        }
        let commit = self.commit_place();
        let open = self.open.as_mut()?;
        let oid = head.get(1..5)?.try_into().ok().map(u32::from_be_bytes)?;
        if !matches!(head[0], b'I' | b'U' | b'D') {
            return None;
        }
        open.seen += 1;
        open.index = open.index.saturating_add(1);
        let known = self.relations.get(&oid).filter(|known| known.flow.tells(commit))?;
        let told = open.repeated || open.seen <= open.again;
        let topic = known.topic.clone().filter(|_| !told)?;
        // Beside the deeds of the transaction, so that what is told and this are kept together.
        open.deeds.push(Draft::gap(topic.clone(), GapReason::HistoryTrimmed));
        Some(topic)
    }

    /// Everything that committed before this place was sent.
    pub(super) fn sent(&mut self, lsn: Lsn) -> Result<(), Trouble> {
        if self.open.is_none() && lsn > self.done {
            self.find(lsn, None)?;
        }
        if self.open.is_none() && self.suspended.is_none() && self.part.is_none() {
            self.processed = self.processed.max(lsn);
        }
        Ok(())
    }

    /// Where the transaction that is being read was committed.
    pub(super) fn commit_place(&self) -> Option<u64> {
        self.open.as_ref()?.transaction.lsn
    }

    /// How the log described a relation of which nobody knows any more as what it is told.
    pub(super) fn outdated(&self, relation: u32) -> Option<&Description> {
        let known = self.relations.get(&relation).filter(|known| known.flow.has_ended())?;
        Some(known.sent())
    }

    /// How a table looks from here on.
    pub(super) fn know(&mut self, known: Known) {
        self.relations.insert(known.sent().oid, known);
    }

    /// Which partitions with rows tables have that were truncated, or partitions of theirs were.
    pub(super) fn know_parts(&mut self, parts: Parts) {
        self.parts = Some(parts);
    }

    /// Whether there is so much to publish that it should be done now.
    pub(super) fn is_ripe(&self) -> bool {
        self.bytes >= SPILL_BYTES || self.drafts.len() >= SPILL_ITEMS
    }

    /// What is to be published now, in order.
    pub(super) fn harvest(&mut self) -> Vec<Draft> {
        self.bytes = 0;
        std::mem::take(&mut self.drafts)
    }

    /// The place before which everything was made into drafts.
    pub(super) fn processed(&self) -> Lsn {
        self.processed
    }

    /// What was counted since the last call.
    pub(super) fn counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// A transaction begins.
    pub(super) fn begin_transaction(&mut self, begin: Begin) -> Result<(), Trouble> {
        if self.open.is_some() {
            return Err(senseless("a transaction begins inside of another"));
        }
        let at = begin.committed_at.unix_micros();
        self.find(begin.commit_lsn, Some(Last { xid: begin.xid, at }))?;
        let same = |open: &Open| open.transaction.lsn == Some(begin.commit_lsn.0);
        if let Some(mut open) = self.suspended.take_if(|open| same(open)) {
            // Or more, if the connection was lost again before it came as far as the first time.
            open.again = open.again.max(open.seen);
            (open.seen, open.index) = (0, 0);
            self.open = Some(open);
            return Ok(());
        }
        let part = self.part.take_if(|part| part.commit == begin.commit_lsn);
        let id = self.epoch.as_ref().map_or(u64::from(begin.xid), |at| at.widen(begin.xid));
        self.open = Some(Open {
            transaction: Arc::new(Transaction {
                id,
                lsn: Some(begin.commit_lsn.0),
                committed_at: at,
            }),
            repeated: begin.commit_lsn <= self.done,
            again: part.as_ref().map_or(0, |part| part.seen),
            kept_back: part.as_ref().map_or_else(Vec::new, |part| part.kept_back.clone()),
            spilled: part.map_or_else(Default::default, |part| (part.seen, part.kept_back)),
            seen: 0,
            index: 0,
            deeds: Vec::new(),
            bytes: 0,
        });
        Ok(())
    }

    /// The transaction is complete.
    pub(super) fn commit(&mut self, commit: Commit) -> Result<(), Trouble> {
        let Some(mut open) = self.open.take() else {
            return Err(senseless("a transaction ends that did not begin"));
        };
        if commit.commit_lsn > self.done {
            self.done = commit.commit_lsn;
            let Transaction { id, committed_at: at, .. } = *open.transaction;
            #[expect(clippy::cast_possible_truncation, reason = "the log has the short id")]
            let xid = id as u32;
            self.last = Some(Last { xid, at });
        }
        self.processed = self.processed.max(commit.end_lsn);
        self.counts.transactions += u64::from(!open.repeated);
        mark_last(&mut open.deeds);
        self.bytes += open.bytes;
        self.drafts.append(&mut open.deeds);
        Ok(())
    }

    fn change(
        &mut self,
        operation: Operation,
        relation: u32,
        new: Option<&Tuple<'_>>,
        old: Option<&Old<'_>>,
        lenient: bool,
    ) -> Result<(), Trouble> {
        let Some(known) = self.relations.get(&relation) else {
            return Err(senseless(format!("a change of relation {relation} that is unknown")));
        };
        if known.flow.has_ended() {
            return need(Need::Again(known.sent().clone()));
        }
        let Some(open) = self.open.as_mut() else {
            return Err(senseless("a change outside of a transaction"));
        };
        let told = open.is_told(Some(open.index));
        let flows = known.flow.tells(open.transaction.lsn);
        if let (false, true, Some(topic)) = (told, flows, &known.topic) {
            let (record, old, misshapen) =
                match known.rows(new, old, lenient, &self.charset, &mut self.builder) {
                    Ok(rows) => rows,
                    Err(Problem::Misshapen(Misshapen)) => {
                        return need(Need::Shapes(known.sent().clone()));
                    }
                    Err(Problem::Senseless(words)) => return Err(senseless(words)),
                    Err(Problem::Keyless) => {
                        self.lose(relation, GapReason::ConnectionLost);
                        return Ok(());
                    }
                    Err(Problem::Unknown(characters)) => return need(Need::Characters(characters)),
                    Err(Problem::Unreadable) => {
                        if let Some(unsaid) = self.complaints.due() {
                            tracing::warn!(%topic, unsaid,
                            "a row has a character without a Unicode form, so its table has a gap");
                        }
                        self.counts.unreadable += 1;
                        self.lose(relation, GapReason::ConnectionLost);
                        return Ok(());
                    }
                    Err(Problem::TooLarge(why)) => {
                        if let Some(unsaid) = self.complaints.due() {
                            tracing::warn!(%topic, %why, unsaid,
                            "a row is too large to be delivered, so its table has a gap");
                        }
                        self.counts.oversized += 1;
                        self.lose(relation, GapReason::HistoryTrimmed);
                        return Ok(());
                    }
                };
            self.counts.misshapen += misshapen;
            self.counts.changes += 1;
            let change = Change {
                operation,
                relation: Arc::clone(&known.relation),
                record,
                old,
                transaction: Arc::clone(&open.transaction),
                index: open.index,
                last: false,
            };
            open.bytes += change.bytes();
            open.deeds.push(Draft::change(topic.clone(), change));
        }
        open.seen += 1;
        open.index = open.index.saturating_add(1);
        self.spill();
        Ok(())
    }

    /// Something that SQL published on a topic.
    fn say(&mut self, logical: &Logical<'_>) -> Result<(), Trouble> {
        // One that is not transactional comes even when its transaction was rolled back.
        if logical.prefix != message::PREFIX || !logical.transactional {
            return Ok(());
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if open.is_told(None) {
            open.seen += 1;
            return Ok(());
        }
        let content = match self.signatures.judge(logical.content) {
            Verdict::Genuine(content) => content,
            Verdict::AskForKey => return need(Need::Key),
            Verdict::Forged => {
                // Anybody can write as many as it likes, so they are counted and not logged.
                open.seen += 1;
                self.counts.forged += 1;
                return Ok(());
            }
        };
        let text = match self.charset.decode(content) {
            Err(Undecoded::Unknown(characters)) => return need(Need::Characters(characters)),
            text => text.ok(),
        };
        match text.as_deref().map(message::read) {
            Some(Ok(draft)) => {
                open.seen += 1;
                self.counts.messages += 1;
                open.bytes += content.len();
                open.deeds.push(draft);
                self.spill();
            }
            unread => {
                let problem = unread.and_then(Result::err);
                let problem = problem.map_or_else(|| UNREADABLE.to_owned(), |it| it.to_string());
                let topic = message::topic(&self.charset.decode_lossy(content));
                self.complain(topic.as_ref(), &problem);
                self.lose_message(topic, GapReason::ConnectionLost);
            }
        }
        Ok(())
    }

    fn complain(&self, topic: Option<&Topic>, problem: &str) {
        if let Some(unsaid) = self.complaints.due() {
            let topic = topic.map(tracing::field::display);
            tracing::warn!(
                topic,
                problem,
                unsaid,
                "a logical message with our prefix cannot be delivered"
            );
        }
    }

    /// A message cannot be delivered: a gap of its topic stands in its place, if that is known.
    /// Gives the topic unless the gap was published before.
    fn lose_message(&mut self, topic: Option<Topic>, reason: GapReason) -> Option<Topic> {
        let open = self.open.as_mut()?;
        let told = open.is_told(None);
        open.seen += 1;
        if told {
            return None;
        }
        self.counts.bad_messages += 1;
        let topic = topic?;
        // Small, but without end from whoever may write them.
        open.bytes += size_of::<Draft>();
        open.deeds.push(Draft::gap(topic.clone(), reason));
        self.spill();
        Some(topic)
    }

    /// Lets go of what a large transaction has, but for the newest change of each table.
    fn spill(&mut self) {
        let Some(open) = self.open.as_mut() else { return };
        if open.bytes < SPILL_BYTES && open.deeds.len() < SPILL_ITEMS {
            return;
        }
        let newest = newest(&open.deeds);
        let mut kept = Vec::with_capacity(newest.len());
        for (at, deed) in std::mem::take(&mut open.deeds).into_iter().enumerate() {
            match newest.contains(&at) {
                true => kept.push(deed),
                false => self.drafts.push(deed),
            }
        }
        self.bytes += std::mem::take(&mut open.bytes);
        open.deeds = kept;
        if open.seen >= open.again {
            let kept_back = open.deeds.iter().filter_map(|deed| match &deed.body {
                Body::Change(change) => Some(change.index),
                _ => None,
            });
            open.spilled = (open.seen, kept_back.collect());
        }
    }
}

/// What was told is not in the log.
fn other_log(done: Lsn) -> WalError {
    WalError::new(
        WalErrorKind::SlotLost,
        format!(
            "the transaction at {done}, which was delivered, is not in PostgreSQL's log any more: \
             the database was put back to an earlier time, so there is a gap for its tables"
        ),
    )
}

/// The places of each table's newest change, newest first.
fn newest(deeds: &[Draft]) -> Vec<usize> {
    // Few transactions touch more than some tables, so a list is quicker than a set.
    let (mut seen, mut places) = (Vec::new(), Vec::new());
    for (at, deed) in deeds.iter().enumerate().rev() {
        if let Body::Change(change) = &deed.body
            && !seen.contains(&change.relation.oid)
        {
            seen.push(change.relation.oid);
            places.push(at);
        }
    }
    places
}

fn mark_last(deeds: &mut [Draft]) {
    for at in newest(deeds) {
        if let Body::Change(change) = &mut deeds[at].body {
            Arc::get_mut(change)
                .expect("a draft that is not published yet is shared by nobody")
                .last = true;
        }
    }
}

fn need(need: Need) -> Result<(), Trouble> {
    Err(Trouble::Need(Box::new(need)))
}

fn senseless(words: impl Into<String>) -> Trouble {
    Trouble::Senseless(WalError::new(WalErrorKind::Protocol, words))
}

/// Rows of a change, and how many of their values were told as strings for want of a shape.
type Rows = (Option<Row>, Option<Row>, u64);

#[cfg(test)]
mod tests;
