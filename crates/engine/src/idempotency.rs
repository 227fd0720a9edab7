//! Requests that are repeated with the same key are carried out once.
//!
//! A repeat that comes while the first is still under way waits for it and gets its result, so a
//! client that lost its connection in the middle may simply ask again. A request that failed is
//! forgotten, so that a repeat tries anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire_protocol::{Code, Position, Refusal};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::limits::Limits;

/// Whose key it is, and the key.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// What a publication came to: its position, where it has one.
pub(crate) type Said = Option<Position>;

struct Slot {
    /// What was asked, to find a key that is used for something else.
    fingerprint: u64,
    said: OnceCell<Said>,
}

/// Results by key, for a while.
#[derive(Default)]
pub(crate) struct Idempotency {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Key, Arc<Slot>>,
    /// Keys by age, oldest first.
    ages: VecDeque<(Instant, Key)>,
}

impl Idempotency {
    /// Runs `say` unless the key was used already; then gives the result of that time.
    ///
    /// # Errors
    /// What `say` refuses, or `KeyReused` when the key stands for something else.
    pub(crate) async fn once(
        &self,
        key: Key,
        fingerprint: u64,
        limits: &Limits,
        say: impl Future<Output = Result<Said, Refusal>>,
    ) -> Result<Said, Refusal> {
        let slot = self.slot(&key, fingerprint, limits);
        if slot.fingerprint != fingerprint {
            return Err(Refusal::new(
                Code::KeyReused,
                format!("the idempotency key \"{}\" was used for another publication", key.1),
            ));
        }
        let said = slot.said.get_or_try_init(|| say).await.copied();
        if said.is_err() {
            self.forget(&key, &slot);
        }
        said
    }

    fn slot(&self, key: &Key, fingerprint: u64, limits: &Limits) -> Arc<Slot> {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get(key) {
            return Arc::clone(slot);
        }
        while state.slots.len() >= limits.idempotency_keys.max(1) {
            state.drop_oldest();
        }
        let slot = Arc::new(Slot { fingerprint, said: OnceCell::new() });
        state.slots.insert(key.clone(), Arc::clone(&slot));
        state.ages.push_back((Instant::now(), key.clone()));
        slot
    }

    /// A failed attempt leaves no trace, unless someone waits to try with the same slot.
    fn forget(&self, key: &Key, slot: &Arc<Slot>) {
        let mut state = self.state.lock();
        let unused = Arc::strong_count(slot) <= 2 && !slot.said.initialized();
        if unused && state.slots.get(key).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            state.slots.remove(key);
            // The newest keys are at the back, where a failure of just now is found at once.
            if let Some(place) = state.ages.iter().rposition(|(_, aged)| aged == key) {
                state.ages.remove(place);
            }
        }
    }

    /// Forgets keys older than their time.
    pub(crate) fn tick(&self, limits: &Limits) {
        let mut state = self.state.lock();
        while state.ages.front().is_some_and(|(at, _)| at.elapsed() >= limits.idempotency_ttl) {
            state.drop_oldest();
        }
    }
}

impl State {
    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.ages.pop_front() {
            self.slots.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tidewire_protocol::Epoch;

    use super::*;

    fn key() -> Key {
        ("me".into(), "k".into())
    }

    #[tokio::test]
    async fn concurrent_repeats_are_said_once_and_told_the_same() {
        let memory = Arc::new(Idempotency::default());
        let said = Arc::new(AtomicU64::new(0));
        let repeats = (0..50).map(|_| {
            let (memory, said) = (Arc::clone(&memory), Arc::clone(&said));
            tokio::spawn(async move {
                let say = async {
                    tokio::task::yield_now().await;
                    let seq = said.fetch_add(1, Ordering::SeqCst) + 1;
                    Ok(Some(Position { epoch: Epoch(1), seq }))
                };
                memory.once(key(), 7, &Limits::default(), say).await.unwrap()
            })
        });
        for repeat in repeats.collect::<Vec<_>>() {
            assert_eq!(repeat.await.unwrap(), Some(Position { epoch: Epoch(1), seq: 1 }));
        }
    }

    #[tokio::test]
    async fn a_failed_attempt_may_be_tried_again() {
        let memory = Idempotency::default();
        let limits = Limits::default();
        let down = async { Err(Refusal::new(Code::Unavailable, "down")) };
        assert!(memory.once(key(), 7, &limits, down).await.is_err());
        assert_eq!(memory.once(key(), 8, &limits, async { Ok(None) }).await, Ok(None));
    }

    #[tokio::test]
    async fn a_key_stands_for_one_publication() {
        let memory = Idempotency::default();
        let limits = Limits::default();
        memory.once(key(), 7, &limits, async { Ok(None) }).await.unwrap();
        let refused = memory.once(key(), 8, &limits, async { Ok(None) }).await.unwrap_err();
        assert_eq!(refused.code, Code::KeyReused);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_forgotten_after_their_time_and_beyond_their_number() {
        let memory = Idempotency::default();
        let limits = Limits { idempotency_keys: 2, ..Limits::default() };
        for name in ["a", "b", "c"] {
            let key = ("me".into(), name.into());
            memory.once(key, 7, &limits, async { Ok(None) }).await.unwrap();
        }
        assert_eq!(memory.state.lock().slots.len(), 2);
        tokio::time::advance(limits.idempotency_ttl).await;
        memory.tick(&limits);
        assert_eq!(memory.state.lock().slots.len(), 0);
    }
}
