//! Presence on a single node, in this process's memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire_protocol::presence::Member;
use tidewire_protocol::{Audience, Body, Code, Draft, Refusal, Topic};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Presence, Roster};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::publisher::Publisher;

/// Pause after a history that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Rosters in memory; one task tells what changed.
#[derive(Default)]
pub struct MemoryPresence {
    state: Mutex<State>,
    changed: Notify,
    limits: Arc<arc_swap::ArcSwap<Limits>>,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    rosters: HashMap<Topic, Roster>,
    /// Topics with something to tell.
    untold: HashSet<Topic>,
}

impl MemoryPresence {
    /// Nobody is anywhere yet. [`MemoryPresence::run`] must run for changes to be told.
    pub fn new(limits: Arc<arc_swap::ArcSwap<Limits>>, metrics: Metrics) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), limits, metrics }
    }

    /// Tells changes until `stop` is cancelled.
    ///
    /// The first change after a quiet time is told at once, what follows within the presence
    /// interval together.
    pub async fn run(&self, publisher: Publisher, stop: CancellationToken) {
        tokio::select! {
            biased;
            // 1. The node stops.
            () = stop.cancelled() => {}
            // 2. Until then, people come and go.
            () = self.tell_changes(&publisher) => {}
        }
    }

    async fn tell_changes(&self, publisher: &Publisher) {
        loop {
            self.changed.notified().await;
            self.tell(publisher).await;
            let interval = self.limits.load().presence_interval;
            sleep(interval).await;
        }
    }

    /// Returns once all is told: newer changes of a topic must not overtake older ones.
    async fn tell(&self, publisher: &Publisher) {
        let mut drafts = self.take_drafts();
        while !drafts.is_empty() {
            let results = publisher.publish(drafts.clone()).await;
            let told = drafts.into_iter().zip(results);
            drafts = told.filter_map(|(draft, result)| result.is_err().then_some(draft)).collect();
            if !drafts.is_empty() {
                sleep(RETRY).await;
            }
        }
    }

    fn take_drafts(&self) -> Vec<Draft> {
        let mut state = self.state.lock();
        let mut drafts = Vec::new();
        for topic in std::mem::take(&mut state.untold) {
            let Some(roster) = state.rosters.get_mut(&topic) else { continue };
            let diff = roster.take_diff();
            if roster.is_empty() {
                state.rosters.remove(&topic);
            }
            if !diff.is_empty() {
                drafts.push(Draft {
                    topic: topic.presence(),
                    name: None,
                    body: Body::Presence(Arc::new(diff)),
                    audience: Audience::Everyone,
                });
            }
        }
        drafts
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn track(&self, topic: &Topic, member: Member) -> Result<(), Refusal> {
        let limit = self.limits.load().members;
        let mut state = self.state.lock();
        let roster = state.rosters.get(topic);
        let known = roster.is_some_and(|roster| roster.contains(&member.reference));
        if !known && roster.map_or(0, Roster::len) >= limit {
            let message = format!("a topic has at most {limit} members");
            return Err(Refusal::new(Code::TooManyMembers, message).about(topic));
        }
        state.rosters.entry(topic.clone()).or_default().track(member);
        state.untold.insert(topic.clone());
        drop(state);
        if !known {
            self.metrics.members.inc();
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn untrack(&self, topic: &Topic, reference: &str) {
        let mut state = self.state.lock();
        let Some(roster) = state.rosters.get_mut(topic) else { return };
        if !roster.untrack(reference) {
            return;
        }
        state.untold.insert(topic.clone());
        drop(state);
        self.metrics.members.dec();
        self.changed.notify_one();
    }

    async fn members(&self, topic: &Topic) -> Result<Vec<Member>, Refusal> {
        let state = self.state.lock();
        Ok(state.rosters.get(topic).map(Roster::members).unwrap_or_default())
    }
    fn known_members(&self, topic: &Topic, bytes: usize) -> Option<Vec<Member>> {
        let state = self.state.lock();
        let Some(roster) = state.rosters.get(topic) else { return Some(Vec::new()) };
        (roster.bytes() <= bytes).then(|| roster.members())
    }
}
