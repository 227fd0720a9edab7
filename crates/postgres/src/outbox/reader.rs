//! The task that reads: connects, polls, sleeps and wakes, and begins again when the connection
//! is lost.
//!
//! It decides nothing of its own: [`Window`] knows what was told, [`Pace`] when to look again,
//! [`Shared`] which tables are followed, [`Place`] whether reading can go on.

mod beginning;
mod careful;
mod catalog;
mod ended;
mod keeping;
mod partitions;
mod polling;
mod renamed;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidewire::Publisher;
use tokio::time::{Instant, sleep};
use tokio_postgres::Statement;
use tokio_util::sync::CancellationToken;

use super::OutboxOptions;
use super::link::{Link, PRUNED_AT_ONCE};
use super::pace::{Next, Pace};
use super::place::Place;
use super::recording::Recording;
use super::shared::Shared;
use super::teller::{CATALOG_LIMIT, Teller};
use super::window::Window;
use crate::connect::{Pool, Target};
use crate::notify::Backoff;
use careful::CONTENT_LIMIT;
use ended::Ended;
use keeping::Kept;
use partitions::Parted;
use renamed::Searches;

/// A reader that sleeps looks anyway after this long, should a notification get lost.
const SAFETY: Duration = Duration::from_secs(1);

/// How often the catalog is looked at while changes come, and while none do.
const BUSY_UPKEEP: Duration = Duration::from_secs(1);
const IDLE_UPKEEP: Duration = Duration::from_secs(5);

/// How often rows that were told are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

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
    searches: Searches,
    /// For the contents of rows after a poll failed for one of them.
    contents: Pool,
    /// Tables that have a name now which cannot be read.
    unnamed: HashSet<u32>,
}

impl Reader {
    pub(super) fn new(
        target: Target,
        publisher: Publisher,
        (shared, recording, stop): (Arc<Shared>, Arc<Recording>, CancellationToken),
        options: OutboxOptions,
    ) -> Self {
        let pool = Pool::new(&target, 1, CATALOG_LIMIT, CATALOG_LIMIT);
        let teller = Teller::new(publisher, Arc::clone(&shared), pool);
        let (window, place, seen, kept) = (Window::default(), None, None, None);
        let (parted, searches) = (Parted::default(), Searches::new(recording));
        let contents = Pool::new(&target, 1, CATALOG_LIMIT, CONTENT_LIMIT);
        Self {
            target,
            shared,
            stop,
            options,
            teller,
            window,
            place,
            seen,
            kept,
            parted,
            searches,
            contents,
            unnamed: HashSet::new(),
        }
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
                self.shared.connected();
                let since = Instant::now();
                let ended = self.keep_reading(&link, &mut reading).await;
                backoff.was_open(since);
                ended
            }
            Err(ended) => ended,
        };
        let ended = self.leave(ended).await;
        link.close().await;
        ended
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

    /// What has to be done now and then.
    async fn upkeep(&mut self, link: &Link, reading: &mut Reading) -> Result<(), Ended> {
        self.shared.look();
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
