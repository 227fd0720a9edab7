//! The task that reads: connects, polls, sleeps and wakes, and begins again when the connection
//! is lost.
//!
//! It decides nothing of its own: [`Window`] knows what was told, [`Pace`] when to look again,
//! [`Shared`] which tables are followed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tidewire::Publisher;
use tidewire_protocol::GapReason;
use tidewire_protocol::change::Operation;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Row, Statement};
use tokio_util::sync::CancellationToken;

use super::link::{Link, PRUNED_AT_ONCE, Scene};
use super::pace::{Next, Pace};
use super::relations;
use super::shared::{Round, Shared};
use super::teller::{CATALOG_LIMIT, Table, Teller};
use super::window::{Stored, What, Window};
use crate::connect::{ConnectError, Pool, Target};
use crate::notify::Backoff;
use crate::sql;

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
    pub(super) target: Target,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) interval: Duration,
    teller: Teller,
    window: Window,
    /// Who we are, to the outbox.
    name: String,
    /// Where to go on; none before the first connection.
    place: Option<Scene>,
}

/// Why a connection is no longer read from.
enum Ended {
    /// The source is being shut down.
    Stopped,
    /// The connection is gone, or of no use.
    Lost(ConnectError),
    /// Somebody else reads, or nothing is installed: nothing is wrong with the connection.
    Waiting(String),
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

impl Reader {
    pub(super) fn new(
        target: Target,
        publisher: Publisher,
        shared: Arc<Shared>,
        stop: CancellationToken,
        interval: Duration,
    ) -> Self {
        let pool = Pool::new(&target, 1, CATALOG_LIMIT, CATALOG_LIMIT);
        let teller = Teller::new(publisher, Arc::clone(&shared), pool);
        let (window, name) = (Window::default(), random_uuid());
        Self { target, shared, stop, interval, teller, window, name, place: None }
    }

