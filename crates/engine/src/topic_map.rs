//! A map with topics as keys, in parts with a lock each.
//!
//! Which part a topic is in, and where in the part, comes of a single hash: to hash a name, safe
//! against names chosen to collide, is a good part of what a message costs here.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use parking_lot::RwLock;
use tidewire_protocol::Topic;

/// Enough that two cores or sixty-four rarely meet.
pub(crate) const PARTS: usize = 64;

/// Bits of a hash by which a map finds a place, in the largest part that memory has room for; the
/// part is chosen by those above.
const PLACE_BITS: u32 = 32;

/// A map with topics as keys.
pub(crate) struct TopicMap<V> {
    parts: Vec<RwLock<Part<V>>>,
    hasher: RandomState,
}

/// Some of the topics.
pub(crate) type Part<V> = HashMap<Key, V, BuildHasherDefault<Known>>;

/// A topic whose hash is known.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
    pub(crate) topic: Topic,
}

impl<V> Default for TopicMap<V> {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| RwLock::default()).collect();
        Self { parts, hasher: RandomState::new() }
    }
}

impl<V> TopicMap<V> {
    /// All parts, for who looks at every topic.
    pub(crate) fn parts(&self) -> &[RwLock<Part<V>>] {
        &self.parts
    }

    /// How many topics there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().len()).sum()
    }

    fn find(&self, topic: &Topic) -> (Key, &RwLock<Part<V>>) {
        let key = Key { hash: self.hasher.hash_one(topic), topic: topic.clone() };
        let part = (key.hash >> PLACE_BITS) as usize % PARTS;
        (key, &self.parts[part])
    }
}

impl<V: Clone> TopicMap<V> {
    /// What there is for a topic.
    pub(crate) fn get(&self, topic: &Topic) -> Option<V> {
        let (key, part) = self.find(topic);
        part.read().get(&key).cloned()
    }

    /// What there is for a topic; what `make` gives if there is nothing.
    pub(crate) fn get_or_insert_with(&self, topic: &Topic, make: impl FnOnce() -> V) -> V {
        let (key, part) = self.find(topic);
        if let Some(value) = part.read().get(&key) {
            return value.clone();
        }
        part.write().entry(key).or_insert_with(make).clone()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes over the hash that a [`Key`] knows.
#[derive(Default)]
pub(crate) struct Known(u64);

impl Hasher for Known {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key has nothing but its hash");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: usize) -> Topic {
        Topic::application(&format!("room:{number}")).expect("a topic")
    }

    #[test]
    fn every_topic_is_found_again_and_kept_once() {
        let map = TopicMap::default();
        for number in 0..1_000 {
            assert_eq!(map.get(&topic(number)), None);
            assert_eq!(map.get_or_insert_with(&topic(number), || number), number);
            assert_eq!(map.get_or_insert_with(&topic(number), || 0), number);
            assert_eq!(map.get(&topic(number)), Some(number));
        }
        assert_eq!(map.len(), 1_000);
    }

    #[test]
    fn topics_are_spread_over_the_parts() {
        let map = TopicMap::default();
        (0..10 * PARTS).for_each(|number| map.get_or_insert_with(&topic(number), || ()));
        let used = map.parts().iter().filter(|part| !part.read().is_empty()).count();
        assert!(used > PARTS / 2, "only {used} parts are used");
    }
}
