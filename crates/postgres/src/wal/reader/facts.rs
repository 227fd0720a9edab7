//! What kind of server there is at the other end of a line, and whether it is the one of before.

use tidewire_protocol::change::Snapshot;

use super::slot::ask;
use super::{Lsn, SlotKind, WalError, WalErrorKind};
use crate::connect::replication::Line;

/// The oldest PostgreSQL that sends what is needed.
const OLDEST: u32 = 140_000;

/// From this one on `wal_level` is raised by making a slot.
const RAISES_WAL_LEVEL: u32 = 190_000;

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wal) struct Facts {
    /// As `server_version_num`.
    pub(in crate::wal) version: u32,
    wal_level: String,
    /// Whether the log kept for a slot is without limit.
    keeps_all: bool,
    /// Which transactions there are.
    pub(in crate::wal) snapshot: Snapshot,
    /// Tells one cluster from every other.
    pub(in crate::wal) system: String,
    pub(in crate::wal) timeline: u32,
    /// How far its log is written.
    flushed: Lsn,
}

impl Facts {
    pub(in crate::wal) async fn ask(line: &mut Line) -> Result<Self, WalError> {
        const SQL: &str = "SELECT pg_catalog.current_setting('server_version_num'), \
                           pg_catalog.current_setting('wal_level'), \
                           pg_catalog.current_setting('max_slot_wal_keep_size') = '-1'";
        let rows = ask(line, SQL).await?;
        let version = cell(&rows, 0)?.parse().map_err(|_| strange())?;
        let wal_level = cell(&rows, 1)?.to_owned();
        let keeps_all = cell(&rows, 2)? == "t";
        if version < OLDEST {
            return Err(WalError::new(
                WalErrorKind::Version,
                format!("PostgreSQL {version} is too old to read its log: it takes 14 or newer"),
            ));
        }
        let rows = ask(line, "SELECT pg_catalog.pg_current_snapshot()").await?;
        let snapshot = cell(&rows, 0)?.parse().map_err(|_| strange())?;
        let rows = ask(line, "IDENTIFY_SYSTEM").await?;
        let system = cell(&rows, 0)?.to_owned();
        let timeline = cell(&rows, 1)?.parse().map_err(|_| strange())?;
        let flushed = cell(&rows, 2)?.parse().map_err(|_| strange())?;
        Ok(Self { version, wal_level, keeps_all, snapshot, system, timeline, flushed })
    }

    /// Whether the server logs enough.
    pub(in crate::wal) fn check(&self) -> Result<(), WalError> {
        if self.wal_level == "logical" || self.version >= RAISES_WAL_LEVEL {
            return Ok(());
        }
        Err(WalError::new(
            WalErrorKind::WalLevel,
            format!(
                "PostgreSQL has wal_level = {} and reading its log takes logical: ALTER SYSTEM SET \
                 wal_level = logical, then restart it (RDS: rds.logical_replication = 1; Cloud \
                 SQL: cloudsql.logical_decoding = on), or use the source outbox",
                self.wal_level
            ),
        ))
    }

    /// Warns of a slot that stays while we are away on a server that would rather fill its disk
    /// than give it up.
    pub(super) fn warn_of(&self, slot: &SlotKind) {
        if self.keeps_all && matches!(slot, SlotKind::Persistent { .. }) {
            tracing::warn!(
                "PostgreSQL keeps its log for our replication slot without limit while we are \
                 away: set max_slot_wal_keep_size so that it cannot fill the disk"
            );
        }
    }

    /// Whether the server has everything that `before` had up to a place: it is the same cluster,
    /// its log is as long, and if a standby took over, it did so after that place.
    pub(super) async fn follows(
        &self,
        before: &Self,
        upto: Lsn,
        line: &mut Line,
    ) -> Result<bool, WalError> {
        self.has(&before.system, before.timeline, upto, line).await
    }

    /// Whether the server has everything up to a place in the log of a cluster.
    pub(super) async fn has(
        &self,
        system: &str,
        timeline: u32,
        upto: Lsn,
        line: &mut Line,
    ) -> Result<bool, WalError> {
        if self.system != system {
            return Ok(false);
        }
        // A cluster that was put back to an earlier time has written less.
        if self.timeline == timeline || self.flushed < upto {
            return Ok(self.flushed >= upto);
        }
        let rows = ask(line, &format!("TIMELINE_HISTORY {}", self.timeline)).await?;
        Ok(left_at(cell(&rows, 1)?, timeline).is_some_and(|left| left >= upto))
    }
}

/// Where a timeline was left, by a history of lines `1<tab>0/3000000<tab>why`.
fn left_at(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_it = words.next()?.parse() == Ok(timeline);
        is_it.then(|| words.next()?.parse().ok()).flatten()
    })
}

fn cell(rows: &[Vec<Option<String>>], at: usize) -> Result<&str, WalError> {
    rows.first().and_then(|row| row.get(at)?.as_deref()).ok_or_else(strange)
}

fn strange() -> WalError {
    WalError::new(WalErrorKind::Protocol, "PostgreSQL does not say what it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_a_timeline_was_left() {
        let history = "1\t0/3000148\tno recovery target specified\n2\t1/5000000\tbefore x\n";
        assert_eq!(left_at(history, 1), Some(Lsn(0x300_0148)));
        assert_eq!(left_at(history, 2), Some(Lsn(0x1_0500_0000)));
        assert_eq!(left_at(history, 3), None);
    }
}
