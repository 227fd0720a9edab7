//! One round: gaps that are owed, then what became visible.

use std::collections::HashSet;
use std::pin::pin;

use tidewire_protocol::GapReason;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::careful::Waiting;
use super::rows::{Content, Head, Listed, Unreadable};
use super::{Ended, Reader, Reading};
use crate::outbox::link::{Asked, Link};
use crate::outbox::place::Place;
use crate::outbox::relations;
use crate::outbox::shared::Round;
use crate::outbox::window::Item;

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
    ///
    /// Where PostgreSQL fails for a row that cannot be read, the same is read once more without the
    /// contents of rows, which are asked for one by one.
    pub(super) async fn poll(&mut self, link: &Link, reading: &Reading) -> Result<bool, Ended> {
        self.shared.metrics.polls.inc();
        let whole = Asked::Whole(self.options.row_bytes);
        match self.poll_once(link, reading, whole).await {
            Err(Ended::Lost(error)) if error.fails_again() => {
                tracing::debug!(%error, "a row of the outbox cannot be read");
                self.flush().await?;
                self.forget_poll();
                self.look_for_unreadable_names(link).await?;
                self.poll_once(link, reading, Asked::Listed).await
            }
            outcome => outcome,
        }
    }

    async fn poll_once(
        &mut self,
        link: &Link,
        reading: &Reading,
        content: Asked,
    ) -> Result<bool, Ended> {
        let mut round = self.begin_round(link).await?;
        let tables: Vec<u32> = round.tables.iter().map(|(oid, _)| *oid).collect();
        let Place { since, part: before, .. } = self.here();
        // One that broke off is read to its end first.
        let upto = before.as_ref().map(|part| &*part.seen);
        let followed = round.followed.iter().copied();
        let followed: Vec<u32> = followed.filter(|oid| !self.unnamed.contains(oid)).collect();
        let asked = (&*tables, &*followed);
        let rows = link.poll(&reading.poll, &since, upto, asked, content).await?;
        let mut rows = pin!(rows);
        self.window.begin(before.as_ref().map(|part| &part.spot));
        let (mut count, mut items, mut waiting) = (0_u64, Vec::new(), Waiting::default());
        let mut renamed = HashSet::new();
        while let Some(row) = link.next_row(&mut rows).await? {
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            let Some(listed) = Listed::of(&row) else {
                renamed = self.look_at_head(Head::of(&row), &mut round).await?;
                continue;
            };
            if let Some((table, part)) = listed.part {
                self.parted.meet(table, part);
            }
            count += 1;
            let listed = listed.unless_of(&renamed);
            match content {
                Asked::Whole(most) => {
                    let content = content_of(&listed, &row, most);
                    self.window.take(listed.with(content), &mut items);
                }
                Asked::Listed => self.wait_for(listed, &mut waiting, &mut items).await?,
            }
            self.tell(&mut items).await?;
        }
        self.take_waiting(&mut waiting, &mut items).await?;
        let whole = self.window.finish(&mut items);
        self.teller.tell(&mut items).await;
        self.end_poll(whole, count).await?;
        if upto.is_none() {
            self.tell_partitions();
            self.shared.end_round(&round);
        }
        Ok(count > 0)
    }

    /// A name without a Unicode form fails every poll that asks for it. A table that has one now is
    /// as one that is gone.
    async fn look_for_unreadable_names(&mut self, link: &Link) -> Result<(), Ended> {
        self.unnamed.clear();
        for (oid, _) in self.shared.followed() {
            if !link.answer(relations::has_readable_name(link.client(), oid)).await? {
                self.unnamed.insert(oid);
            }
        }
        Ok(())
    }

    async fn tell(&mut self, items: &mut Vec<Item>) -> Result<(), Ended> {
        self.teller.tell(items).await;
        if self.teller.is_full() {
            self.flush().await?;
        }
        Ok(())
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

/// The content that came with a row, if it is not larger than may be read.
fn content_of(listed: &Listed, row: &Row, most: usize) -> Result<Content, Unreadable> {
    match usize::try_from(listed.size) {
        Ok(size) if size <= most => Content::of(row),
        _ => Err(Unreadable::too_large(listed.size, row.try_get("topic").ok().flatten())),
    }
}
