//! When to look again: pure.
//!
//! While changes come, the reader looks every few milliseconds and writers need not notify it.
//! When it was quiet for a while the reader takes the lock that writers try, looks once more, and
//! sleeps until a writer that finds the lock taken notifies it.

use std::time::Duration;

use tokio::time::Instant;

/// How long it must be quiet before the reader sleeps: longer than most pauses of busy writers.
const QUIET: Duration = Duration::from_millis(200);

/// Pause when it is quiet but the reader may not sleep: a transaction that wrote is open for
/// long, or prepared transactions are allowed, in which nobody can notify.
const DROWSY: Duration = Duration::from_millis(50);

/// What the reader does after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look again after this long.
    Look(Duration),
    /// Try to take the lock; if it is had, look again at once, else after this long.
    TryToSleep(Duration),
    /// Wait to be notified.
    Sleep,
    /// Let go of the lock, then look again after this long.
    Rise(Duration),
}

/// Awake or asleep, and since when it is quiet.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    may_sleep: bool,
    asleep: bool,
    quiet_since: Instant,
}

impl Pace {
    pub(super) fn new(interval: Duration, may_sleep: bool, now: Instant) -> Self {
        Self { interval, may_sleep, asleep: false, quiet_since: now }
    }

    /// What to do after a poll that brought something or not.
    pub(super) fn after_poll(&mut self, brought: bool, now: Instant) -> Next {
        if brought {
            self.quiet_since = now;
            return match self.asleep {
                true => Next::Rise(self.interval),
                false => Next::Look(self.interval),
            };
        }
        match self {
            Self { asleep: true, .. } => Next::Sleep,
            _ if now < self.quiet_since + QUIET => Next::Look(self.interval),
            Self { may_sleep: true, .. } => Next::TryToSleep(DROWSY.max(self.interval)),
            _ => Next::Look(DROWSY.max(self.interval)),
        }
    }

    /// The lock was taken.
    pub(super) fn sleeps(&mut self) {
        self.asleep = true;
    }

    /// A writer notified.
    pub(super) fn notified(&mut self, now: Instant) -> Next {
        self.quiet_since = now;
        match self.asleep {
            true => Next::Rise(Duration::ZERO),
            false => Next::Look(Duration::ZERO),
        }
    }

    /// The lock was let go of.
    pub(super) fn rose(&mut self) {
        self.asleep = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn the_reader_sleeps_after_a_quiet_while_and_rises_when_notified() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, true, start);
        assert_eq!(pace.after_poll(true, start), Next::Look(INTERVAL));
        assert_eq!(pace.after_poll(false, start), Next::Look(INTERVAL));
        let later = start + QUIET;
        assert_eq!(pace.after_poll(false, later), Next::TryToSleep(DROWSY));
        pace.sleeps();
        assert_eq!(pace.after_poll(false, later), Next::Sleep);
        assert_eq!(pace.notified(later), Next::Rise(Duration::ZERO));
        pace.rose();
        assert_eq!(pace.after_poll(false, later), Next::Look(INTERVAL));
    }

    #[test]
    fn what_is_found_after_taking_the_lock_wakes_the_reader() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, true, start);
        assert_eq!(pace.after_poll(false, start + QUIET), Next::TryToSleep(DROWSY));
        pace.sleeps();
        assert_eq!(pace.after_poll(true, start + QUIET), Next::Rise(INTERVAL));
    }

    #[test]
    fn a_reader_that_may_not_sleep_looks_less_often() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL, false, start);
        assert_eq!(pace.after_poll(false, start + QUIET), Next::Look(DROWSY));
    }
}
