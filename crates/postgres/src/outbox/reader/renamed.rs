//! Topics whose table was renamed, moved or dropped: they follow the table that has the name now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::Topic;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Ended, Reader};
use crate::outbox::link::Link;
use crate::outbox::recording::Recording;
use crate::outbox::relations;

/// Pauses between attempts to have the changes of such a table recorded. The first covers a lock that
/// is held for a moment; at the longest, a right that somebody has to grant.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// Attempts to follow the tables that have the names now, in tasks of their own since each may wait
/// for locks. They end with it.
pub(super) struct Searches {
    recording: Arc<Recording>,
    tasks: JoinSet<()>,
    /// When the next attempt for a topic may begin, and the pause after it.
    due: HashMap<Topic, (Instant, Duration)>,
}

impl Searches {
    pub(super) fn new(recording: Arc<Recording>) -> Self {
        Self { recording, tasks: JoinSet::new(), due: HashMap::new() }
    }

    /// Whether an attempt for the topic may begin; if so, the next one is a pause away.
    fn is_due(&mut self, topic: &Topic, now: Instant) -> bool {
        let (at, pause) = self.due.entry(topic.clone()).or_insert((now, FIRST_PAUSE));
        if *at > now {
            return false;
        }
        *at = now + *pause;
        *pause = (*pause * 2).min(LAST_PAUSE);
        true
    }
}

impl Reader {
    /// Takes in how tables are named now. Those of which that changed are not delivered from here on,
    /// and those are given: nobody knows under which name their rows were written.
    pub(super) fn look_at_names(
        &self,
        followed: &[u32],
        namings: &HashMap<u32, crate::naming::Naming>,
    ) -> HashSet<u32> {
        let changed = self.shared.observe(followed, namings);
        for (topic, _) in &changed {
            tracing::warn!(%topic,
                "the table was renamed, moved or dropped: the topic follows the table that has the \
                 name now, after a gap");
        }
        changed.into_iter().map(|(_, oid)| oid).collect()
    }

    /// Has topics without a table follow the one that has their name.
    pub(super) async fn follow_names(&mut self, link: &Link) -> Result<(), Ended> {
        while self.searches.tasks.try_join_next().is_some() {}
        let topics = self.shared.unnamed();
        self.searches.due.retain(|topic, _| topics.contains(topic));
        if topics.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        for topic in link.answer(relations::existing(link.client(), &topics)).await? {
            if !self.searches.is_due(&topic, now) {
                continue;
            }
            let (shared, recording) =
                (Arc::clone(&self.shared), Arc::clone(&self.searches.recording));
            self.searches.tasks.spawn(async move {
                match recording.ensure(&topic).await {
                    Ok(oid) => shared.follow_renamed(&topic, oid),
                    Err(refusal) => tracing::warn!(%topic, why = refusal.message,
                        "the table that has the name now cannot be followed yet"),
                }
            });
        }
        Ok(())
    }
}
