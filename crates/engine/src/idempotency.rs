//! Requests that are repeated with the same key are carried out once.
//!
//! A repeat that comes while the first is still under way waits for it and gets its result, so a
//! client that lost its connection in the middle may simply ask again. An attempt that failed is
//! forgotten, so that a repeat tries anew, also with another content: until an attempt has
//! succeeded its key stands for nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire_protocol::{Code, Position, Refusal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::budget::Principal;
use crate::limits::Limits;

/// Whose key it is, and the key.
pub(crate) type Key = (Principal, Arc<str>);

/// What a publication came to: its position, where it has one.
pub(crate) type Said = Option<Position>;

/// What a key stands for.
enum Slot {
    /// An attempt is under way.
    Attempt { fingerprint: u64, outcome: watch::Receiver<Option<Said>> },
    /// It was published.
    Published { fingerprint: u64, said: Said },
}

/// Results by key, for a while.
#[derive(Default)]
pub(crate) struct Idempotency {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Key, (u64, Slot)>,
    /// Keys by age, oldest first.
    ages: BTreeMap<u64, (Instant, Key)>,
    next: u64,
    /// The ages of each principal's keys.
    held: HashMap<Principal, BTreeSet<u64>>,
    /// Principals by how many keys they have.
    most: BTreeSet<(usize, Principal)>,
}

/// Whose turn it is to publish under a key.
enum Turn<'a> {
    /// The caller's.
    Ours(Attempt<'a>),
    /// It was published.
    Published { fingerprint: u64, said: Said },
    /// Another attempt is under way.
    Theirs { fingerprint: u64, outcome: watch::Receiver<Option<Said>> },
}

impl Idempotency {
    /// Runs `say` unless the key was used already; then gives the result of that time.
    ///
    /// `say` must be driven to its end: an attempt that is dropped counts as failed.
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
        loop {
            let (held, said) = match self.turn(&key, fingerprint, limits) {
                Turn::Ours(attempt) => {
                    let said = say.await?;
                    attempt.succeed(said);
                    return Ok(said);
                }
                Turn::Published { fingerprint, said } => (fingerprint, Some(said)),
                Turn::Theirs { fingerprint, mut outcome } => {
                    // It ends without an outcome when the attempt failed.
                    let _ = outcome.changed().await;
                    (fingerprint, *outcome.borrow())
                }
            };
            match said {
                Some(said) if held == fingerprint => return Ok(said),
                Some(_) => return Err(reused(&key)),
                // The key is free again.
                None => {}
            }
        }
    }

    fn turn(&self, key: &Key, fingerprint: u64, limits: &Limits) -> Turn<'_> {
        let mut state = self.state.lock();
        match state.slots.get(key) {
            Some(&(_, Slot::Published { fingerprint, said })) => {
                return Turn::Published { fingerprint, said };
            }
            Some((_, Slot::Attempt { fingerprint, outcome })) => {
                return Turn::Theirs { fingerprint: *fingerprint, outcome: outcome.clone() };
            }
            None => {}
        }
        state.make_room_for(&key.0, limits);
        let (sender, outcome) = watch::channel(None);
        state.insert(key, Slot::Attempt { fingerprint, outcome }, Instant::now());
        Turn::Ours(Attempt { memory: self, key: key.clone(), fingerprint, outcome: sender })
    }

    /// Takes on keys that were used before the process began, oldest first, each with the time that
    /// has passed since.
    pub(crate) fn restore(
        &self,
        keys: impl Iterator<Item = (Key, u64, Said, Duration)>,
        limits: &Limits,
    ) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        for (key, fingerprint, said, age) in keys {
            // A clock that does not reach back that far makes them younger, which does no harm.
            let used = now.checked_sub(age).unwrap_or(now);
            if !state.slots.contains_key(&key) {
                state.make_room_for(&key.0, limits);
                state.insert(&key, Slot::Published { fingerprint, said }, used);
            }
        }
    }

    /// Forgets keys older than their time.
    pub(crate) fn tick(&self, limits: &Limits) {
        let mut state = self.state.lock();
        while let Some((&age, (at, _))) = state.ages.first_key_value()
            && at.elapsed() >= limits.idempotency_ttl
        {
            state.remove(age);
        }
    }
}

fn reused(key: &Key) -> Refusal {
    let message = format!(
        "the idempotency key \"{}\" was used for another publication",
        key.1.replace('\0', "/")
    );
    Refusal::new(Code::KeyReused, message)
}

impl State {
    /// Forgets the principal's oldest key where it has as many as one may, and that of the
    /// principal with the most where there are as many as there may be.
    fn make_room_for(&mut self, principal: &Principal, limits: &Limits) {
        let oldest = |held: &BTreeSet<u64>| held.first().copied();
        if let Some(held) = self.held.get(principal)
            && held.len() >= limits.budgets.idempotency_keys
            && let Some(age) = oldest(held)
        {
            self.remove(age);
        }
        while self.slots.len() >= limits.idempotency_keys.max(1)
            && let Some((_, most)) = self.most.last()
            && let Some(age) = self.held.get(most).and_then(oldest)
        {
            self.remove(age);
        }
    }

