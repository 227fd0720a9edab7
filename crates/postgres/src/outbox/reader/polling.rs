//! One round: gaps that are owed, then what became visible.

use std::collections::HashSet;
use std::pin::pin;

use tidewire_protocol::GapReason;
use tokio::time::Instant;

use super::rows::{Head, part, stored};
use super::{Ended, Reader, Reading};
use crate::outbox::link::Link;
use crate::outbox::place::Place;
use crate::outbox::shared::Round;
use crate::outbox::window::What;

impl Reader {
    /// Says the gaps that are owed. One that cannot be said stays owed, and its table silent.
    pub(super) async fn say_gaps(&mut self, link: &Link) -> Result<(), Ended> {
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
    pub(super) async fn poll(&mut self, link: &Link, reading: &Reading) -> Result<bool, Ended> {
        self.shared.metrics.polls.inc();
        let mut round = self.begin_round(link).await?;
        let tables: Vec<u32> = round.tables.iter().map(|(oid, _)| *oid).collect();
        let Place { since, part: before, .. } = self.here();
        // One that broke off is read to its end first.
        let upto = before.as_ref().map(|part| &*part.seen);
        let asked = (&*tables, &*round.followed);
        let rows = link.poll(&reading.poll, &since, upto, asked).await?;
        let mut rows = pin!(rows);
        self.window.begin(before.as_ref().map(|part| &part.spot));
        let (mut count, mut items, mut renamed) = (0_u64, Vec::new(), HashSet::new());
        while let Some(row) = link.next_row(&mut rows).await? {
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            if let Some((table, part)) = part(&row) {
                self.parted.meet(table, part);
            }
            match stored(&row) {
                Some(mut stored) => {
                    if stored.what.rel().is_some_and(|rel| renamed.contains(&rel)) {
                        stored.what = What::Unwanted;
                    }
                    self.window.take(stored, &mut items);
                    count += 1;
                    self.teller.tell(&mut items).await;
                    if self.teller.is_full() {
                        self.flush().await?;
                    }
                }
                None => renamed = self.look_at_head(Head::of(&row), &mut round).await?,
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

    /// Whether nothing was removed, and how tables are named; gives those whose rows must not be
    /// delivered because their name changed.
    async fn look_at_head(&mut self, head: Head, round: &mut Round) -> Result<HashSet<u32>, Ended> {
        let outbox = &self.place.as_ref().expect("it was found when reading began").outbox;
        if (head.file, head.losses) != (outbox.file, outbox.losses) {
            return Err(Ended::Removed);
        }
        self.seen = Some(head.seen);
        let renamed = self.look_at_names(&round.followed, &head.namings);
        if !renamed.is_empty() {
            round.tables.retain(|(oid, _)| !renamed.contains(oid));
            self.teller.tells_only(&round.tables).await?;
        }
        Ok(renamed)
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
}
