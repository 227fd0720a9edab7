//! Topics on this node and who listens to each.
//!
//! An entry is made by the first listener: it asks the topic's upstream for it, follows it at the
//! broker, and begins at the history's head. The last listener leaves it to linger for some
//! seconds, so that a page reload does not flap.

mod lanes;
mod live_topic;
mod selective;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use lanes::{Fed, Lane, LaneIndex, Lanes, Portion};
pub(crate) use live_topic::{Delivered, Member, wanted};
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::{Topic, TopicKind};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::relay::Progress;

/// Locks over the map of topics: enough that two cores or sixty-four rarely meet.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<Topic, Arc<Entry>>>;

/// Topics on this node.
pub(crate) struct Hub {
    shards: Vec<Shard>,
    hasher: RandomState,
    /// Entries whose last listener left, each once, and since when they wait here.
    leaving: Mutex<VecDeque<(Instant, Arc<Entry>)>>,
    /// Topics that clients name, which is asked for often: a count of the map would lock all of it.
    named: AtomicUsize,
}

/// One topic on this node.
pub(crate) struct Entry {
    pub(crate) topic: Topic,
    listeners: AtomicUsize,
    /// When the last listener left; only while the entry waits to be looked at.
    deserted: Mutex<Option<Instant>>,
    /// Set once the topic is attached, followed and placed.
    pub(crate) started: OnceCell<()>,
    /// How far the relay is.
    pub(crate) progress: Mutex<Progress>,
    pub(crate) lanes: Lanes,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            leaving: Mutex::default(),
            named: AtomicUsize::new(0),
        }
    }

    fn shard(&self, topic: &Topic) -> &Shard {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    /// The topic's entry with one listener more; to be given back with [`Hub::leave`].
    pub(crate) fn join(&self, topic: &Topic) -> Arc<Entry> {
        let mut topics = self.shard(topic).write();
        let entry = topics.entry(topic.clone()).or_insert_with(|| {
            self.named.fetch_add(named(topic), Ordering::Relaxed);
            Arc::new(Entry::new(topic))
        });
        entry.listeners.fetch_add(1, Ordering::Relaxed);
        Arc::clone(entry)
    }

    /// One listener less.
    pub(crate) fn leave(&self, entry: &Arc<Entry>) {
        if entry.listeners.fetch_sub(1, Ordering::AcqRel) == 1 {
            let now = Instant::now();
            let mut leaving = self.leaving.lock();
            let waits = entry.deserted.lock().replace(now).is_some();
            if !waits {
                leaving.push_back((now, Arc::clone(entry)));
            }
        }
    }

    pub(crate) fn get(&self, topic: &Topic) -> Option<Arc<Entry>> {
        self.shard(topic).read().get(topic).cloned()
    }

    /// Removes topics that nobody came back to within `linger`; `detach` is called for each while
    /// no listener can join it, so that a detach never overtakes the attach of a new listener.
    pub(crate) fn remove_deserted(
        &self,
        linger: Duration,
        mut detach: impl FnMut(&Topic),
    ) -> Vec<Topic> {
        let mut removed = Vec::new();
        while let Some(entry) = self.next_deserted(linger) {
            let mut topics = self.shard(&entry.topic).write();
            let current = topics.get(&entry.topic).is_some_and(|held| Arc::ptr_eq(held, &entry));
            if current && entry.listeners.load(Ordering::Acquire) == 0 {
                topics.remove(&entry.topic);
                self.named.fetch_sub(named(&entry.topic), Ordering::Relaxed);
                detach(&entry.topic);
                removed.push(entry.topic.clone());
            }
        }
        removed
    }

    fn next_deserted(&self, linger: Duration) -> Option<Arc<Entry>> {
        let mut leaving = self.leaving.lock();
        while leaving.front().is_some_and(|(since, _)| since.elapsed() >= linger) {
            let (_, entry) = leaving.pop_front()?;
            let mut deserted = entry.deserted.lock();
            match *deserted {
                // Someone came and went meanwhile, so it has some time left.
                Some(since) if since.elapsed() < linger => {
                    drop(deserted);
                    leaving.push_back((since, entry));
                }
                _ => {
                    *deserted = None;
                    drop(deserted);
                    return Some(entry);
                }
            }
        }
        None
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Topics that clients name; those on which presence is told go with them. Costs the same
    /// however many there are.
    pub(crate) fn named(&self) -> usize {
        self.named.load(Ordering::Relaxed)
    }

    /// All topics of one of the 64 parts of the map.
    pub(crate) fn part(&self, index: usize) -> Vec<Topic> {
        self.shards[index % SHARDS].read().keys().cloned().collect()
    }
}

/// How many topics that clients name this is.
fn named(topic: &Topic) -> usize {
    usize::from(topic.kind() != TopicKind::Presence)
}

impl Entry {
    fn new(topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            listeners: AtomicUsize::new(0),
            deserted: Mutex::new(None),
            started: OnceCell::new(),
            progress: Mutex::default(),
            lanes: Lanes::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(5);

    fn topic() -> Topic {
        Topic::application("a").expect("a topic's name")
    }

    fn visit(hub: &Hub) {
        let entry = hub.join(&topic());
        hub.leave(&entry);
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_is_left_again_and_again_waits_once() {
        let hub = Hub::new();
        for _ in 0..1_000 {
            visit(&hub);
        }
        assert_eq!(hub.leaving.lock().len(), 1);
        tokio::time::advance(LINGER).await;
        assert_eq!(hub.remove_deserted(LINGER, |_| {}), [topic()]);
        assert_eq!((hub.len(), hub.named(), hub.leaving.lock().len()), (0, 0, 0));
    }

    #[test]
    fn topics_that_clients_name_are_counted_once_and_those_of_presence_are_not() {
        let hub = Hub::new();
        for topic in [topic(), topic(), topic().presence()] {
            hub.join(&topic);
        }
        assert_eq!((hub.len(), hub.named()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_lingers_from_when_it_was_left_last() {
        let hub = Hub::new();
        visit(&hub);
        tokio::time::advance(LINGER / 2).await;
        visit(&hub);
        tokio::time::advance(LINGER / 2).await;
        assert!(hub.remove_deserted(LINGER, |_| {}).is_empty(), "half of the time is left");
        tokio::time::advance(LINGER / 2).await;
        assert_eq!(hub.remove_deserted(LINGER, |_| {}), [topic()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_someone_came_back_to_stays_and_can_be_left_again() {
        let hub = Hub::new();
        visit(&hub);
        let entry = hub.join(&topic());
        tokio::time::advance(LINGER).await;
        assert!(hub.remove_deserted(LINGER, |_| {}).is_empty(), "someone listens");
        hub.leave(&entry);
        tokio::time::advance(LINGER).await;
        assert_eq!(hub.remove_deserted(LINGER, |_| {}), [topic()]);
    }
}
