//! Things kept while they are used, in bounded memory: by their number and by their weight.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what was not asked for while one filled is forgotten with it.
pub(super) struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// Things in one generation.
    room: usize,
    /// Bytes in one generation.
    bytes: usize,
    /// Bytes of the young.
    held: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Generations<K, V> {
    /// Keeps at most `most` things of at most `bytes`, and at least half of them; one that is
    /// heavier than half of `bytes` is not kept.
    pub(super) fn new(most: usize, bytes: usize) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { young, old, room: most / 2, bytes: bytes / 2, held: 0 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(key)?;
        self.insert(key.clone(), value.clone(), weight);
        Some(value)
    }

    /// Keeps a thing that takes `weight` bytes.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize) {
        if weight > self.bytes {
            return;
        }
        if self.young.len() >= self.room || self.held + weight > self.bytes {
            self.old = std::mem::take(&mut self.young);
            self.held = 0;
        }
        self.held += weight;
        if let Some((_, before)) = self.young.insert(key, (value, weight)) {
            self.held -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut kept = Generations::new(4, 1_000);
        for n in 0..100 {
            kept.insert(n, n, 1);
            assert_eq!(kept.get(&0), Some(0));
            assert!(kept.young.len() + kept.old.len() <= 4);
        }
        assert_eq!(kept.get(&50), None);
    }

    #[test]
    fn heavy_things_are_few() {
        let mut kept = Generations::new(1_000, 100);
        for n in 0..100 {
            kept.insert(n, n, 20);
            let all = kept.young.values().chain(kept.old.values());
            assert!(all.map(|(_, weight)| weight).sum::<usize>() <= 100);
        }
        assert_eq!(kept.get(&99), Some(99));
        kept.insert(100, 100, 60);
        assert_eq!(kept.get(&100), None);
    }
}
