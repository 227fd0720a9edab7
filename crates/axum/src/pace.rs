//! How fast one caller may publish over HTTP, where each request stands for itself.
//!
//! Each caller has a token bucket: by the subject of its token, else by its address. A bucket that
//! has filled up again is forgotten, and their number is bounded: callers beyond it share one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::{Identity, Limits};
use tidewire_protocol::{Code, Refusal};
use tokio::time::Instant;

/// Callers with a bucket of their own; about a megabyte.
const CALLERS: usize = 10_000;

/// How often full buckets are looked for at most, since that walks through all of them.
const SWEEP: Duration = Duration::from_secs(1);

/// The part of an IPv6 address that one customer of a network commonly has: /64.
const NETWORK: u128 = !0 << 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Subject(Arc<str>),
    Address(IpAddr),
    /// Nobody known, or one too many.
    Others,
}

impl Key {
    fn of(identity: &Identity, peer: Option<SocketAddr>) -> Self {
        match (&identity.subject, peer.map(|peer| peer.ip().to_canonical())) {
            (Some(subject), _) => Self::Subject(Arc::clone(subject)),
            (None, Some(IpAddr::V6(address))) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into())
            }
            (None, Some(address)) => Self::Address(address),
            (None, None) => Self::Others,
        }
    }
}

/// The buckets of all callers.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    buckets: HashMap<Key, Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    /// Below zero after a batch that was larger than the burst.
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Takes the room for `count` publications of a caller.
    ///
    /// # Errors
    /// `RateLimited`, and then nothing is taken.
    pub(crate) fn admit(
        &self,
        identity: &Identity,
        peer: Option<SocketAddr>,
        count: usize,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if self.0.lock().take(Key::of(identity, peer), count, limits) {
            return Ok(());
        }
        let rate = limits.publishes_per_second;
        let message = format!("more than {rate} publications a second over HTTP, slow down");
        Err(Refusal::new(Code::RateLimited, message))
    }
}

impl Buckets {
    fn take(&mut self, key: Key, count: usize, limits: &Limits) -> bool {
        let now = Instant::now();
        let key = if self.has_room(&key, limits, now) { key } else { Key::Others };
        let (count, burst) = (count as f64, f64::from(limits.publish_burst));
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: burst, at: now });
        bucket.refill(limits, now);
        // A batch larger than the burst is possible too, after a silence, and paid off later.
        let is_there = bucket.tokens >= count.min(burst);
        if is_there {
            bucket.tokens -= count;
        }
        is_there
    }

    /// Whether the caller has a bucket or may have one.
    fn has_room(&mut self, key: &Key, limits: &Limits, now: Instant) -> bool {
        if self.buckets.len() < CALLERS || self.buckets.contains_key(key) {
            return true;
        }
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP) {
            return false;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| {
            bucket.refill(limits, now);
            bucket.tokens < f64::from(limits.publish_burst)
        });
        self.buckets.len() < CALLERS
    }
}

impl Bucket {
    fn refill(&mut self, limits: &Limits, now: Instant) {
        let gained =
            now.duration_since(self.at).as_secs_f64() * f64::from(limits.publishes_per_second);
        self.tokens = (self.tokens + gained).min(f64::from(limits.publish_burst));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { publishes_per_second: 10, publish_burst: 20, ..Limits::default() }
    }

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_a_burst_and_then_the_rate_and_others_do_not_notice() {
        let (pace, limits) = (Pace::default(), limits());
        let ann = Identity { subject: Some("ann".into()), ..Identity::default() };
        let take = |identity: &Identity, address, count| {
            pace.admit(identity, peer(address), count, &limits).is_ok()
        };
        assert!(take(&ann, "10.0.0.1", 20));
        assert!(!take(&ann, "10.0.0.2", 1), "the same from anywhere");
        let anonymous = Identity::anonymous();
        assert!(take(&anonymous, "10.0.0.1", 20));
        assert!(!take(&anonymous, "10.0.0.1", 1));
        assert!(take(&anonymous, "2001:db8::1", 20));
        assert!(!take(&anonymous, "2001:db8::2", 1), "one network");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(take(&ann, "10.0.0.1", 10));
        assert!(!take(&ann, "10.0.0.1", 1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(take(&ann, "10.0.0.1", 100), "a batch larger than the burst");
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(!take(&ann, "10.0.0.1", 1), "and paid off");
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_callers_takes_bounded_memory() {
        let (pace, limits) = (Pace::default(), limits());
        let all = |from: u32| {
            for number in from..from + 2 * CALLERS as u32 {
                let address = std::net::Ipv4Addr::from_bits(number).to_string();
                let _ = pace.admit(&Identity::anonymous(), peer(&address), 20, &limits);
            }
        };
        all(0);
        assert_eq!(pace.0.lock().buckets.len(), CALLERS + 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        all(1 << 20);
        assert_eq!(pace.0.lock().buckets.len(), CALLERS + 1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(pace.admit(&Identity::anonymous(), peer("1.2.3.4"), 1, &limits).is_ok());
        assert_eq!(pace.0.lock().buckets.len(), 1);
    }
}
