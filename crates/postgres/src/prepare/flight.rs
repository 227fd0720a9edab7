//! Equal questions asked at the same time, answered together.
//!
//! Whoever asks while an equal question is being answered joins the next round, which begins after
//! that: an answer is never older than its question. However many ask, at most one round of a
//! question runs and one waits. A round that nobody waits for any more is given up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tidewire_protocol::Refusal;
use tokio::sync::Mutex as Turn;

use super::detached;

type Answer<T> = Shared<BoxFuture<'static, Result<T, Refusal>>>;

/// Questions being answered.
pub(crate) struct Flights<K, T>(Arc<Mutex<HashMap<K, Flight<T>>>>);

struct Flight<T> {
    /// Held by the round that runs.
    turn: Arc<Turn<()>>,
    /// The round that has not begun.
    next: Option<Answer<T>>,
    /// Rounds that run or wait.
    rounds: usize,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the round that has not begun, or makes one that does `work`.
    pub(crate) async fn join<F>(
        &self,
        key: K,
        work: impl FnOnce(K) -> F + Send + 'static,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let answer = {
            let mut flights = self.0.lock();
            let flight = flights.entry(key.clone()).or_insert_with(|| Flight {
                turn: Arc::default(),
                next: None,
                rounds: 0,
            });
            match &flight.next {
                Some(answer) => answer.clone(),
                None => {
                    let round = self.round(key, Arc::clone(&flight.turn), work);
                    let answer = detached(round).boxed().shared();
                    flight.rounds += 1;
                    flight.next = Some(answer.clone());
                    answer
                }
            }
        };
        answer.await
    }

    /// Waits for the turn, closes the door and does the work.
    fn round<F>(
        &self,
        key: K,
        turn: Arc<Turn<()>>,
        work: impl FnOnce(K) -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Refusal>> + Send + 'static
    where
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let flights = Arc::clone(&self.0);
        async move {
            let turn = turn.lock_owned().await;
            if let Some(flight) = flights.lock().get_mut(&key) {
                flight.next = None;
            }
            let ended = Ended { flights, key: key.clone() };
            let outcome = work(key).await;
            drop(turn);
            drop(ended);
            outcome
        }
    }
}

/// Counts a round as ended, also when its work panicked.
struct Ended<K: Eq + Hash, T> {
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Ended<K, T> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get_mut(&self.key) {
            flight.rounds -= 1;
            if flight.rounds == 0 {
                flights.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_round_that_nobody_waits_for_is_given_up() {
        let flights: Arc<Flights<&str, usize>> = Arc::default();
        let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(()));
        let asked = {
            let (flights, begun, ended) = (flights.clone(), begun.clone(), ended.clone());
            let work = |_| async move {
                let _ended = ended;
                begun.add_permits(1);
                std::future::pending().await
            };
            tokio::spawn(async move { flights.join("question", work).await })
        };
        begun.acquire().await.expect("it is never closed").forget();
        asked.abort();
        while Arc::strong_count(&ended) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn whoever_asks_while_an_answer_is_made_gets_the_next_one() {
        let flights: Arc<Flights<&str, usize>> = Arc::default();
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (flights, begun, gate) = (flights.clone(), begun.clone(), gate.clone());
            tokio::spawn(async move {
                let work = |_| async move {
                    let round = begun.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.expect("it is never closed").forget();
                    Ok(round)
                };
                flights.join("question", work).await.unwrap()
            })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..50).map(|_| ask()).collect();
        while flights.0.lock()["question"].next.is_none() {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), 0);
        for one in later {
            assert_eq!(one.await.unwrap(), 1);
        }
        assert!(flights.0.lock().is_empty());
    }
}