    /// Reads until told to stop.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            let ended = self.read(&mut backoff).await;
            self.shared.disconnected();
            let pause = match ended {
                Ended::Stopped => break,
                Ended::Lost(error) => {
                    self.shared.failed(error.to_string());
                    None
                }
                Ended::Waiting(why) => {
                    self.shared.failed(why);
                    Some(STANDBY_PAUSE)
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = async {
                    match pause {
                        // Whoever adds a table may just have installed what was missing.
                        Some(pause) => tokio::select! {
                            () = sleep(pause) => {}
                            () = self.shared.wanted() => {}
                        },
                        None => backoff.pause().await,
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
        // What counts as told is told before a gap that the next connection may bring.
        self.teller.flush().await;
        link.close().await;
        ended
    }

    /// Becomes the reader and finds the place to go on from.
    async fn begin(&mut self, link: &Link) -> Result<Reading, Ended> {
        let installed = link.answer(sql::found(link.client())).await?;
        let Some(installed) = installed.filter(|it| it.version >= sql::VERSION) else {
            return Err(Ended::Waiting(sql::NOT_INSTALLED.to_owned()));
        };
        if !link.become_reader().await? {
            let who = link.other_reader().await.map_or_else(String::new, |pid| format!(" ({pid})"));
            let why = format!("another Tidewire server reads this database's outbox{who}");
            return Err(Ended::Waiting(why));
        }
        if installed.sink != sql::Sink::Outbox.word() {
            self.claim_messages(link).await;
        }
        let scene = link.take_over(&self.name).await?;
        self.go_on(scene.clone()).await;
        let poll = link.prepare_poll().await?;
        Ok(Reading {
            poll,
            pace: Pace::new(self.interval, scene.may_sleep, Instant::now()),
            brought: false,
            upkeep: Upkeep::due_now(),
        })
    }

    /// `tidewire.publish` has to say things where somebody reads.
    async fn claim_messages(&self, link: &Link) {
        const SQL: &str = "UPDATE tidewire.settings SET sink = 'outbox'";
        if let Err(error) = link.answer(link.client().batch_execute(SQL)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "tidewire.publish still writes to the write-ahead log, which is not read"
            );
        }
    }

    /// Goes on where reading ended, or tells that it cannot.
    async fn go_on(&mut self, scene: Scene) {
        let lost = match &self.place {
            None => {
                self.teller.recall_voices().await;
                None
            }
            Some(before) if before.epoch != scene.epoch => Some(GapReason::EpochChanged),
            Some(before) if !scene.mine || before.losses != scene.losses => {
                Some(GapReason::ConnectionLost)
            }
            Some(before) => {
                let snapshot = before.snapshot.clone();
                self.place = Some(Scene { snapshot, ..scene });
                self.shared.metrics.reconnects.inc();
                return;
            }
        };
        self.place = Some(scene);
        self.window = Window::default();
        if let Some(reason) = lost {
            tracing::warn!(%reason, "changes of all tables that are followed were lost");
            self.shared.owe_all(reason);
            self.teller.lost_messages(reason).await;
        }
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
        self.say_gaps().await;
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
    async fn say_gaps(&mut self) {
        self.teller.begin_round().await;
        for (topic, reason) in self.shared.owed() {
            if self.teller.gap(&topic, reason).await {
                self.shared.paid(&topic);
            }
        }
    }

    /// Reads and tells what became visible; gives whether there was anything.
    async fn poll(&mut self, link: &Link, reading: &Reading) -> Result<bool, Ended> {
        self.shared.metrics.polls.inc();
        let round = self.begin_round(link).await?;
        let tables: Vec<u32> = round.tables.iter().map(|(oid, _)| *oid).collect();
        let place = self.place.as_ref().expect("a place was found when reading began");
        let rows = link.poll(&reading.poll, &place.snapshot, &tables, self.window.torn()).await?;
        let mut rows = pin!(rows);
        self.window.begin();
        let (mut seen, mut count, mut items) = (None, 0_u64, Vec::new());
        while let Some(row) = link.next_row(&mut rows).await? {
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            match stored(&row) {
                Some(stored) => {
                    self.window.take(stored, &mut items);
                    count += 1;
                    self.teller.tell(&mut items).await;
                }
                None => seen = row.get("snapshot"),
            }
        }
        self.window.finish(&mut items);
        self.teller.tell(&mut items).await;
        self.teller.flush().await;
        if let (Some(snapshot), Some(place)) = (seen, &mut self.place) {
            place.snapshot = snapshot;
        }
        self.shared.metrics.rows.inc_by(count);
        self.shared.end_round(&round);
        Ok(count > 0)
    }

    /// The tables of this round, each with what the catalog says about it.
    async fn begin_round(&mut self, link: &Link) -> Result<Round, Ended> {
        let mut round = self.shared.begin_round();
        let is_known = |(oid, topic): &(u32, tidewire_protocol::Topic)| {
            self.teller.tables.get(oid).is_some_and(|table| table.topic == *topic)
        };
        if !round.tables.iter().all(is_known) {
            self.look_at_catalog(link).await?;
        }
        // Those that are gone have told so, and are asked for again by whoever listens anew.
        round.tables.retain(|(oid, _)| self.teller.tables.contains_key(oid));
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
            let place = self.place.as_ref().expect("a place was found when reading began");
            if link.prune(&place.snapshot).await? < PRUNED_AT_ONCE / 2 {
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
            match (known, self.teller.tables.get_mut(&oid)) {
                (Some(known), Some(table)) if table.topic == topic => table.known.renew(known),
                (Some(known), _) => {
                    self.teller.tables.insert(oid, Table { topic, known });
                }
                (None, _) => {}
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

/// A row of the outbox; `None` for the first row of a poll, which is the snapshot.
fn stored(row: &Row) -> Option<Stored> {
    let id: i64 = row.get::<_, Option<i64>>("id")?;
    let xid: i64 = row.get("xid");
    Some(Stored { id, xid: xid.cast_unsigned(), at: row.get("at"), what: what(row) })
}

fn what(row: &Row) -> What {
    let op = row.get::<_, i8>("op").cast_unsigned();
    if matches!(op, b'J' | b'M') {
        return What::Message {
            topic: text(row, "topic").unwrap_or_default(),
            name: text(row, "event"),
            payload: text(row, "payload").unwrap_or_default(),
            json: op == b'J',
        };
    }
    let (Some(true), Some(rel)) = (row.get("wanted"), row.get::<_, Option<u32>>("root")) else {
        return What::Unwanted;
    };
    let operation = match op {
        b'I' => Operation::Insert,
        b'U' => Operation::Update,
        b'D' => Operation::Delete,
        b'T' => Operation::Truncate,
        _ => {
            let why = text(row, "payload").unwrap_or_else(|| "unknown operation".to_owned());
            return What::Unrecorded { rel, why };
        }
    };
    What::Change { rel, operation, record: text(row, "rec"), old: text(row, "old") }
}

fn text(row: &Row, column: &str) -> Option<String> {
    row.get(column)
}

/// A name that no other reader has.
fn random_uuid() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness two readers could take each other for themselves, so the process id
    // stands in; this happens on no system that can speak TLS.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
