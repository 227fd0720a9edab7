//! The task that reads: connects, polls, sleeps and wakes, and begins again when the connection
//! is lost.
//!
//! It decides nothing of its own: [`Window`] knows what was told, [`Pace`] when to look again,
//! [`Shared`] which tables are followed, [`Place`] whether reading can go on.

mod beginning;
mod partitions;
mod rows;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tidewire::Publisher;
use tidewire_protocol::GapReason;
use tokio::time::{Instant, sleep};
use tokio_postgres::Statement;
use tokio_util::sync::CancellationToken;

use super::OutboxOptions;
use super::link::{Link, PRUNED_AT_ONCE};
use super::pace::{Next, Pace};
use super::place::{Part, Place};
use super::relations;
use super::shared::{Round, Shared};
use super::teller::{CATALOG_LIMIT, Table, Teller};
use super::window::Window;
use crate::connect::{ConnectError, Pool, Target};
use crate::notify::Backoff;
use partitions::Parted;
use rows::{Head, stored};

/// A reader that sleeps looks anyway after this long, should a notification get lost.
const SAFETY: Duration = Duration::from_secs(1);

/// How often the catalog is looked at while changes come, and while none do.
const BUSY_UPKEEP: Duration = Duration::from_secs(1);
const IDLE_UPKEEP: Duration = Duration::from_secs(5);

/// How often rows that were told are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// How often progress that brought nothing is kept: rarely enough that tables nobody listens to
/// cost a history little, often enough that their rows do not pile up.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// Pause before asking again whether the other reader is gone, or somebody installed the outbox.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// The task and what it knows.
pub(super) struct Reader {
    target: Target,
    shared: Arc<Shared>,
    stop: CancellationToken,
    options: OutboxOptions,
    teller: Teller,
    window: Window,
    /// Where to go on; none before the first connection.
    place: Option<Place>,
    /// The snapshot up to which the poll of now reads.
    seen: Option<String>,
    /// The place that a history which outlives the process holds.
    kept: Option<Kept>,
    parted: Parted,
}

/// A place that was kept.
struct Kept {
    place: Place,
    at: Instant,
    /// Rows were read since.
    is_old: bool,
}

/// Why a connection is no longer read from.
enum Ended {
    /// The source is being shut down.
    Stopped,
    /// The connection is gone, or of no use.
    Lost(ConnectError),
    /// Somebody else reads, or nothing is installed: nothing is wrong with the connection.
    Waiting(String),
    /// The history does not take, or give, what has to be kept.
    History(tidewire::Error),
    /// Changes were removed, so it has to be seen what can still be told.
    Removed,
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

impl From<tidewire::Error> for Ended {
    fn from(error: tidewire::Error) -> Self {
        Self::History(error)
    }
}

impl Ended {
    /// In words, for who asks how reading goes.
    fn explain(self) -> Option<String> {
        match self {
            Self::Stopped => None,
            Self::Lost(error) => Some(error.to_string()),
            Self::Waiting(why) => Some(why),
            Self::History(error) => Some(format!(
                "the history does not take what the outbox says, so reading waits for it: {error}"
            )),
            Self::Removed => {
                Some("changes were removed from the outbox, by writers or by hand".to_owned())
            }
        }
    }
}

impl Reader {
    pub(super) fn new(
        target: Target,
        publisher: Publisher,
        shared: Arc<Shared>,
        stop: CancellationToken,
        options: OutboxOptions,
    ) -> Self {
        let pool = Pool::new(&target, 1, CATALOG_LIMIT, CATALOG_LIMIT);
        let teller = Teller::new(publisher, Arc::clone(&shared), pool);
        let (window, place, seen, kept) = (Window::default(), None, None, None);
        let parted = Parted::default();
        Self { target, shared, stop, options, teller, window, place, seen, kept, parted }
    }

