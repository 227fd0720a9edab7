//! Things kept while they are used, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what was not asked for while one filled is forgotten with it.
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Things in one generation.
    room: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Generations<K, V> {
    /// Keeps at most `most` things, and at least half of them.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), room: most / 2 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut kept = Generations::new(4);
        for n in 0..100 {
            kept.insert(n, n);
            assert_eq!(kept.get(&0), Some(0));
            assert!(kept.young.len() + kept.old.len() <= 4);
        }
        assert_eq!(kept.get(&50), None);
    }
}
