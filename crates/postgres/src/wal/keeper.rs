//! Looks after what the stream itself does not tell: that the publication and its tables are still
//! there, how far the slot is behind, which tables nobody listens to any more.
//!
//! On PostgreSQL 18 a dropped publication makes the stream go silent without an error, and up to 17
//! the error comes with the first change; so it is looked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidewire_protocol::Topic;
use tidewire_protocol::change::Snapshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::admission::admit;
use super::error::{WalError, WalErrorKind};
use super::partitions::misfits;
use super::publication::{self, Member, Publication};
use super::shared::{Reading, Shared, age};
use super::slot::SlotStatus;
use super::standing::{Admitted, Standing, standings};
use crate::naming;
use crate::partitions::{self, Layout};

/// How often debts are looked after.
const TICK: Duration = Duration::from_secs(1);

/// The slot we read with, and which transactions there are.
const SLOT: &str = "\
SELECT s.temporary, s.wal_status, s.safe_wal_size,
       coalesce(pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn), 0)::int8 AS lag,
       pg_catalog.pg_current_snapshot()::text AS snapshot,
       coalesce(a.wait_event = 'WaitForStandbyConfirmation', false) AS waits,
       (SELECT pg_catalog.string_agg(w.name, ', ')
        FROM pg_catalog.unnest(pg_catalog.string_to_array(
            pg_catalog.current_setting('synchronized_standby_slots', true), ',')) w (name)
        LEFT JOIN pg_catalog.pg_replication_slots p ON p.slot_name = pg_catalog.btrim(w.name)
        WHERE p.active IS NOT TRUE) AS absent
FROM (SELECT) one LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1
     LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid";

/// Looks in a row that find PostgreSQL waiting for standbys before that counts as standing still: a
/// standby that is merely behind is waited for in between.
const WAITS: u32 = 2;

/// The task and what it knows.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: CancellationToken,
    pub(super) check_interval: Duration,
    pub(super) add_timeout: Duration,
    pub(super) linger: Duration,
    pub(super) max_lag_bytes: Option<u64>,
    /// Tables in our publication that nobody asked for, and since when.
    pub(super) leftovers: HashMap<u32, Instant>,
    /// Looks in a row that found PostgreSQL waiting for standbys.
    pub(super) waits: u32,
}

/// What a look at the database found.
struct Look {
    publication: Option<Publication>,
    members: Vec<Member>,
    /// As what they are in it.
    standings: HashMap<u32, Admitted>,
    /// Of the members, those whose rows cannot be updated any more.
    unfit: Vec<Member>,
    slot: SlotStatus,
    /// The standbys that PostgreSQL waits for before it sends anything, if it waits for any.
    waits_for: Option<String>,
    snapshot: Option<Snapshot>,
    /// Of the members, the partitioned ones.
    partitions: HashMap<u32, Layout>,
}