    /// Reads until told to stop.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let ended = self.read(&mut backoff).await;
            self.shared.disconnected();
            let is_waiting = matches!(ended, Ended::Waiting(_));
            let Some(why) = ended.explain() else { break };
            self.shared.failed(why);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = async {
                    match is_waiting {
                        // Whoever adds a table may just have installed what was missing.
                        true => tokio::select! {
                            () = sleep(STANDBY_PAUSE) => {}
                            () = self.shared.wanted() => {}
                        },
                        false => backoff.pause().await,
                    }
                } => {}
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn read(&mut self, backoff: &mut Backoff) -> Ended {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ended::Stopped,
            opened = Link::open(&self.target) => opened,
        };
        let link = match opened {
            Ok(link) => link,
            Err(error) => return Ended::Lost(error),
        };
        let ended = match self.begin(&link).await {
            Ok(mut reading) => {
                backoff.reset();
                self.shared.connected();
                self.keep_reading(&link, &mut reading).await
            }
            Err(ended) => ended,
        };
        let ended = self.leave(ended).await;
        link.close().await;
        ended
    }

    /// What counts as told is told before a gap that the next connection may bring.
    async fn leave(&mut self, ended: Ended) -> Ended {
        let flushed = match &ended {
            // Nobody knows what it took, so that is asked first.
            Ended::History(_) => Ok(()),
            _ => self.flush_all().await,
        };
        self.teller.forget_drafts();
        self.window.begin(None);
        self.seen = None;
        flushed.err().map_or(ended, Ended::History)
    }

    async fn keep_reading(&mut self, link: &Link, reading: &mut Reading) -> Ended {
        loop {
            if let Err(ended) = self.step(link, reading).await {
                return ended;
            }
        }
    }

    /// One poll and the pause after it.
    async fn step(&mut self, link: &Link, reading: &mut Reading) -> Result<(), Ended> {
        self.upkeep(link, reading).await?;
        self.say_gaps(link).await?;
        let brought = self.poll(link, reading).await?;
        reading.brought |= brought;
        let mut next = reading.pace.after_poll(brought, Instant::now());
        if let Next::TryToSleep(otherwise) = next {
            next = match link.sleep().await? {
                true => {
                    reading.pace.sleeps();
                    self.shared.metrics.sleeps.inc();
                    // Once more: a writer may have come before the lock.
                    Next::Look(Duration::ZERO)
                }
                false => Next::Look(otherwise),
            };
        }
        if next == Next::Sleep {
            next = self.sleep(link, &mut reading.pace).await?;
        }
        if let Next::Rise(pause) = next {
            link.rise().await?;
            reading.pace.rose();
            next = Next::Look(pause);
        }
        match next {
            Next::Look(pause) => self.pause(pause).await,
            _ => Ok(()),
        }
    }

