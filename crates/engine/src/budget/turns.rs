//! Something that every principal may do a few times at once, in the order in which it asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Principal;

/// The lines of all principals; one that nobody stands in takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Principal, Arc<Line>>>);

#[derive(Debug)]
struct Line {
    turns: Arc<Semaphore>,
    /// Who stands in it, those whose turn it is among them.
    standing: AtomicUsize,
}

/// Somebody who stands in a line.
struct Standing<'turns> {
    turns: &'turns Turns,
    principal: &'turns Principal,
    line: Arc<Line>,
}

/// It is the principal's turn, until this is dropped.
pub(crate) struct Turn<'turns> {
    _permit: OwnedSemaphorePermit,
    _standing: Standing<'turns>,
}

impl Turns {
    /// Waits for a turn: `at_once` have one at the same time, and at most `standing` stand in the
    /// principal's line; `None` when the line is longer. Cancel safe.
    pub(crate) async fn turn<'turns>(
        &'turns self,
        principal: &'turns Principal,
        at_once: usize,
        standing: usize,
    ) -> Option<Turn<'turns>> {
        let place = self.stand(principal, at_once, standing)?;
        let turns = Arc::clone(&place.line.turns);
        let permit = turns.acquire_owned().await.expect("the semaphore is never closed");
        Some(Turn { _permit: permit, _standing: place })
    }

    fn stand<'turns>(
        &'turns self,
        principal: &'turns Principal,
        at_once: usize,
        standing: usize,
    ) -> Option<Standing<'turns>> {
        let mut lines = self.0.lock();
        let line = lines.entry(principal.clone()).or_insert_with(|| {
            let (turns, standing) = (Arc::new(Semaphore::new(at_once)), AtomicUsize::new(0));
            Arc::new(Line { turns, standing })
        });
        if line.standing.load(Ordering::Relaxed) >= standing {
            return None;
        }
        line.standing.fetch_add(1, Ordering::Relaxed);
        Some(Standing { turns: self, principal, line: Arc::clone(line) })
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        // Under the lock, so that nobody enters a line that is being removed.
        let mut lines = self.turns.0.lock();
        if self.line.standing.fetch_sub(1, Ordering::Relaxed) == 1 {
            lines.remove(self.principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_line_of_one_principal_holds_up_no_other() {
        let turns = Turns::default();
        let (one, other) = (Principal::Subject("a".into()), Principal::Subject("b".into()));
        let first = turns.turn(&one, 1, 2).await.unwrap();
        let mut second = Box::pin(turns.turn(&one, 1, 2));
        let waited = tokio::time::timeout(Duration::from_secs(1), &mut second).await;
        assert!(waited.is_err(), "it waits");
        assert!(turns.turn(&one, 1, 2).await.is_none(), "the line is full");
        assert!(turns.turn(&other, 1, 2).await.is_some());
        drop(first);
        assert!(second.await.is_some());
        assert!(turns.0.lock().is_empty());
    }
}