impl Keeper {
    /// Keeps until told to stop.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(TICK.min(self.check_interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.shared.look();
            let Some(reading) = self.shared.reading() else { continue };
            self.shared.tell_stops().await;
            self.pay_debts().await;
            self.expire().await;
            if checked.elapsed() >= self.check_interval {
                self.check(&reading).await;
                checked = Instant::now();
            }
        }
    }

    /// Says gaps that could not be said before.
    async fn pay_debts(&self) {
        let debtors = self.shared.tables().debtors();
        for topic in debtors {
            self.shared.pay(&topic).await;
        }
    }

    /// Takes tables out of the publication that nobody has listened to for long.
    async fn expire(&self) {
        let expired = self.shared.tables().expired(Instant::now());
        for (topic, gate) in expired {
            let Ok(_entered) = gate.try_lock() else { continue };
            // First, so that whoever begins after us does not take it for one that flows.
            if !self.shared.keep(self.shared.flows_no_more(&topic)).await {
                continue;
            }
            if !self.shared.tables().expire(&topic, Instant::now()) {
                self.shared.keep(self.shared.flows(&topic)).await;
                continue;
            }
            let (schema, table) =
                topic.name().split_once('.').expect("a table is named schema.table");
            self.unpublish(schema, table).await;
        }
    }

    async fn unpublish(&self, schema: &str, table: &str) {
        let Some(reading) = self.shared.reading().filter(|reading| reading.ours) else { return };
        let Ok(pooled) = self.shared.pool.get().await else { return };
        let name = &self.shared.publication;
        let removed = pooled.run(|client| publication::remove(client, name, schema, table)).await;
        if let Some(Err(error)) = removed {
            tracing::warn!(schema, table, publication = reading.publication, %error,
                "a table that nobody listens to could not be taken out of the publication");
        }
    }

    async fn check(&mut self, reading: &Reading) {
        let before = self.shared.tables().members();
        let met = self.shared.partitions().met();
        let Ok(pooled) = self.shared.pool.get().await else { return };
        let (name, slot) = (&self.shared.publication, &reading.slot);
        let look = match pooled.run(|client| look(client, name, slot)).await {
            Some(Ok(look)) => look,
            Some(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the publication and the slot could not be looked at"
                );
                return;
            }
            None => return,
        };
        drop(pooled);
        // The stream may have begun anew meanwhile, with another slot.
        if self.shared.reading().as_ref() != Some(reading) {
            return;
        }
        if let Some(snapshot) = look.snapshot {
            self.shared.set_epoch(snapshot);
        }
        if look.publication.map(|found| found.oid) != Some(reading.publication) {
            self.shared.begin_anew(publication::lost(&self.shared.publication));
            return;
        }
        self.judge_slot(look.slot, reading);
        self.judge_waiting(look.waits_for);
        let mut members = look.members;
        members.retain(|member| !look.unfit.contains(member));
        for member in &look.unfit {
            self.release(member).await;
        }
        self.compare(&members, look.standings, &before, reading).await;
        self.compare_partitions(&members, look.partitions, &met).await;
    }

    /// Takes out a table that was altered so that PostgreSQL refuses its UPDATEs while it is
    /// published. Who listens is told a gap, and why when they ask again.
    async fn release(&self, member: &Member) {
        tracing::warn!(
            schema = member.schema,
            table = member.table,
            "a table lost its replica identity, or that of a partition does not tell its key any \
             more, or the publication sends a part of it only, so it is let go of"
        );
        self.unpublish(&member.schema, &member.table).await;
    }

    fn judge_slot(&self, mut slot: SlotStatus, reading: &Reading) {
        slot.age = age(reading.since);
        let in_danger = matches!(slot.wal_status.as_deref(), Some("unreserved" | "lost"));
        let metrics = &self.shared.metrics;
        metrics.slot_age.set(i64::try_from(slot.age.as_secs()).unwrap_or(i64::MAX));
        metrics.slot_in_danger.set(i64::from(in_danger));
        if slot.wal_status.as_deref() == Some("lost") {
            let words = format!("PostgreSQL gave up replication slot \"{}\"", slot.name);
            self.shared.begin_anew(WalError::new(WalErrorKind::SlotLost, words));
        } else if let Some(limit) = self.max_lag_bytes.filter(|limit| slot.lag_bytes > *limit) {
            let words = format!(
                "PostgreSQL keeps {} bytes of log for us, more than the {limit} allowed: the slot \
                 is dropped and made anew, with a gap",
                slot.lag_bytes
            );
            self.shared.begin_anew(WalError::new(WalErrorKind::TooFarBehind, words));
        } else if in_danger {
            tracing::warn!(
                slot = slot.name,
                lag_bytes = slot.lag_bytes,
                "the replication slot is about to be given up by PostgreSQL"
            );
        }
        self.shared.set_slot(slot);
    }

    /// After a failover `synchronized_standby_slots` may still name the server that was left: then
    /// PostgreSQL sends nothing any more, without an error.
    fn judge_waiting(&mut self, waits_for: Option<String>) {
        self.waits = waits_for.as_ref().map_or(0, |_| self.waits.saturating_add(1));
        let stalled = waits_for.filter(|_| self.waits >= WAITS).map(|slots| {
            format!(
                "PostgreSQL sends nothing until the standbys of synchronized_standby_slots have \
                 confirmed, and nobody reads their slots ({slots}): start them, or take them out \
                 of that setting"
            )
        });
        self.shared.set_stalled(stalled);
    }

    /// Compares what is published with what is wanted.
    async fn compare(
        &mut self,
        members: &[Member],
        mut standings: HashMap<u32, Admitted>,
        before: &HashMap<Topic, Standing>,
        reading: &Reading,
    ) {
        let named = |member: &Member| {
            let standing = standings.remove(&member.oid)?.standing;
            Some((topic(member)?, standing))
        };
        let now: HashMap<Topic, Standing> = members.iter().filter_map(named).collect();
        self.shared.tables().compare(&now, before);
        self.shared.tell_stops().await;
        let strangers = self.shared.tables().strangers();
        for topic in strangers {
            // It says what it has to; a table that is gone is asked for again at the next look.
            let shared = Arc::clone(&self.shared);
            tokio::spawn(admit(shared, topic, self.add_timeout));
        }
        if reading.ours {
            self.remove_leftovers(members).await;
        }
    }

    async fn remove_leftovers(&mut self, members: &[Member]) {
        let unknown: Vec<&Member> = {
            let tables = self.shared.tables();
            let is_unknown =
                |member: &&Member| topic(member).is_none_or(|topic| !tables.contains(&topic));
            members.iter().filter(is_unknown).collect()
        };
        let now = Instant::now();
        self.leftovers.retain(|oid, _| unknown.iter().any(|member| member.oid == *oid));
        for member in unknown {
            let since = *self.leftovers.entry(member.oid).or_insert(now);
            if now.duration_since(since) >= self.linger {
                self.unpublish(&member.schema, &member.table).await;
            }
        }
    }
}