    /// Waits to be notified, or wanted, or for a while.
    async fn sleep(&self, link: &Link, pace: &mut Pace) -> Result<Next, Ended> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = link.notified() => Ok(pace.notified(Instant::now())),
            () = self.shared.wanted() => Ok(Next::Look(Duration::ZERO)),
            () = sleep(SAFETY) => Ok(Next::Look(Duration::ZERO)),
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), Ended> {
        if pause.is_zero() && !self.stop.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = self.shared.wanted() => Ok(()),
            () = sleep(pause) => Ok(()),
        }
    }

    /// Says the gaps that are owed. One that cannot be said stays owed, and its table silent.
    async fn say_gaps(&mut self, link: &Link) -> Result<(), Ended> {
        self.teller.begin_round().await;
        if self.shared.owed().is_empty() {
            return Ok(());
        }
        // Their triggers are to be as they are when the gap is said.
        self.look_at_catalog(link).await?;
        let here = self.here();
        self.teller.pay(self.shared.owed(), &here).await?;
        self.was_kept(here);
        self.keep_partitions().await;
        Ok(())
    }

    /// Reads and tells what became visible; gives whether there was anything.
    async fn poll(&mut self, link: &Link, reading: &Reading) -> Result<bool, Ended> {
        self.shared.metrics.polls.inc();
        let round = self.begin_round(link).await?;
        let tables: Vec<u32> = round.tables.iter().map(|(oid, _)| *oid).collect();
        let Place { since, part, .. } = self.here();
        // One that broke off is read to its end first.
        let upto = part.as_ref().map(|part| &*part.seen);
        let rows = link.poll(&reading.poll, &since, &tables, upto).await?;
        let mut rows = pin!(rows);
        self.window.begin(part.as_ref().map(|part| &part.spot));
        let (mut count, mut items) = (0_u64, Vec::new());
        while let Some(row) = link.next_row(&mut rows).await? {
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            match stored(&row) {
                Some(stored) => {
                    self.window.take(stored, &mut items);
                    count += 1;
                    self.teller.tell(&mut items).await;
                    if self.teller.is_full() {
                        self.flush().await?;
                    }
                }
                None => self.seen = Some(self.look_at_head(Head::of(&row))?),
            }
        }
        let whole = self.window.finish(&mut items);
        self.teller.tell(&mut items).await;
        self.end_poll(whole, count).await?;
        if upto.is_none() {
            self.tell_partitions();
            self.shared.end_round(&round);
        }
        Ok(count > 0)
    }

    /// Whether nothing was removed; gives the snapshot up to which the poll reads.
    fn look_at_head(&self, head: Head) -> Result<String, Ended> {
        let outbox = &self.place.as_ref().expect("it was found when reading began").outbox;
        match (head.file, head.losses) == (outbox.file, outbox.losses) {
            true => Ok(head.seen),
            false => Err(Ended::Removed),
        }
    }

    /// Everything up to the end of the poll is told.
    async fn end_poll(&mut self, whole: bool, count: u64) -> Result<(), Ended> {
        let since = self.seen.take().expect("the first row of a poll says it");
        let place = self.place.as_mut().expect("it was found when reading began");
        (place.since, place.part) = (since, None);
        self.window.begin(None);
        if !whole {
            // Somebody deleted rows that were there when this poll was first read.
            let place = place.clone();
            self.begin_at(place, Some(GapReason::ConnectionLost)).await?;
        }
        if let Some(kept) = &mut self.kept {
            kept.is_old |= count > 0;
        }
        self.flush().await?;
        self.keep_now_and_then().await?;
        self.shared.metrics.rows.inc_by(count);
        Ok(())
    }

    /// How far everything is told once what the teller has is handed over.
    fn here(&self) -> Place {
        let place = self.place.clone().expect("it was found when reading began");
        match self.seen.clone().zip(self.window.spot()) {
            Some((seen, spot)) => Place { part: Some(Part { seen, spot }), ..place },
            None => place,
        }
    }

    async fn flush(&mut self) -> Result<(), tidewire::Error> {
        if self.place.is_none() {
            return Ok(());
        }
        let here = self.here();
        if self.teller.flush(&here).await? {
            self.was_kept(here.clone());
        }
        self.place = Some(here);
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), tidewire::Error> {
        self.flush().await?;
        self.keep_if(|kept| kept.is_old).await
    }

    /// The history holds everything up to there, and says so.
    fn was_kept(&mut self, place: Place) {
        if self.teller.publisher.keeps_marks() {
            self.kept = Some(Kept { place, at: Instant::now(), is_old: false });
        }
    }

    /// Rows that brought nothing are to be removed, too, and for that they must be behind what is
    /// kept.
    async fn keep_now_and_then(&mut self) -> Result<(), tidewire::Error> {
        self.keep_if(|kept| kept.is_old && kept.at.elapsed() >= KEEP_PAUSE).await
    }

    async fn keep_if(&mut self, is_due: impl Fn(&Kept) -> bool) -> Result<(), tidewire::Error> {
        if self.kept.as_ref().is_some_and(is_due) {
            let here = self.here();
            self.teller.keep(&here).await?;
            self.was_kept(here);
        }
        Ok(())
    }

    /// The tables of this round, each with what the catalog says about it.
    async fn begin_round(&mut self, link: &Link) -> Result<Round, Ended> {
        self.shared.expire(Instant::now());
        let mut round = self.shared.begin_round();
        let is_known = |(oid, topic): &(u32, tidewire_protocol::Topic)| {
            self.teller.tables.get(oid).is_some_and(|table| table.topic == *topic)
        };
        if !round.tables.iter().all(is_known) {
            self.look_at_catalog(link).await?;
            self.shared.leave_out_owing(&mut round);
        }
        // Those that are gone have told so, and are asked for again by whoever listens anew.
        round.tables.retain(|(oid, _)| self.teller.tables.contains_key(oid));
        self.teller.tells_only(&round.tables).await?;
        Ok(round)
    }

    /// What has to be done now and then.
    async fn upkeep(&mut self, link: &Link, reading: &mut Reading) -> Result<(), Ended> {
        let now = Instant::now();
        let catalog = if reading.brought { BUSY_UPKEEP } else { IDLE_UPKEEP };
        if now >= reading.upkeep.catalog + catalog {
            reading.upkeep.catalog = now;
            reading.brought = false;
            self.look_at_catalog(link).await?;
        }
        if now >= reading.upkeep.prune + PRUNE_INTERVAL {
            let place = self.kept.as_ref().map(|kept| &kept.place).or(self.place.as_ref());
            let told = &place.expect("it was found when reading began").since;
            if link.prune(told).await? < PRUNED_AT_ONCE / 2 {
                reading.upkeep.prune = now;
            }
        }
        Ok(())
    }

    /// Sees which tables were altered, renamed, dropped, or lost their triggers.
    async fn look_at_catalog(&mut self, link: &Link) -> Result<(), Ended> {
        let followed = self.shared.followed();
        let oids: Vec<u32> = followed.iter().map(|(oid, _)| *oid).collect();
        let loaded = link.answer(relations::load(link.client(), &oids)).await?;
        let mut loaded: std::collections::HashMap<_, _> = loaded.into_iter().collect();
        self.teller.tables.retain(|oid, _| loaded.contains_key(oid));
        for (oid, topic) in followed {
            let known = loaded.remove(&oid);
            let named = known.as_ref().is_some_and(|known| {
                let relation = &known.relation;
                known.flows && topic.name() == format!("{}.{}", relation.schema, relation.table)
            });
            if self.shared.set_flows(&topic, oid, named) && !named {
                tracing::warn!(%topic,
                    "the table was dropped or renamed, or its triggers were: its changes are not \
                     told until somebody subscribes anew or they are back");
            }
            let is_altered = |known| self.teller.is_altered(&topic, oid, known);
            if named && known.as_ref().is_some_and(is_altered) {
                tracing::warn!(%topic, "the table's triggers were made anew, or switched off and on");
                self.shared.owe(&topic, GapReason::NotListening);
            }
            match (known, self.teller.tables.get_mut(&oid)) {
                (Some(known), Some(table)) if table.topic == topic => table.known.renew(known),
                (Some(known), _) => {
                    self.teller.tables.insert(oid, Table { topic, known });
                }
                (None, _) => {}
            }
        }
        self.look_at_partitions(link).await
    }
}

/// One connection being read from.
struct Reading {
    poll: Statement,
    pace: Pace,
    /// Something came since the catalog was last looked at.
    brought: bool,
    upkeep: Upkeep,
}

/// When what was last done.
struct Upkeep {
    catalog: Instant,
    prune: Instant,
}

impl Upkeep {
    fn due_now() -> Self {
        let now = Instant::now();
        let long_ago = now.checked_sub(IDLE_UPKEEP).unwrap_or(now);
        Self { catalog: long_ago, prune: now }
    }
}
