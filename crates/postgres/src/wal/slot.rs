//! The replication slot: where the server remembers how far we are.
//!
//! A temporary one, the default, lives as long as its connection and leaves nothing behind; after
//! it a gap is told. A persistent one lets a restarted server go on where it was, at the price that
//! PostgreSQL keeps its log for us while we are away.

use std::time::Duration;

use tokio::time::timeout;

use super::error::{WalError, WalErrorKind};
use super::pgoutput::Lsn;
use super::sql_text::{identifier, literal};
use crate::charset;
use crate::connect::replication::{Line, LineError, Rows};
use crate::connect::{ErrorKind, Pool};

/// Which slot is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SlotKind {
    /// One with a random name that ends with its connection.
    #[default]
    Temporary,
    /// One that stays.
    Persistent {
        /// Its name: lower case letters, digits and underscores.
        name: String,
        /// Whether standbys keep a copy of it, so that it survives a failover; PostgreSQL 17 on.
        failover: bool,
    },
}

/// How a slot is, as `pg_replication_slots` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// Whether it ends with its connection.
    pub temporary: bool,
    /// Bytes of log that are kept for it.
    pub lag_bytes: u64,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before it is in danger; `None` without a limit.
    pub safe_bytes: Option<u64>,
    /// How long it is in use without a pause.
    pub age: Duration,
}

/// Where the stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) slot: String,
    /// Everything before this place is not sent.
    pub(super) from: Lsn,
    /// Whether it goes on exactly where it was, so nothing is missed.
    pub(super) resumed: bool,
    /// Whether there was a slot that PostgreSQL had given up.
    pub(super) was_lost: bool,
}

impl Beginning {
    fn anew(slot: &str, from: Lsn) -> Self {
        Self { slot: slot.to_owned(), from, resumed: false, was_lost: false }
    }
}

/// What is needed to begin.
pub(super) struct Opening<'o> {
    pub(super) kind: &'o SlotKind,
    /// The name of a temporary one.
    pub(super) temporary_name: &'o str,
    pub(super) publication: &'o str,
    pub(super) version: u32,
    pub(super) patience: Duration,
    pub(super) pool: &'o Pool,
    /// Whether an existing slot must not be used: what it would send is useless.
    pub(super) afresh: bool,
    /// Whether large transactions are sent while they run.
    pub(super) streaming: bool,
    /// Whether the line takes text in the encoding of the database, which is not UTF-8.
    pub(super) is_raw: bool,
}

