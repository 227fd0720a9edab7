//! When to let bytes gather before the next read; pure.
//!
//! PostgreSQL sends a row at a time, and being woken for each costs more than all that is done with
//! it. While rows pour in, because of a backlog or a large transaction, a rest of a fraction of a
//! millisecond lets a hundred of them gather. A stream that trickles is never made to wait.

use std::time::Duration;

use tokio::time::Instant;

/// Rows pour in while at least so many bytes come in each [`WINDOW`]: 16 MiB a second, which is
/// some 100,000 small rows.
const TORRENT: usize = 32 * 1024;

/// The time over which bytes are counted.
const WINDOW: Duration = Duration::from_millis(2);

/// How long bytes gather. At 350,000 rows a second 140 come in the meantime, and a socket of the
/// Unix kind holds 280: were it full, the server would have to wait for us.
pub(super) const REST: Duration = Duration::from_micros(400);

/// Bytes of one read from which on there may be more: none gather by waiting.
const PLENTY: usize = 60 * 1024;

/// How fast bytes come.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    bytes: usize,
    pours: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, pours: false }
    }

    /// Counts what was read; gives whether to rest before the next read.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> bool {
        self.bytes += bytes;
        let in_time = now.duration_since(self.since) < WINDOW;
        let is_torrent = self.bytes >= TORRENT;
        if is_torrent || !in_time {
            self.pours = is_torrent && in_time;
            (self.since, self.bytes) = (now, 0);
        }
        self.pours && bytes < PLENTY
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: usize = 170;

    /// Reads rows that come at such a distance, for so long; gives how many reads there were.
    fn reads(distance: Duration, lasting: Duration) -> (usize, usize) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut taken, mut reads, mut rests) = (start, start, 0, 0);
        while now < start + lasting {
            let rows = now.duration_since(taken).as_nanos() / distance.as_nanos();
            taken += distance * u32::try_from(rows).unwrap();
            reads += 1;
            if pace.read(ROW * usize::try_from(rows).unwrap(), now) {
                rests += 1;
                now += REST;
            } else {
                now += distance;
            }
        }
        (reads, rests)
    }

    #[tokio::test]
    async fn while_rows_pour_in_each_read_takes_many() {
        let second = Duration::from_secs(1);
        for micros in [3, 5] {
            let (reads, rests) = reads(Duration::from_micros(micros), second);
            assert!(reads < 4_000 && rests > 2_000, "{reads} reads, {rests} rests");
        }
    }

    #[tokio::test]
    async fn a_stream_that_trickles_is_never_made_to_wait() {
        for micros in [20, 100, 500] {
            let (_, rests) = reads(Duration::from_micros(micros), Duration::from_secs(1));
            assert_eq!(rests, 0, "a row each {micros} µs");
        }
    }

    #[tokio::test]
    async fn a_large_read_after_silence_is_followed_by_the_next_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.read(50_000, start + Duration::from_secs(60)));
        assert!(!pace.read(ROW, start + Duration::from_secs(61)));
    }

    proptest! {
        /// Whatever came before, less than a torrent in a window ends the resting.
        #[test]
        fn resting_ends_with_the_torrent(reads in proptest::collection::vec((0_usize..100_000, 0_u64..3_000), 0..50)) {
            let start = tokio::time::Instant::now();
            let (mut pace, mut now) = (Pace::new(start), start);
            for (bytes, micros) in reads {
                now += Duration::from_micros(micros);
                pace.read(bytes, now);
            }
            pace.read(0, now + WINDOW);
            prop_assert!(!pace.read(TORRENT - 1, now + WINDOW));
        }
    }
}
