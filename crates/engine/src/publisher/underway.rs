//! Publications under way: one that was begun is finished, whoever asked and however they hang up.
//!
//! A publication that cannot be finished at once goes on in a task of its own, and its requester
//! waits for that task. The tasks are counted, for all callers and for each, and [`Underway::settle`]
//! ends them when the node shuts down.

use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use prometheus_client::metrics::gauge::Gauge;
use tidewire_protocol::{Code, Refusal};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Principal;

/// Counters that callers share by a hash of their names: two callers of a thousand rarely meet in
/// one, and the memory does not depend on how many there are.
const SHARES: usize = 256;

/// A caller may have this part of all publications under way: enough for a thousand at once with
/// the default limit, and seven callers that wait leave room for the eighth.
const PART: usize = 8;

/// Something to be finished.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Publications under way.
pub(crate) struct Underway {
    tasks: TaskTracker,
    stop: CancellationToken,
    counts: Arc<Counts>,
    hasher: RandomState,
}

struct Counts {
    all: AtomicUsize,
    shares: [AtomicUsize; SHARES],
    gauge: Gauge,
}

/// One publication's place among those under way; dropping it gives the place back.
pub(crate) struct Place {
    counts: Arc<Counts>,
    share: Option<usize>,
}

impl Underway {
    pub(crate) fn new(gauge: Gauge) -> Self {
        let shares = [const { AtomicUsize::new(0) }; SHARES];
        Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            counts: Arc::new(Counts { all: AtomicUsize::new(0), shares, gauge }),
            hasher: RandomState::new(),
        }
    }

    /// A place for one more publication, at most `limit` for all callers and an eighth of it for
    /// one; a caller that is not named is limited with all others only.
    ///
    /// # Errors
    /// `RateLimited` when the caller has its part already, `Unavailable` when there is no place or
    /// the node has shut down.
    pub(crate) fn place(&self, caller: Option<&Principal>, limit: usize) -> Result<Place, Refusal> {
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        let share = caller.map(|caller| self.hasher.hash_one(caller) as usize % SHARES);
        if let Some(share) = share
            && !take(&self.counts.shares[share], (limit / PART).max(1))
        {
            let message = "as many of your publications are under way as one caller may have";
            return Err(Refusal::new(Code::RateLimited, message));
        }
        // From here on the place gives back what was taken.
        let place = Place { counts: Arc::clone(&self.counts), share };
        place.counts.gauge.inc();
        if place.counts.all.fetch_add(1, Ordering::Relaxed) >= limit {
            let message = "this server has as many publications under way as it allows";
            return Err(Refusal::new(Code::Unavailable, message));
        }
        Ok(place)
    }

    /// Does the work to its end, also when the caller does not wait for it any more.
    ///
    /// # Errors
    /// `Unavailable` when the node shuts down before the end.
    pub(crate) async fn finish<T: Send + 'static>(&self, mut work: Work<T>) -> Result<T, Refusal> {
        // What is done at once, as with a history in memory, needs no task.
        let first = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        if let Poll::Ready(done) = first {
            return Ok(done);
        }
        let stop = self.stop.clone();
        let task = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                done = work => Some(done),
                () = stop.cancelled() => None,
            }
        });
        let done = task.await.ok().flatten();
        done.ok_or_else(stopping)
    }

    /// Waits until everything under way is finished, and ends at the deadline what is not.
    pub(crate) async fn settle(&self, deadline: Instant) {
        self.tasks.close();
        let _ = timeout_at(deadline, self.tasks.wait()).await;
        self.stop.cancel();
    }
}

fn stopping() -> Refusal {
    Refusal::new(Code::Unavailable, "the server stops, try again")
}

/// Counts one more, unless there are as many as allowed.
fn take(count: &AtomicUsize, limit: usize) -> bool {
    if count.fetch_add(1, Ordering::Relaxed) < limit {
        return true;
    }
    count.fetch_sub(1, Ordering::Relaxed);
    false
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
        self.counts.gauge.dec();
        if let Some(share) = self.share {
            self.counts.shares[share].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_an_eighth_of_all_places_and_gives_them_back() {
        let me = Principal::Subject("me".into());
        let underway = Underway::new(Gauge::default());
        let places: Vec<_> = (0..10).map(|_| underway.place(Some(&me), 32)).collect();
        let codes: Vec<_> = places.iter().filter_map(|place| place.as_ref().err()).collect();
        assert_eq!(codes.len(), 6);
        assert!(codes.iter().all(|refusal| refusal.code == Code::RateLimited));
        let others: Vec<_> = (0..30).map(|_| underway.place(None, 32)).collect();
        assert_eq!(others.iter().filter(|place| place.is_ok()).count(), 28);
        assert_eq!(others[29].as_ref().err().map(|refusal| refusal.code), Some(Code::Unavailable));
        drop((places, others));
        assert_eq!(underway.counts.gauge.get(), 0);
        assert!(underway.place(Some(&me), 1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_finished_although_nobody_waits_and_ended_at_the_deadline() {
        let underway = Underway::new(Gauge::default());
        let (done, finished) = tokio::sync::oneshot::channel();
        let pause = std::time::Duration::from_secs(1);
        let work = underway.finish(Box::pin(async move {
            tokio::time::sleep(pause).await;
            done.send(()).expect("the test waits");
        }));
        assert!(tokio::time::timeout(pause / 2, work).await.is_err());
        finished.await.expect("it goes on");

        let endless = underway.finish(Box::pin(std::future::pending::<()>()));
        let (ended, ()) = tokio::join!(endless, underway.settle(Instant::now() + pause));
        assert_eq!(ended.unwrap_err().code, Code::Unavailable);
    }
}
