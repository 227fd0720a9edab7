//! Requests that are repeated with the same key are carried out once.
//!
//! A repeat that comes while the first is still under way waits for it and gets its result, so a
//! client that lost its connection in the middle may simply ask again. An attempt that failed is
//! forgotten, so that a repeat tries anew, also with another content: until an attempt has
//! succeeded its key stands for nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire_protocol::{Code, Position, Refusal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::Limits;

/// Whose key it is, and the key.
pub(crate) type Key = (Arc<str>, Arc<str>);

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
    slots: HashMap<Key, Slot>,
    /// Keys by age, oldest first.
    ages: VecDeque<(Instant, Key)>,
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
            Some(&Slot::Published { fingerprint, said }) => {
                return Turn::Published { fingerprint, said };
            }
            Some(Slot::Attempt { fingerprint, outcome }) => {
                return Turn::Theirs { fingerprint: *fingerprint, outcome: outcome.clone() };
            }
            None => {}
        }
        while state.slots.len() >= limits.idempotency_keys.max(1) {
            state.drop_oldest();
        }
        let (sender, outcome) = watch::channel(None);
        state.slots.insert(key.clone(), Slot::Attempt { fingerprint, outcome });
        state.ages.push_back((Instant::now(), key.clone()));
        Turn::Ours(Attempt { memory: self, key: key.clone(), fingerprint, outcome: sender })
    }

    /// Forgets keys older than their time.
    pub(crate) fn tick(&self, limits: &Limits) {
        let mut state = self.state.lock();
        while state.ages.front().is_some_and(|(at, _)| at.elapsed() >= limits.idempotency_ttl) {
            state.drop_oldest();
        }
    }
}

fn reused(key: &Key) -> Refusal {
    let message = format!("the idempotency key \"{}\" was used for another publication", key.1);
    Refusal::new(Code::KeyReused, message)
}

impl State {
    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.ages.pop_front() {
            self.slots.remove(&key);
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
        let slot = state.slots.get_mut(&self.key)?;
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
        state.slots.remove(&self.key);
        // The newest keys are at the back, where a failure of just now is found at once.
        if let Some(place) = state.ages.iter().rposition(|(_, aged)| *aged == self.key) {
            state.ages.remove(place);
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
            let key = ("me".into(), name.into());
            memory.once(key, 7, &limits, async { Ok(None) }).await.unwrap();
        }
        assert_eq!(memory.state.lock().slots.len(), 2);
        tokio::time::advance(limits.idempotency_ttl).await;
        memory.tick(&limits);
        assert_eq!(memory.state.lock().slots.len(), 0);
    }
}
