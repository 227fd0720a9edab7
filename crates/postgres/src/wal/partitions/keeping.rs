//! Compares the partitions that tables have with those they had, and says the gaps that are due.

use std::collections::HashMap;

use tidewire_protocol::{GapReason, Topic};

use crate::partitions::{self, Fate, Layout};
use crate::wal::keeper::{Keeper, topic};
use crate::wal::partitions::Met;
use crate::wal::position::catch_up;
use crate::wal::publication::Member;

impl Keeper {
    /// Says a gap for each table whose partitions changed in a way that the stream does not tell.
    /// What was `met` before the look came up in the log, so it is there or it is gone.
    pub(in crate::wal) async fn compare_partitions(
        &self,
        members: &[Member],
        mut now: HashMap<u32, Layout>,
        met: &Met,
    ) {
        let look = |member: &Member| Some((topic(member)?, now.remove(&member.oid)?));
        let now: Vec<(Topic, Layout)> = members.iter().filter_map(look).collect();
        self.shared.partitions().retain(&now.iter().map(|(topic, _)| topic.clone()).collect());
        let mut changed = Vec::new();
        for (topic, layout) in now {
            let gone = gone(met, &layout);
            // One that does not flow is told a gap before it does, and looked at after that.
            if !self.shared.tables().is_flowing(&topic) {
                self.shared.partitions().found(layout.table, gone);
            } else if !gone.is_empty() || self.has_untold_rows(&topic, &layout).await {
                changed.push((topic, layout));
            } else {
                self.remember(topic, layout, met).await;
            }
        }
        // What was written before must be told before the gap, or it would be taken for newer.
        // Otherwise the known state stays, and the next look comes to the same.
        if changed.is_empty() || catch_up(&self.shared).await.is_err() {
            return;
        }
        for (topic, layout) in changed {
            tracing::warn!(%topic, "partitions came or went with rows that the log does not tell");
            let mark = self.shared.has_parts(&topic, &layout).into_iter().collect();
            if self.shared.interrupt(&topic, GapReason::ConnectionLost, mark).await {
                self.set(&topic, layout, met);
            }
        }
    }

    /// Takes for known what needs no gap.
    async fn remember(&self, topic: Topic, layout: Layout, met: &Met) {
        if self.shared.partitions().get(&topic) == Some(&layout) {
            return;
        }
        let mark = self.shared.has_parts(&topic, &layout).into_iter().collect();
        if self.shared.keep(mark).await {
            self.set(&topic, layout, met);
        }
    }

    fn set(&self, topic: &Topic, layout: Layout, met: &Met) {
        let found = met.get(&layout.table).into_iter().flatten().copied();
        let mut known = self.shared.partitions();
        known.found(layout.table, found);
        known.set(topic, layout);
    }

    async fn has_untold_rows(&self, topic: &Topic, layout: &Layout) -> bool {
        let fate = self.shared.partitions().fate(topic, layout);
        match fate {
            Fate::Same => false,
            Fate::Changed => true,
            Fate::Grown(new) if layout.has_other_files(&new, |part| !part.told) => true,
            Fate::Grown(new) => {
                let Ok(pooled) = self.shared.pool.get().await else { return true };
                let nothing = pooled.run(|client| partitions::brought_nothing(client, &new));
                !matches!(nothing.await, Some(Ok(true)))
            }
        }
    }
}

/// The partitions of the table that were met and are not there.
fn gone(met: &Met, now: &Layout) -> Vec<u32> {
    let met = met.get(&now.table).into_iter().flatten().copied();
    met.filter(|part| !now.has(*part)).collect()
}
