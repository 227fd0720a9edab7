//! Something that every principal may do so often.
//!
//! Each principal has a token bucket. One that has filled up again is forgotten, and their number
//! is bounded: principals beyond it share one.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Principal;

/// Principals with a bucket of their own; about a megabyte.
const PRINCIPALS: usize = 10_000;

/// How often full buckets are looked for at most, since that walks through all of them.
const SWEEP: Duration = Duration::from_secs(1);

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second, on average.
    pub per_second: u32,
    /// At once, after a silence.
    pub burst: u32,
}

/// How often something was done, by principal.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    buckets: HashMap<Principal, Bucket>,
    /// For the principals beyond [`PRINCIPALS`].
    others: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    /// Below zero after something that counted for more than the burst.
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Takes the room for doing it `count` times; nothing is taken when there is none.
    ///
    /// What counts for more than the burst is possible too, after a silence, and paid off later.
    pub fn take(&self, principal: &Principal, count: usize, rate: Rate) -> bool {
        let mut buckets = self.0.lock();
        let bucket = buckets.of(principal, rate);
        let count = count as f64;
        let is_there = bucket.tokens >= count.min(f64::from(rate.burst));
        if is_there {
            bucket.tokens -= count;
        }
        is_there
    }

    /// Whether there is room for once more, which is not taken.
    pub fn has_room(&self, principal: &Principal, rate: Rate) -> bool {
        let mut buckets = self.0.lock();
        // Most principals never did it, and need no bucket to know.
        let is_new = buckets.others.is_none() && !buckets.buckets.contains_key(principal);
        is_new || buckets.of(principal, rate).tokens >= 1.0
    }
}

impl Buckets {
    fn of(&mut self, principal: &Principal, rate: Rate) -> &mut Bucket {
        let now = Instant::now();
        let full = || Bucket { tokens: f64::from(rate.burst), at: now };
        let bucket = match self.has_place(principal, rate, now) {
            true => self.buckets.entry(principal.clone()).or_insert_with(full),
            false => self.others.get_or_insert_with(full),
        };
        bucket.refill(rate, now);
        bucket
    }

    /// Whether the principal has a bucket or may have one.
    fn has_place(&mut self, principal: &Principal, rate: Rate, now: Instant) -> bool {
        if self.buckets.len() < PRINCIPALS || self.buckets.contains_key(principal) {
            return true;
        }
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP) {
            return false;
        }
        self.swept = Some(now);
        self.others = None;
        self.buckets.retain(|_, bucket| {
            bucket.refill(rate, now);
            bucket.tokens < f64::from(rate.burst)
        });
        self.buckets.len() < PRINCIPALS
    }
}

impl Bucket {
    fn refill(&mut self, rate: Rate, now: Instant) {
        let gained = now.duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.tokens = (self.tokens + gained).min(f64::from(rate.burst));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    fn at(number: u32) -> Principal {
        Principal::at(Some(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_has_a_burst_and_then_the_rate_and_others_do_not_notice() {
        let rates = Rates::default();
        let take = |who: u32, count| rates.take(&at(who), count, RATE);
        assert!(take(1, 20));
        assert!(!take(1, 1));
        assert!(!rates.has_room(&at(1), RATE));
        assert!(rates.has_room(&at(2), RATE));
        assert!(take(2, 20));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(take(1, 10));
        assert!(!take(1, 1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(take(1, 100), "more than the burst");
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(!take(1, 1), "and paid off");
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_principals_takes_bounded_memory() {
        let rates = Rates::default();
        let all = |from: u32| {
            for number in from..from + 2 * PRINCIPALS as u32 {
                let _ = rates.take(&at(number), 20, RATE);
            }
        };
        all(0);
        assert_eq!(rates.0.lock().buckets.len(), PRINCIPALS);
        tokio::time::advance(Duration::from_secs(5)).await;
        all(1 << 20);
        assert_eq!(rates.0.lock().buckets.len(), PRINCIPALS);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(rates.take(&at(u32::MAX), 1, RATE));
        assert_eq!(rates.0.lock().buckets.len(), 1);
    }
}
