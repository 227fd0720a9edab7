//! What became of the tables that are followed.

use std::collections::HashMap;

use tidewire_protocol::GapReason;

use super::{Ended, Reader};
use crate::outbox::link::Link;
use crate::outbox::relations;
use crate::outbox::teller::Table;

impl Reader {
    /// Sees which tables were altered or lost their triggers. How they are named each poll says.
    pub(super) async fn look_at_catalog(&mut self, link: &Link) -> Result<(), Ended> {
        let followed = self.shared.named();
        let oids: Vec<u32> = followed.iter().map(|(oid, _)| *oid).collect();
        let loaded = link.answer(relations::load(link.client(), &oids)).await?;
        let mut loaded: HashMap<_, _> = loaded.into_iter().collect();
        let topics: HashMap<_, _> = followed.iter().map(|(oid, topic)| (*oid, topic)).collect();
        let is_followed = |oid: &u32, table: &mut Table| topics.get(oid) == Some(&&table.topic);
        self.teller.tables.retain(is_followed);
        for (oid, topic) in followed {
            // One that has another name already, or is gone, the next poll finds so.
            let Some(known) = loaded.remove(&oid).filter(|known| known.is_of(&topic)) else {
                continue;
            };
            if self.shared.set_flows(&topic, oid, known.flows) && !known.flows {
                tracing::warn!(%topic,
                    "the table's triggers were dropped or switched off: its changes are not told \
                     until somebody subscribes anew or they are back");
            }
            if known.flows && self.teller.is_altered(&topic, oid, &known) {
                tracing::warn!(%topic, "the table's triggers were made anew, or switched off and on");
                self.shared.owe(&topic, GapReason::NotListening);
            }
            match self.teller.tables.get_mut(&oid) {
                Some(table) => table.known.renew(known),
                None => drop(self.teller.tables.insert(oid, Table { topic, known })),
            }
        }
        self.follow_names(link).await?;
        self.look_at_partitions(link).await
    }
}
