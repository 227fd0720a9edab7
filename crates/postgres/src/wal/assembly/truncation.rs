//! TRUNCATE of tables, of partitioned ones, and of partitions alone.
//!
//! Where partitions are sent as their own, the log names each one that was emptied and never the
//! table. One statement that emptied all of them emptied the table; less than that no change can
//! tell, since nobody knows which rows were in it, so it is a gap of the table at this place.

use std::collections::BTreeSet;

use tidewire_protocol::change::Operation;
use tidewire_protocol::{Body, Draft, GapReason};

use super::{Assembly, Need, Trouble, need};

impl Assembly {
    /// These relations were emptied by one statement.
    pub(super) fn truncate(&mut self, relations: &[u32]) -> Result<(), Trouble> {
        let parts = self.parts.take();
        let asked = self.partitioned(relations);
        if parts.is_none() && !asked.is_empty() {
            return need(Need::Parts(asked));
        }
        let (parts, emptied) = (parts.unwrap_or_default(), relations.iter().copied());
        let emptied: BTreeSet<u32> = emptied.collect();
        let mut seen = BTreeSet::new();
        for relation in relations {
            let whole = self.whole(*relation);
            let Some(table) = whole else {
                self.change(Operation::Truncate, *relation, None, None, false)?;
                continue;
            };
            if !seen.insert(table) {
                continue;
            }
            match parts.get(&table).is_some_and(|parts| parts.is_subset(&emptied)) {
                true => self.change(Operation::Truncate, *relation, None, None, false)?,
                false => self.lose(*relation, GapReason::ConnectionLost),
            }
        }
        Ok(())
    }

    /// The tables of which partitions are among these, if their changes are told.
    fn partitioned(&self, relations: &[u32]) -> Vec<u32> {
        let known = relations.iter().filter_map(|relation| self.relations.get(relation));
        let told = known.filter(|known| known.is_part() && known.flow.is_on());
        let tables: BTreeSet<u32> = told.map(|known| known.relation.oid).collect();
        tables.into_iter().collect()
    }

    /// The table that a relation is a partition of.
    fn whole(&self, relation: u32) -> Option<u32> {
        let known = self.relations.get(&relation)?;
        known.is_part().then_some(known.relation.oid)
    }

    /// A change of the relation cannot be told: a gap stands in its place.
    pub(super) fn lose(&mut self, relation: u32, reason: GapReason) {
        let known = self.relations.get(&relation).filter(|known| known.flow.is_on());
        let topic = known.and_then(|known| known.topic.clone());
        let Some(open) = self.open.as_mut() else { return };
        // It has an index, so it counts like a change.
        let told = open.is_told(None);
        open.seen += 1;
        open.index = open.index.saturating_add(1);
        if let Some(topic) = topic.filter(|_| !told) {
            // Each row of a statement may be one, and the first gap tells of them all.
            let is_gap = |deed: &Draft| deed.topic == topic && matches!(deed.body, Body::Gap(_));
            if !open.deeds.last().is_some_and(is_gap) {
                open.deeds.push(Draft::gap(topic, reason));
            }
        }
    }
}
