//! Pauses between attempts to connect: short at first, longer later, never all servers at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::steadiness::STEADY;

/// The first pause; a restarted server is back within some of these.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest pause, and so how late a server that came back is noticed.
const LONGEST: Duration = Duration::from_secs(5);

/// How long to wait next.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// A connection was open since then. If it held, the next pause is short again; if it broke at
    /// once, pauses go on growing, because the next may break for the same reason.
    pub(crate) fn was_open(&mut self, since: Instant) {
        if since.elapsed() >= STEADY {
            self.0 = SHORTEST;
        }
    }

    /// Waits, and makes the next pause twice as long.
    pub(crate) async fn pause(&mut self) {
        sleep(self.next(getrandom::u32().unwrap_or(u32::MAX))).await;
    }

    /// Between half of the pause and the whole.
    fn next(&mut self, random: u32) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        let half = pause / 2;
        (half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_from_a_tenth_of_a_second_to_five() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(u32::MAX), SHORTEST);
        for _ in 0..20 {
            let pause = backoff.next(0);
            assert!((SHORTEST..=LONGEST).contains(&pause));
        }
        assert_eq!(backoff.next(u32::MAX), LONGEST);
        assert_eq!(backoff.next(0), LONGEST / 2);
        let since = Instant::now();
        backoff.was_open(since);
        assert_eq!(backoff.next(0), LONGEST / 2, "one that broke at once is no success");
        tokio::time::advance(STEADY).await;
        backoff.was_open(since);
        assert_eq!(backoff.next(0), SHORTEST);
    }
}
