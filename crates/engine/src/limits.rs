//! How much of everything one client, one topic and one node may use.
//!
//! Nothing grows without bound: every number here has a default that suits a server for the open
//! internet.

use std::time::Duration;

use tokio::time::Instant;

/// Limits of a node; may be changed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open sessions; 100,000.
    pub connections: usize,
    /// Subscriptions of one session; 1,000.
    pub subscriptions: usize,
    /// Bytes of one message from a client; 64 KiB.
    pub message_bytes: usize,
    /// Bytes of one payload, from wherever it is published; 64 KiB.
    pub payload_bytes: usize,
    /// Requests of one session in a second, over time; 100.
    pub messages_per_second: u32,
    /// Publications a second over HTTP by one caller on average.
    pub publishes_per_second: u32,
    /// Publications over HTTP at once by one caller after a silence.
    pub publish_burst: u32,
    /// Requests of one session at once, before the rate counts; 200.
    pub burst: u32,
    /// Bytes waiting for one client before it is sent from history instead; 1 MiB.
    pub mailbox_bytes: usize,
    /// Members of one topic's presence; 1,000.
    pub members: usize,
    /// Publications in one HTTP request; 1,000.
    pub batch: usize,
    /// Bytes of one HTTP request's body; 8 MiB.
    pub body_bytes: usize,
    /// Time for TLS and the first request's headers; 10 s.
    pub handshake_timeout: Duration,
    /// A session that was silent this long is sent a ping, or a keep-alive comment; 25 s.
    ///
    /// Under the 30 s after which common proxies drop a silent connection.
    pub ping_interval: Duration,
    /// A WebSocket from which nothing came for this long ends; 60 s.
    pub idle_timeout: Duration,
    /// A client that takes no byte for this long, though some wait for it, ends; 30 s.
    pub write_timeout: Duration,
    /// Longest wait of one long-poll; 60 s.
    pub poll_timeout: Duration,
    /// How long a topic without listeners is still followed; 5 s.
    pub linger: Duration,
    /// Time to show a token where one is needed; 10 s.
    pub authentication_timeout: Duration,
    /// Publications under way at once, of all callers; 16,384. One caller has an eighth of them.
    ///
    /// They wait for the history or for PostgreSQL, also after their requester hung up.
    pub publishing: usize,
    /// How long an idempotency key is remembered; 5 min.
    pub idempotency_ttl: Duration,
    /// Idempotency keys remembered; 100,000.
    pub idempotency_keys: usize,
    /// Comings and goings on one topic within this time are told together; 50 ms.
    pub presence_interval: Duration,
    /// What one client may use of what all share.
    pub budgets: Budgets,
}

/// What one client may use of what all share: an address before authentication, a subject after
/// it. Without authentication only the totals count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Sockets of one address, those of authenticated sessions not counted; 1,000.
    pub address_sockets: usize,
    /// Sockets on which no request came yet; 4,096.
    pub handshakes: usize,
    /// The same of one address; 128.
    pub address_handshakes: usize,
    /// Sessions without a good token of one address; 250.
    pub address_connections: usize,
    /// Of [`Limits::connections`], the part for sessions without a good token, in percent; 50.
    pub unauthenticated_percent: u8,
    /// Sessions of one subject; 1,000.
    pub subject_connections: usize,
    /// Bytes of request bodies at the same time of one address without a good token; 16 MiB.
    pub address_body_bytes: usize,
    /// The same of one subject; 64 MiB.
    pub subject_body_bytes: usize,
    /// The same of all together, half of it for requests without a good token; 256 MiB.
    pub body_bytes: usize,
    /// Tokens of one address that are checked at the same time; 2.
    ///
    /// Half of the connections on which an SQL function is asked.
    pub address_token_checks: usize,
    /// Bytes that wait for all slow clients together; 512 MiB. One of them may hold an eighth of
    /// what is left, and at most [`Limits::mailbox_bytes`].
    pub mailbox_bytes: usize,
    /// Bytes of filters of one address or subject; 64 MiB.
    pub filter_bytes: usize,
    /// Bytes of filters of all, half of them of clients without a good token; 512 MiB.
    pub all_filter_bytes: usize,
    /// Topics that the publications of one address or subject make, in a second on average; 10.
    pub new_topics_per_second: u32,
    /// The same at once; 10,000.
    pub new_topic_burst: u32,
    /// Subscriptions of one address or subject to NOTIFY channels; 1,000.
    pub channels: usize,
    /// Of [`Limits::idempotency_keys`], those of one address or subject; 10,000.
    pub idempotency_keys: usize,
    /// Snapshots that are read at the same time for one address or subject; 2.
    ///
    /// Half of the connections on which snapshots are read.
    pub snapshots: usize,
    /// Snapshots of one address or subject that are read or wait; 1,000.
    pub waiting_snapshots: usize,
    /// Tokens of one address that are refused, in a second on average; 5.
    pub failed_tokens_per_second: u32,
    /// The same at once; 100.
    pub failed_token_burst: u32,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            address_sockets: 1_000,
            handshakes: 4_096,
            address_handshakes: 128,
            address_connections: 250,
            unauthenticated_percent: 50,
            subject_connections: 1_000,
            address_body_bytes: 16 << 20,
            subject_body_bytes: 64 << 20,
            body_bytes: 256 << 20,
            address_token_checks: 2,
            mailbox_bytes: 512 << 20,
            filter_bytes: 64 << 20,
            all_filter_bytes: 512 << 20,
            new_topics_per_second: 10,
            new_topic_burst: 10_000,
            channels: 1_000,
            idempotency_keys: 10_000,
            snapshots: 2,
            waiting_snapshots: 1_000,
            failed_tokens_per_second: 5,
            failed_token_burst: 100,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            subscriptions: 1_000,
            message_bytes: 64 << 10,
            payload_bytes: 64 << 10,
            messages_per_second: 100,
            burst: 200,
            publishes_per_second: 10_000,
            publish_burst: 20_000,
            mailbox_bytes: 1 << 20,
            members: 1_000,
            batch: 1_000,
            body_bytes: 8 << 20,
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            poll_timeout: Duration::from_secs(60),
            linger: Duration::from_secs(5),
            authentication_timeout: Duration::from_secs(10),
            publishing: 16_384,
            idempotency_ttl: Duration::from_secs(300),
            idempotency_keys: 100_000,
            presence_interval: Duration::from_millis(50),
            budgets: Budgets::default(),
        }
    }
}

/// A token bucket: a steady rate with room for a burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f32,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(burst: u32, now: Instant) -> Self {
        Self { tokens: burst as f32, at: now }
    }

    /// Takes one token if there is one.
    pub(crate) fn take(&mut self, rate: u32, burst: u32, now: Instant) -> bool {
        let refill = now.duration_since(self.at).as_secs_f32() * rate as f32;
        self.tokens = (self.tokens + refill).min(burst as f32);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(3, start);
        let taken = (0..10).filter(|_| bucket.take(2, 3, start)).count();
        assert_eq!(taken, 3);
        let later = start + Duration::from_secs(1);
        let taken = (0..10).filter(|_| bucket.take(2, 3, later)).count();
        assert_eq!(taken, 2);
    }
}
