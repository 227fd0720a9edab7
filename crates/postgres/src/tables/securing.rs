//! Looks after row level security that is switched on, or off, while a table is listened to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::Publisher;
use tidewire_protocol::{GapReason, Topic};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Chosen;
use crate::changes::SharedSource;
use crate::row_security::RowSecurity;

/// How often it is looked at: rows that are written after it was switched on may be told for so
/// long.
const LOOK: Duration = Duration::from_secs(1);

/// The tables that are listened to, and whether each had row level security when last looked at.
#[derive(Clone, Default)]
pub(super) struct Listened(Arc<Mutex<HashMap<Topic, bool>>>);

impl Listened {
    pub(super) fn insert(&self, topic: &Topic) {
        self.0.lock().entry(topic.clone()).or_default();
    }

    pub(super) fn remove(&self, topic: &Topic) {
        self.0.lock().remove(topic);
    }

    fn topics(&self) -> Vec<Topic> {
        self.0.lock().keys().cloned().collect()
    }

    /// Takes over how it is now; gives the tables for which it was switched, and to what.
    fn renew(&self, looked_at: &[Topic], secured: &[Topic]) -> Vec<(Topic, bool)> {
        let mut listened = self.0.lock();
        let mut switched = Vec::new();
        for topic in looked_at {
            let is_on = secured.contains(topic);
            if let Some(was_on) = listened.get_mut(topic)
                && std::mem::replace(was_on, is_on) != is_on
            {
                switched.push((topic.clone(), is_on));
            }
        }
        switched
    }
}

/// The task.
pub(super) struct Securing {
    pub(super) listened: Listened,
    pub(super) rule: RowSecurity,
    pub(super) publisher: Publisher,
    pub(super) chosen: watch::Receiver<Option<Chosen>>,
    /// Counts how often it was switched on for a table that is listened to.
    pub(super) switched: watch::Sender<u64>,
    pub(super) stop: CancellationToken,
}

impl Securing {
    /// Looks until told to stop.
    pub(super) async fn run(self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let topics = self.listened.topics();
            let source = self.chosen.borrow().as_ref().map(|chosen| Arc::clone(&chosen.source));
            let Some(source) = source.filter(|_| !topics.is_empty()) else { continue };
            // A database that is down tells no rows either.
            let Some(secured) = self.rule.of(&topics).await else { continue };
            for (topic, is_on) in self.listened.renew(&topics, &secured) {
                match is_on {
                    true => self.close(&source, &topic).await,
                    false => open(source.clone(), topic),
                }
            }
        }
    }

    /// Nothing more is told of the table until somebody who may see it subscribes.
    async fn close(&self, source: &SharedSource, topic: &Topic) {
        tracing::warn!(%topic, "row level security was switched on, so the table is told to those \
                                only who bypass it");
        source.let_go(topic);
        if let Err(error) = self.publisher.interrupt(topic, GapReason::ConnectionLost).await {
            tracing::warn!(%topic, error = &error as &dyn std::error::Error,
                "a gap could not be told");
        }
        self.switched.send_modify(|count| *count += 1);
    }
}

/// Whoever still listens is told a gap and then what comes.
fn open(source: SharedSource, topic: Topic) {
    tracing::info!(%topic, "row level security was switched off");
    tokio::spawn(async move {
        if let Err(refusal) = source.add(&topic).await {
            tracing::warn!(%topic, refusal = refusal.message, "the table cannot be followed");
        }
    });
}