    fn insert(&mut self, key: &Key, slot: Slot, used: Instant) {
        let age = self.next;
        self.next += 1;
        self.slots.insert(key.clone(), (age, slot));
        self.ages.insert(age, (used, key.clone()));
        self.note(&key.0, |held| held.insert(age));
    }

    fn remove(&mut self, age: u64) {
        let Some((_, key)) = self.ages.remove(&age) else { return };
        self.slots.remove(&key);
        self.note(&key.0, |held| held.remove(&age));
    }

    /// Changes which keys a principal has.
    fn note(&mut self, principal: &Principal, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let held = self.held.entry(principal.clone()).or_default();
        let before = held.len();
        change(held);
        let after = held.len();
        self.most.remove(&(before, principal.clone()));
        match after {
            0 => drop(self.held.remove(principal)),
            _ => drop(self.most.insert((after, principal.clone()))),
        }
    }
}

/// An attempt to publish under a key; dropped without success it leaves no trace.
struct Attempt<'a> {
    memory: &'a Idempotency,
    key: Key,
    fingerprint: u64,
    outcome: watch::Sender<Option<Said>>,
}

impl Attempt<'_> {
    fn succeed(self, said: Said) {
        if let Some(slot) = self.own(&mut self.memory.state.lock()) {
            *slot = Slot::Published { fingerprint: self.fingerprint, said };
        }
        self.outcome.send_replace(Some(said));
    }

    /// The key's slot, unless it was let go of meanwhile, and perhaps taken by another attempt.
    fn own<'s>(&self, state: &'s mut State) -> Option<&'s mut Slot> {
        let (_, slot) = state.slots.get_mut(&self.key)?;
        let own = |outcome: &watch::Receiver<_>| outcome.same_channel(&self.outcome.subscribe());
        matches!(slot, Slot::Attempt { outcome, .. } if own(outcome)).then_some(slot)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.state.lock();
        if self.own(&mut state).is_none() {
            return;
        }
        if let Some(&(age, _)) = state.slots.get(&self.key) {
            state.remove(age);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tidewire_protocol::Epoch;

    use super::*;
    use crate::limits::Budgets;

    fn key() -> Key {
        (Principal::Subject("me".into()), "k".into())
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

    #[tokio::test(start_paused = true)]
    async fn another_content_waits_for_the_attempt_and_has_the_key_when_that_failed() {
        let (memory, limits) = (Idempotency::default(), Limits::default());
        let slow = |result| async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            result
        };
        let down = Err(Refusal::new(Code::Unavailable, "down"));
        let (failed, others, repeat) = tokio::join!(
            memory.once(key(), 7, &limits, slow(down)),
            async {
                let first = memory.once(key(), 8, &limits, slow(Ok(None)));
                tokio::join!(first, memory.once(key(), 9, &limits, slow(Ok(None))))
            },
            memory.once(key(), 8, &limits, async { Ok(None) }),
        );
        assert!(failed.is_err());
        let codes = [others.0, others.1, repeat].map(|said| said.err().map(|error| error.code));
        assert_eq!(codes, [None, Some(Code::KeyReused), None]);
        let state = memory.state.lock();
        assert_eq!((state.slots.len(), state.ages.len()), (1, 1));
    }

    #[tokio::test]
    async fn an_attempt_that_is_dropped_frees_its_key() {
        let (memory, limits) = (Idempotency::default(), Limits::default());
        let endless = memory.once(key(), 7, &limits, std::future::pending());
        let pause = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(pause, endless).await.is_err());
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
            let key = (Principal::Subject("me".into()), name.into());
            memory.once(key, 7, &limits, async { Ok(None) }).await.unwrap();
        }
        assert_eq!(memory.state.lock().slots.len(), 2);
        tokio::time::advance(limits.idempotency_ttl).await;
        memory.tick(&limits);
        let state = memory.state.lock();
        assert!(state.slots.is_empty() && state.ages.is_empty());
        assert!(state.held.is_empty() && state.most.is_empty());
    }

    #[tokio::test]
    async fn one_principal_cannot_have_the_keys_of_others_forgotten() {
        let memory = Idempotency::default();
        let budgets = Budgets { idempotency_keys: 5, ..Budgets::default() };
        let limits = Limits { idempotency_keys: 7, budgets, ..Limits::default() };
        let publish = async |who: &str, name: u32, fingerprint| {
            let key = (Principal::Subject(who.into()), name.to_string().into());
            memory.once(key, fingerprint, &limits, async { Ok(None) }).await
        };
        for name in 0..3 {
            publish("ann", name, 1).await.unwrap();
        }
        for name in 0..100 {
            publish("mallory", name, 1).await.unwrap();
            assert!(memory.state.lock().slots.len() <= 7);
        }
        for name in 0..3 {
            let refused = publish("ann", name, 2).await.unwrap_err();
            assert_eq!(refused.code, Code::KeyReused, "her keys are remembered");
        }
        assert!(publish("mallory", 0, 2).await.is_ok(), "its own oldest are not");
    }
}
