//! What became of the tables that are followed.

use std::collections::HashMap;

use tidewire_protocol::GapReason;

use super::{Ended, Reader};
use crate::outbox::link::Link;
use crate::outbox::relations;
use crate::outbox::teller::Table;

impl Reader {
    /// Sees which tables were altered, renamed, dropped, or lost their triggers.
    pub(super) async fn look_at_catalog(&mut self, link: &Link) -> Result<(), Ended> {
        let followed = self.shared.followed();
        let oids: Vec<u32> = followed.iter().map(|(oid, _)| *oid).collect();
        let loaded = link.answer(relations::load(link.client(), &oids)).await?;
        let mut loaded: HashMap<_, _> = loaded.into_iter().collect();
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
            let is_altered = |known| self.teller.is_altered(&topic, oid, known);
            if named && known.as_ref().is_some_and(is_altered) {
                tracing::warn!(%topic, "the table's triggers were made anew, or switched off and on");
                self.shared.owe(&topic, GapReason::NotListening);
            }
            match (known, self.teller.tables.get_mut(&oid)) {
                (Some(known), Some(table)) if table.topic == topic => table.known.renew(known),
                (Some(known), _) => {
                    self.teller.tables.insert(oid, Table { topic, known });
                }
                (None, _) => {}
            }
        }
        self.look_at_partitions(link).await
    }
}
