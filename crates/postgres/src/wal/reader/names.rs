//! Rows are told under the name that their table had when they were written.
//!
//! The log names a table before its rows, anew after each rename. There are two exceptions: rows of
//! partitions are told as those of a table that the log does not name, and before version 16
//! PostgreSQL does not name a table anew when its schema was renamed. For these the catalog is asked
//! before anything is published: where the table has the name still with which it was admitted, it
//! had that when the rows were written.

use std::collections::HashSet;

use tidewire_protocol::{Body, Draft, Topic, TopicKind};
use tokio_util::sync::CancellationToken;

use super::{Reader, unless};
use crate::connect::ErrorKind;
use crate::notify::Backoff;
use crate::wal::error::{WalError, WalErrorKind};
use crate::wal::standing::standings;

/// The first version that names tables anew when their schema is renamed.
const NAMES_SCHEMAS: u32 = 160_000;

impl Reader {
    /// Of what is to be published, that which its topic is still about. Tables that turn out to be
    /// renamed stop.
    pub(super) async fn of_their_names(
        &mut self,
        mut drafts: Vec<Draft>,
    ) -> Result<Vec<Draft>, WalError> {
        self.stop_renamed(&drafts).await?;
        self.shared.tell_stops().await;
        // One lock for rows that follow one another, which mostly are of the same table.
        let (mut last, mut tells): (Option<(Topic, u32)>, bool) = (None, true);
        drafts.retain(|draft| {
            let Body::Change(change) = &draft.body else { return true };
            let oid = change.relation.oid;
            if !last.as_ref().is_some_and(|last| last.1 == oid && last.0 == draft.topic) {
                tells = self.shared.tables().tells(&draft.topic, oid);
                last = Some((draft.topic.clone(), oid));
            }
            tells
        });
        Ok(drafts)
    }

    /// Whether the log says when a schema is renamed.
    pub(super) fn names_schemas(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.version >= NAMES_SCHEMAS)
    }

    async fn stop_renamed(&self, drafts: &[Draft]) -> Result<(), WalError> {
        let unnamed = self.unnamed(drafts);
        if unnamed.is_empty() {
            return Ok(());
        }
        let oids: Vec<u32> = unnamed.iter().map(|(_, oid)| *oid).collect();
        let mut backoff = Backoff::default();
        let namings = loop {
            match self.asked_names(&oids).await {
                Ok(found) => break found,
                Err(problem) => wait(&self.stop, &mut backoff, &problem).await?,
            }
        };
        for (topic, oid) in unnamed {
            let mut tables = self.shared.tables();
            let was = tables.admission(&topic).map(|admitted| admitted.standing.naming);
            let now = namings.get(&oid).map(|admitted| &admitted.standing.naming);
            if tables.tells(&topic, oid) && was.as_ref() != now {
                tables.stop(&topic);
            }
        }
        Ok(())
    }

    /// The tables of these drafts that the log does not name whenever they are renamed.
    fn unnamed(&self, drafts: &[Draft]) -> HashSet<(Topic, u32)> {
        let (all, known) = (!self.names_schemas(), self.shared.partitions());
        let runs = drafts.chunk_by(|one, next| one.topic == next.topic);
        let firsts = runs.map(|run| &run[0]).filter(|it| it.topic.kind() == TopicKind::Table);
        let unnamed = firsts.filter(|it| all || known.get(&it.topic).is_some());
        let changes = unnamed.filter_map(|draft| match &draft.body {
            Body::Change(change) => Some((draft.topic.clone(), change.relation.oid)),
            _ => None,
        });
        changes.collect()
    }

    async fn asked_names(
        &self,
        oids: &[u32],
    ) -> Result<std::collections::HashMap<u32, crate::wal::standing::Admitted>, String> {
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        let name = self.shared.publication.as_str();
        match pooled.run(|client| standings(client, name, oids)).await {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("no answer in time".to_owned()),
        }
    }
}

async fn wait(
    stop: &CancellationToken,
    backoff: &mut Backoff,
    problem: &str,
) -> Result<(), WalError> {
    tracing::warn!(problem, "how tables are named cannot be asked, trying again");
    let ended = || {
        let kind = WalErrorKind::Connection(ErrorKind::Unreachable);
        WalError::new(kind, "reading ends before it is known how tables are named")
    };
    unless(stop, backoff.pause()).await.ok_or_else(ended)
}
