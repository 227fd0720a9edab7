//! The task that reads the log: connects, takes what comes, publishes it and says how far we are.
//!
//! It decides little: [`Assembly`] puts transactions together and [`tables`](super::tables) knows
//! what flows. Nothing is confirmed to PostgreSQL before the publisher has returned.

mod characters;
mod facts;
mod learn;
mod names;
mod passing;
mod resuming;
mod streamed;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(super) use facts::Facts;
use futures_util::stream::{self, StreamExt};
use streamed::sense;
use tidewire::sparing::Sparing;
use tidewire_protocol::Topic;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::admission::admit;
use super::assembly::{Assembly, Need, Trouble};
use super::error::{WalError, WalErrorKind};
use super::keeper::{self, Keeper};
use super::partitions::Members;
use super::pgoutput::Lsn;
use super::publication::{self, Publication};
use super::resume::{Marks, Part, Told};
use super::running::Running;
use super::shared::{Reading, Shared};
use super::slot::{Beginning, Opening, SlotKind};
use super::spool::Spools;
use super::standing::Admitted;
use super::stream::{Batch, Item, Pulse, Stream};
use super::{WalOptions, slot};
use crate::connect::Target;
use crate::notify::Backoff;
use crate::values::Catalog;

/// How often a slot that another process reads is asked for.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// Gaps said at the same time, so that many of them after a reconnect do not wait for one
/// another's round trip to a shared history.
const GAPS_AT_ONCE: usize = 64;

/// Topics that SQL spoke on which are remembered, to tell them when something may be missing.
const SPOKEN: usize = 10_000;

/// Times that PostgreSQL may fail to send what comes next before that is left out: within some
/// seconds, since the pauses between them grow.
const ATTEMPTS: u32 = 5;

/// The task and what it knows.
pub(super) struct Reader {
    target: Target,
    shared: Arc<Shared>,
    options: WalOptions,
    stop: CancellationToken,
    catalog: Catalog,
    assembly: Assembly,
    facts: Option<Facts>,
    /// How far the history is, where it outlives the process.
    marks: Marks,
    /// Topics that SQL spoke on.
    spoken: HashSet<Topic>,
    /// Those of them that owe a gap and are silent until it was said.
    indebted: HashSet<Topic>,
    /// Transactions that run and were sent in part, and what they wrote.
    running: Running,
    spools: Spools,
    /// The key of messages when it was last asked for.
    key: Option<(Instant, Option<String>)>,
    /// Tells the stream that we move.
    pulse: Pulse,
    /// What the slot would send is of no use: a new one is needed.
    afresh: bool,
    /// What runs could not be kept: the next stream does without.
    unstreamed: bool,
    /// Where PostgreSQL failed to go on, and how many times.
    stuck: Option<((Lsn, Option<Part>), u32)>,
    /// What the history does not take.
    complaints: Sparing,
    /// What is too large to be read.
    oversized: Sparing,
    begun: u64,
}

/// Why reading ended.
enum Ended {
    Stopped,
    Lost(WalError),
}

impl From<WalError> for Ended {
    fn from(error: WalError) -> Self {
        Self::Lost(error)
    }
}

impl Reader {
    pub(super) fn new(
        target: Target,
        shared: Arc<Shared>,
        options: WalOptions,
        stop: CancellationToken,
    ) -> Self {
        let (directory, limit) = (options.spool_dir.clone(), options.spool_bytes);
        let spools = Spools::new(directory, limit, shared.metrics.clone());
        let marks = Marks::new(&options, &shared.publisher);
        let mut assembly = Assembly::default();
        if options.unsigned_messages {
            assembly.allow_unsigned();
        }
        Self {
            target,
            shared,
            options,
            stop,
            catalog: Catalog::default(),
            assembly,
            key: None,
            facts: None,
            marks,
            spoken: HashSet::new(),
            indebted: HashSet::new(),
            running: Running::default(),
            spools,
            pulse: Pulse::default(),
            afresh: false,
            unstreamed: false,
            stuck: None,
            complaints: Sparing::new(),
            oversized: Sparing::new(),
            begun: 0,
        }
    }