impl Opening<'_> {
    /// Makes or takes a slot and begins to copy.
    pub(super) async fn begin(&self, line: &mut Line) -> Result<Beginning, WalError> {
        match self.kind {
            SlotKind::Temporary => {
                let slot = self.temporary_name;
                let from = self.create(line, slot).await?;
                self.start(line, slot).await?;
                Ok(Beginning::anew(slot, from))
            }
            SlotKind::Persistent { name, .. } => self.begin_persistent(line, name).await,
        }
    }

    async fn begin_persistent(&self, line: &mut Line, name: &str) -> Result<Beginning, WalError> {
        let existing = self.find(line, name).await?;
        let mut was_lost = existing.as_ref().is_some_and(|slot| slot.lost);
        let usable = existing.filter(|slot| !slot.lost && !self.afresh);
        if let Some(slot) = usable {
            match self.start(line, name).await {
                Ok(()) => {
                    return Ok(Beginning { resumed: true, ..Beginning::anew(name, slot.from) });
                }
                Err(error) if error.kind() == WalErrorKind::SlotLost => {
                    tracing::debug!(slot = name, %error, "beginning to read");
                    was_lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        if was_lost {
            tracing::warn!(slot = name, "PostgreSQL gave up the slot, so a new one is made");
        }
        self.drop_if_there(line, name).await?;
        let from = self.create(line, name).await?;
        self.start(line, name).await?;
        Ok(Beginning { was_lost, ..Beginning::anew(name, from) })
    }

    async fn find(&self, line: &mut Line, name: &str) -> Result<Option<Found>, WalError> {
        let sql = format!(
            "SELECT plugin, database = pg_catalog.current_database(), wal_status, \
             confirmed_flush_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        let rows = ask(line, &sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let column = |at: usize| row.get(at).and_then(Option::as_deref);
        if column(0) != Some("pgoutput") || column(1) != Some("t") {
            return Err(WalError::new(
                WalErrorKind::Connection(ErrorKind::Configuration),
                format!(
                    "replication slot \"{name}\" is of another plugin or database: name another \
                     one, or drop it"
                ),
            ));
        }
        let from = column(3).and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        Ok(Some(Found { lost: column(2) == Some("lost"), from }))
    }

    async fn drop_if_there(&self, line: &mut Line, name: &str) -> Result<(), WalError> {
        let sql = format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        ask(line, &sql).await.map(drop)
    }

    /// Makes the slot; gives the place from which it sends everything.
    async fn create(&self, line: &mut Line, slot: &str) -> Result<Lsn, WalError> {
        let command = format!("CREATE_REPLICATION_SLOT {} {}", identifier(slot), self.manner());
        let pid = line.pid;
        match timeout(self.patience, ask(line, &command)).await {
            Ok(rows) => {
                let rows = rows?;
                let place = rows.first().and_then(|row| row.get(1)?.as_deref());
                place.and_then(|place| place.parse().ok()).ok_or_else(|| {
                    WalError::new(WalErrorKind::Protocol, "a new slot does not say where it is")
                })
            }
            Err(_) => Err(self.waits(pid).await),
        }
    }

    fn manner(&self) -> &'static str {
        match self.kind {
            SlotKind::Temporary => "TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
            SlotKind::Persistent { failover: true, .. } if self.version >= 170_000 => {
                "LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"
            }
            SlotKind::Persistent { .. } => "LOGICAL pgoutput NOEXPORT_SNAPSHOT",
        }
    }

    /// Names who is waited for, and ends the waiting.
    async fn waits(&self, pid: i32) -> WalError {
        const BLOCKERS: &str = "SELECT pg_catalog.array_to_string( \
            pg_catalog.pg_blocking_pids($1), ', '), pg_catalog.pg_terminate_backend($1)";
        let asked = async {
            let pooled = self.pool.get().await.ok()?;
            let blockers =
                pooled.run(|client| async move { client.query_one(BLOCKERS, &[&pid]).await });
            let row = blockers.await?.ok()?;
            row.try_get::<_, String>(0).ok().filter(|pids| !pids.is_empty())
        };
        let who = match asked.await {
            Some(pids) => format!("of process {pids}"),
            None => "that runs".to_owned(),
        };
        WalError::new(
            WalErrorKind::SlotWaits,
            format!(
                "a replication slot could not be made within {} s: it waits for the transaction \
                 {who} to end (SELECT * FROM pg_stat_activity shows it; \
                 pg_terminate_backend(pid) ends it)",
                self.patience.as_secs()
            ),
        )
    }

    async fn start(&self, line: &mut Line, slot: &str) -> Result<(), WalError> {
        let protocol = match self.streaming {
            true => "proto_version '2', streaming 'true'",
            false => "proto_version '1'",
        };
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 ({protocol}, publication_names {}, \
             messages 'true')",
            identifier(slot),
            literal(&identifier(self.publication)),
        );
        let command = self.encoded(command).await?;
        match line.begin_copy(&command).await {
            Ok(()) => Ok(()),
            // Here it is the slot that does not exist.
            Err(LineError::Said(said)) if said.code == "42704" => {
                Err(WalError::new(WalErrorKind::SlotLost, said.to_string()))
            }
            Err(error) => Err(WalError::line(error, &line.place)),
        }
    }
}

impl Opening<'_> {
    /// A command as the line takes it.
    async fn encoded(&self, command: String) -> Result<Vec<u8>, WalError> {
        if !self.is_raw || command.is_ascii() {
            return Ok(command.into_bytes());
        }
        let pooled = self.pool.get().await?;
        let encoded = pooled.run(|client| charset::encode(client, &command)).await;
        let what = "writing the publication's name in the encoding of the database";
        match encoded {
            Some(outcome) => outcome.map_err(|error| WalError::statement(error, what)),
            None => Err(WalError::new(
                WalErrorKind::Connection(ErrorKind::Unreachable),
                "PostgreSQL does not answer in time",
            )),
        }
    }
}

/// A slot that is there.
struct Found {
    lost: bool,
    from: Lsn,
}

/// Asks on a line, with errors in words.
pub(super) async fn ask(line: &mut Line, command: &str) -> Result<Rows, WalError> {
    match line.ask(command).await {
        Ok(rows) => Ok(rows),
        Err(error) => Err(WalError::line(error, &line.place)),
    }
}
