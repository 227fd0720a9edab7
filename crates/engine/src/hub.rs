//! Topics on this node and who listens to each.
//!
//! An entry is made by the first listener: it asks the topic's upstream for it, follows it at the
//! broker, and begins at the history's head. The last listener leaves it to linger for some
//! seconds, so that a page reload does not flap.

mod live_topic;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use live_topic::{Delivered, LiveTopic, Member};
use parking_lot::{Mutex, RwLock};
use tidewire_protocol::Topic;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::cursor::Cursor;

/// Locks over the map of topics: enough that two cores or sixty-four rarely meet.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<Topic, Arc<Entry>>>;

/// Topics on this node.
pub(crate) struct Hub {
    shards: Vec<Shard>,
    hasher: RandomState,
    /// Entries whose last listener left, oldest first.
    leaving: Mutex<VecDeque<(Instant, Arc<Entry>)>>,
}

/// One topic on this node.
pub(crate) struct Entry {
    pub(crate) topic: Topic,
    listeners: AtomicUsize,
    /// Set once the topic is attached, followed and placed.
    pub(crate) started: OnceCell<()>,
    /// Where the relay is; `None` until the topic is placed.
    pub(crate) relay: Mutex<RelayState>,
    pub(crate) live: Mutex<LiveTopic>,
}

#[derive(Default)]
pub(crate) struct RelayState {
    pub(crate) cursor: Option<Cursor>,
    /// Something was announced before the cursor was set.
    pub(crate) missed: bool,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            leaving: Mutex::default(),
        }
    }

    fn shard(&self, topic: &Topic) -> &Shard {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    /// The topic's entry with one listener more; to be given back with [`Hub::leave`].
    pub(crate) fn join(&self, topic: &Topic) -> Arc<Entry> {
        let mut topics = self.shard(topic).write();
        let entry = topics.entry(topic.clone()).or_insert_with(|| Arc::new(Entry::new(topic)));
        entry.listeners.fetch_add(1, Ordering::Relaxed);
        Arc::clone(entry)
    }

    /// One listener less.
    pub(crate) fn leave(&self, entry: &Arc<Entry>) {
        if entry.listeners.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.leaving.lock().push_back((Instant::now(), Arc::clone(entry)));
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
                detach(&entry.topic);
                removed.push(entry.topic.clone());
            }
        }
        removed
    }

    fn next_deserted(&self, linger: Duration) -> Option<Arc<Entry>> {
        let mut leaving = self.leaving.lock();
        let due = leaving.front().is_some_and(|(since, _)| since.elapsed() >= linger);
        if due { leaving.pop_front().map(|(_, entry)| entry) } else { None }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All topics of one of the 64 parts of the map.
    pub(crate) fn part(&self, index: usize) -> Vec<Topic> {
        self.shards[index % SHARDS].read().keys().cloned().collect()
    }
}

impl Entry {
    fn new(topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            listeners: AtomicUsize::new(0),
            started: OnceCell::new(),
            relay: Mutex::default(),
            live: Mutex::new(LiveTopic::default()),
        }
    }
}