    /// Reads until told to stop.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let stop = self.stop.clone();
            let failure = match unless(&stop, self.connect()).await {
                None => break,
                Some(Err(error)) => error,
                Some(Ok(stream)) => {
                    let since = Instant::now();
                    match self.read(stream).await {
                        Ended::Stopped => break,
                        Ended::Lost(error) => {
                            backoff.was_open(since);
                            error
                        }
                    }
                }
            };
            self.shared.failed(&failure);
            self.shared.metrics.set_back(failure.kind());
            self.afresh |= is_useless(&failure) || self.is_stuck(&failure);
            if failure.kind() == WalErrorKind::Unstreamable {
                self.shared.metrics.spool_refusals.inc();
                self.unstreamed = true;
            }
            let pause = async {
                match failure.kind() {
                    WalErrorKind::SlotInUse | WalErrorKind::History => sleep(STANDBY_PAUSE).await,
                    _ => backoff.pause().await,
                }
            };
            if unless(&stop, pause).await.is_none() {
                break;
            }
        }
        self.shared.disconnected(false);
    }

    /// Whether PostgreSQL fails again and again to send what comes next, as a row of more than a
    /// gigabyte: then nothing behind it would ever be read, so the slot is made anew, behind it.
    fn is_stuck(&mut self, failure: &WalError) -> bool {
        if !failure.fails_again() {
            self.stuck = None;
            return false;
        }
        let Told { done, part, .. } = self.assembly.told();
        let here = (done, part);
        let times =
            self.stuck.take().filter(|(at, _)| *at == here).map_or(1, |(_, times)| times + 1);
        if times < ATTEMPTS {
            self.stuck = Some((here, times));
            return false;
        }
        tracing::warn!(error = %failure, "PostgreSQL cannot send what comes next in its log, so it is \
            left out: every table has a gap");
        true
    }

    /// Everything up to the beginning of a stream.
    async fn connect(&mut self) -> Result<Stream, WalError> {
        let (publication, members) = self.publication().await?;
        let Members { topics: members, layouts } = members;
        let mut line = match self.target.connect_for_replication().await {
            Ok(line) => line,
            Err((place, error)) => return Err(WalError::line(error, &place)),
        };
        let facts = Facts::ask(&mut line).await?;
        facts.check()?;
        let is_raw = self.read_charset(&mut line).await?;
        let same = match &self.facts {
            Some(before) => facts.follows(before, self.assembly.processed(), &mut line).await?,
            None => {
                facts.warn_of(&self.options.slot);
                true
            }
        };
        if !same {
            tracing::warn!("this is another database cluster than before, so everything is a gap");
        }
        let told = self.told_before(&facts, &mut line).await?;
        let name = self.slot_name();
        let opening = Opening {
            kind: &self.options.slot,
            temporary_name: &name,
            publication: &self.shared.publication,
            version: facts.version,
            patience: self.options.slot_timeout,
            pool: &self.shared.pool,
            afresh: self.afresh,
            streaming: self.options.streaming && !self.unstreamed,
            is_raw,
        };
        let mut beginning = opening.begin(&mut line).await?;
        beginning.resumed &= same;
        if beginning.was_lost {
            self.shared.metrics.set_back(WalErrorKind::SlotLost);
        }
        (self.afresh, self.unstreamed) = (false, false);
        self.shared.set_epoch(facts.snapshot.clone());
        let told = self.judge(told, &mut beginning);
        if !beginning.resumed {
            // Each of them is told a gap before it flows, whatever became of its partitions.
            let mut known = self.shared.partitions();
            layouts.into_iter().for_each(|(topic, layout)| known.set(&topic, layout));
        }
        self.begin(&beginning, &facts, told, publication, &members).await?;
        self.facts = Some(facts);
        let stream = Stream::start(line, beginning.from, self.options.stream());
        self.pulse = stream.pulse();
        Ok(stream)
    }

    /// A name for the next temporary slot: the last one may live on for a moment.
    fn slot_name(&mut self) -> String {
        self.begun += 1;
        format!("{}_{}", self.shared.publication, self.begun)
    }

    async fn publication(&self) -> Result<(Publication, Members), WalError> {
        let pooled = self.shared.pool.get().await?;
        let name = self.shared.publication.as_str();
        let first = self.begun == 0;
        let asked = pooled.run(|client| async move {
            if first && let Err(error) = keeper::sweep(client).await {
                tracing::debug!(%error, "publications left behind could not be dropped");
            }
            let publication = match publication::ensure(client, name).await {
                Ok(publication) => publication,
                Err(error) => return Ok(Err(error)),
            };
            Ok(Ok((publication, Members::ask(client, name).await?)))
        });
        match asked.await {
            Some(Ok(found)) => found,
            Some(Err(error)) => Err(WalError::statement(error, "looking at the publication")),
            None => Err(WalError::new(
                WalErrorKind::Connection(crate::connect::ErrorKind::Unreachable),
                "PostgreSQL does not answer in time",
            )),
        }
    }

    /// The stream is about to run: says what is owed before anything newer.
    async fn begin(
        &mut self,
        beginning: &Beginning,
        facts: &Facts,
        told: Option<Told>,
        publication: Publication,
        members: &HashMap<Topic, Admitted>,
    ) -> Result<(), WalError> {
        match told {
            Some(told) => self.assembly.resume(&told, beginning.from),
            None => self.assembly.begin(beginning.from, beginning.resumed),
        }
        // All that was sent of transactions that run is sent again.
        self.running = Running::default();
        self.spools.clear();
        let strangers = self.take_over(beginning.resumed, members).await?;
        self.pay_all().await?;
        if !beginning.resumed {
            self.interrupt_spoken().await?;
        }
        self.begin_marks(beginning.resumed, facts).await?;
        let shared = &self.shared;
        let reading = Reading {
            publication: publication.oid,
            ours: publication.ours,
            slot: beginning.slot.clone(),
            since: Instant::now(),
        };
        shared.forget_anew();
        shared.connected(reading, self.assembly.processed());
        tracing::info!(slot = beginning.slot, from = %beginning.from, resumed = beginning.resumed,
            "reading PostgreSQL's write-ahead log");
        for topic in strangers {
            tokio::spawn(admit(Arc::clone(shared), topic, self.options.add_timeout));
        }
        Ok(())
    }

    /// Says the gaps that are owed before anything newer.
    async fn pay_all(&self) -> Result<(), WalError> {
        let debtors = self.shared.tables().debtors();
        let shared = &self.shared;
        stream::iter(debtors)
            .for_each_concurrent(GAPS_AT_ONCE, |topic| async move {
                shared.pay(&topic).await;
            })
            .await;
        self.nothing_is_owed()
    }

    /// Reads one stream until it is lost or the task is told to stop.
    async fn read(&mut self, mut stream: Stream) -> Ended {
        let ended = loop {
            if let Err(ended) = self.step(&mut stream).await {
                break ended;
            }
        };
        let may_resume = match &ended {
            Ended::Lost(error) => {
                matches!(self.options.slot, SlotKind::Persistent { .. }) && !is_useless(error)
            }
            Ended::Stopped => true,
        };
        self.shared.disconnected(may_resume);
        stream.close().await;
        ended
    }

    async fn step(&mut self, stream: &mut Stream) -> Result<(), Ended> {
        tokio::select! {
            biased;
            // 1. Shutdown ends the stream politely.
            () = self.stop.cancelled() => Err(Ended::Stopped),
            // 2. The keeper found that the stream is of no more use.
            why = self.shared.must_begin_anew() => Err(Ended::Lost(why)),
            // 3. Somebody wants to know how far the server is.
            () = self.shared.ask.notified() => {
                stream.ask();
                Ok(())
            }
            // 4. Changes.
            batch = stream.next() => self.take(batch?, stream).await,
        }
    }

    /// Takes a batch and what is there beside it, publishes all of it, and confirms it.
    async fn take(&mut self, mut batch: Batch, stream: &mut Stream) -> Result<(), Ended> {
        if let Some(epoch) = self.shared.epoch() {
            self.assembly.set_epoch(epoch);
        }
        let mut outcome = self.take_items(batch.take()).await;
        while outcome.is_ok()
            && !self.assembly.is_ripe()
            && let Some(next) = stream.try_next()
        {
            outcome = match next {
                Ok(mut batch) => self.take_items(batch.take()).await,
                Err(error) => Err(error.into()),
            };
        }
        self.count();
        if self.marks.are_in_doubt() {
            // That is the failure. It is read again, so nothing here counts as told.
            return outcome;
        }
        // What came before any other failure was said all the same.
        let published = self.publish().await;
        let processed = self.assembly.processed();
        stream.confirm(self.marks.confirmable(processed));
        published?;
        self.shared.advance(processed);
        outcome
    }

    /// Takes things one by one; a large one is gone before what it became is published.
    async fn take_items(&mut self, items: Vec<Item>) -> Result<(), Ended> {
        self.shared.metrics.bytes.inc_by(items.iter().map(Item::bytes).sum());
        for item in items {
            match item {
                Item::Data(bytes) => self.take_message(&bytes, 0).await?,
                Item::Oversized(head, skipped) => self.take_message(&head, skipped).await?,
                Item::Sent(lsn) => sense(self.assembly.sent(lsn))?,
            }
            if self.assembly.is_ripe() {
                self.publish().await?;
            }
        }
        Ok(())
    }

    /// Has the assembly take a message, and asks the catalog what it needs for it.
    async fn assemble(
        &mut self,
        bytes: &[u8],
        take: fn(&mut Assembly, &[u8], bool) -> Result<(), Trouble>,
    ) -> Result<(), Ended> {
        let mut lenient = false;
        loop {
            let need = match take(&mut self.assembly, bytes, lenient) {
                Ok(()) => return Ok(()),
                Err(Trouble::Senseless(error)) => return Err(error.into()),
                Err(Trouble::Need(need)) => *need,
            };
            match need {
                Need::Forget(oid) => {
                    self.catalog.forget(&[oid]);
                    return Ok(());
                }
                Need::Relation(description) => return self.learn(description).await,
                Need::Again(description) => self.learn(description).await?,
                Need::Characters(characters) => self.learn_characters(&characters).await?,
                Need::Parts(tables) => self.learn_parts(&tables).await?,
                Need::Key => self.learn_key().await?,
                Need::Shapes(description) => {
                    let oids: Vec<u32> = description.columns.iter().map(|c| c.type_oid).collect();
                    self.catalog.forget(&oids);
                    self.learn(description).await?;
                    // A type that was altered twice meanwhile is told as text.
                    lenient = true;
                }
            }
        }
    }

    /// A row that was too large to be read is a gap in its table.
    async fn take_oversized(&mut self, head: &[u8], bytes: usize) -> Result<(), Ended> {
        self.shared.metrics.oversized.inc();
        let relation = head.get(1..5).and_then(|oid| oid.try_into().ok()).map(u32::from_be_bytes);
        let outdated = relation.and_then(|relation| self.assembly.outdated(relation)).cloned();
        if let Some(description) = outdated {
            self.learn(description).await?;
        }
        if let Some(topic) = self.assembly.oversized(head)
            && let Some(unsaid) = self.oversized.due()
        {
            tracing::warn!(%topic, bytes, limit = self.options.row_bytes, unsaid,
                "a row or message is larger than row_bytes allows, so its topic has a gap there");
        }
        Ok(())
    }

    /// Hands over what is ready.
    async fn publish(&mut self) -> Result<(), WalError> {
        let drafts = self.assembly.harvest();
        let drafts = self.of_their_names(drafts).await?;
        if self.marks.are_kept() {
            return self.publish_marked(drafts).await;
        }
        self.publish_alone(drafts).await;
        Ok(())
    }

    fn count(&mut self) {
        let (counts, metrics) = (self.assembly.counts(), &self.shared.metrics);
        metrics.transactions.inc_by(counts.transactions);
        metrics.changes.inc_by(counts.changes);
        metrics.messages.inc_by(counts.messages);
        metrics.bad_messages.inc_by(counts.bad_messages);
        metrics.forged.inc_by(counts.forged);
        metrics.misshapen.inc_by(counts.misshapen);
        metrics.oversized.inc_by(counts.oversized);
        metrics.unreadable.inc_by(counts.unreadable);
    }
}

/// Whether what the slot would send is of no use after this.
fn is_useless(error: &WalError) -> bool {
    matches!(
        error.kind(),
        WalErrorKind::SlotLost | WalErrorKind::PublicationLost | WalErrorKind::TooFarBehind
    )
}

/// The outcome, or `None` when told to stop before it is there.
async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        outcome = work => Some(outcome),
    }
}

impl WalOptions {
    /// The keeper that goes with a reader.
    pub(super) fn keeper(&self, shared: &Arc<Shared>, stop: &CancellationToken) -> Keeper {
        Keeper {
            shared: Arc::clone(shared),
            stop: stop.clone(),
            check_interval: self.check_interval,
            add_timeout: self.add_timeout,
            linger: self.linger,
            max_lag_bytes: self.max_lag_bytes,
            leftovers: HashMap::new(),
            waits: 0,
        }
    }
}