async fn look(client: &Client, name: &str, slot: &str) -> Result<Look, tokio_postgres::Error> {
    let publication = publication::find(client, name).await?;
    let (mut members, mut unfit) = (Vec::new(), Vec::new());
    if let Some(publication) = publication {
        members = publication::members(client, name).await?;
        if publication.ours {
            unfit = publication::without_identity(client, name).await?;
        }
    }
    let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
    let standings = standings(client, name, &oids).await?;
    let partitions = partitions::published(client, name, &oids).await?;
    let parted: Vec<u32> = partitions.keys().copied().collect();
    let misfits = misfits(client, name, &parted).await?;
    let row = client.query_one(SLOT, &[&slot]).await?;
    let snapshot: String = row.get("snapshot");
    let safe: Option<i64> = row.get("safe_wal_size");
    let absent: Option<String> = row.get("absent");
    let waits_for = absent.filter(|_| row.get("waits"));
    let slot = SlotStatus {
        name: slot.to_owned(),
        temporary: row.get::<_, Option<bool>>("temporary").unwrap_or_default(),
        lag_bytes: u64::try_from(row.get::<_, i64>("lag")).unwrap_or_default(),
        wal_status: row.get("wal_status"),
        safe_bytes: safe.map(|bytes| u64::try_from(bytes).unwrap_or_default()),
        age: Duration::ZERO,
    };
    let partial = publication::partial(client, name, &oids).await?;
    let tells_little = |member: &&Member| {
        misfits.iter().any(|it| it.table == member.oid)
            || partial.iter().any(|it| it.table == member.oid)
    };
    unfit.extend(members.iter().filter(tells_little).cloned());
    let snapshot = snapshot.parse().ok();
    Ok(Look { publication, members, standings, unfit, slot, waits_for, snapshot, partitions })
}

/// The topic of a table, if its name can be one.
pub(super) fn topic(member: &Member) -> Option<Topic> {
    naming::topic(&member.schema, &member.table)
}

/// A name for a publication of our own, which tells when it was made.
pub(super) fn fresh_name() -> String {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let random = getrandom::u32().unwrap_or_default();
    format!("tidewire_{seconds:08x}_{random:08x}")
}

/// Drops publications with such names that a process of ours left behind when it was killed.
///
/// One is left behind when it is older than an hour and nobody reads it: whoever made it a moment
/// ago may not have its slot yet.
pub(super) async fn sweep(client: &Client) -> Result<(), tokio_postgres::Error> {
    const LEFT: &str = "\
SELECT p.pubname::text FROM pg_catalog.pg_publication p
WHERE p.pubname ~ '^tidewire_[0-9a-f]{8}_[0-9a-f]{8}$'
  AND pg_catalog.pg_has_role(p.pubowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s
                  WHERE pg_catalog.starts_with(s.slot_name::text, p.pubname::text))";
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    for row in client.query(LEFT, &[]).await? {
        let name: String = row.get(0);
        let made = name.get(9..17).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if made.is_some_and(|made| made + 3_600 < now) {
            tracing::info!(publication = name, "dropping a publication that was left behind");
            drop_publication(client, &name).await?;
        }
    }
    Ok(())
}

/// Drops a publication.
pub(super) async fn drop_publication(
    client: &Client,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    let quoted = super::sql_text::identifier(name);
    client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {quoted}")).await
}
