//! The tables whose changes a stream that begins will bring.

use std::collections::HashMap;

use tidewire_protocol::Topic;
use tokio_postgres::Client;

use super::misfits;
use crate::partitions::{self, Layout};
use crate::wal::keeper::topic;
use crate::wal::pgoutput::Lsn;
use crate::wal::publication;
use crate::wal::standing::{Admitted, standings};

/// The tables in a publication that can be told as they are.
pub(in crate::wal) struct Members {
    pub(in crate::wal) topics: HashMap<Topic, Admitted>,
    /// The partitions of those that have some.
    pub(in crate::wal) layouts: HashMap<Topic, Layout>,
}

impl Members {
    pub(in crate::wal) async fn ask(
        client: &Client,
        publication: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let members = publication::members(client, publication).await?;
        let oids: Vec<u32> = members.iter().map(|member| member.oid).collect();
        let mut layouts = partitions::published(client, publication, &oids).await?;
        let parted: Vec<u32> = layouts.keys().copied().collect();
        let misfits = misfits(client, publication, &parted).await?;
        let partial = publication::partial(client, publication, &oids).await?;
        let mut standings = standings(client, publication, &oids).await?;
        let mut found = Self { topics: HashMap::new(), layouts: HashMap::new() };
        for member in members {
            // Whoever listens to such a table is told what mends it.
            if misfits.iter().any(|misfit| misfit.table == member.oid)
                || partial.iter().any(|partial| partial.table == member.oid)
            {
                continue;
            }
            let admitted = standings.remove(&member.oid);
            let Some((topic, mut admitted)) = topic(&member).zip(admitted) else { continue };
            // The log itself says how other tables were named when a row of theirs was written.
            if !layouts.contains_key(&member.oid) {
                admitted.from = Lsn(0);
            }
            if let Some(layout) = layouts.remove(&member.oid) {
                found.layouts.insert(topic.clone(), layout);
            }
            found.topics.insert(topic, admitted);
        }
        Ok(found)
    }
}
