//! Whether a connection counts as working, and which of its errors are worth a line.
//!
//! A connection that breaks as soon as it is open, for something that comes again each time, is not
//! working although it is open again and again. So after one that broke soon the next counts only
//! once it has held for a while, and the same error is logged once until then.

use std::time::Duration;

use tokio::time::Instant;

/// How long a connection holds before it counts again after one that broke sooner than that: as
/// long as the longest pause between two attempts.
pub(crate) const STEADY: Duration = Duration::from_secs(5);

/// What is known of one connection after the other.
#[derive(Debug, Default)]
pub(crate) struct Steadiness {
    open_since: Option<Instant>,
    /// The one before broke soon.
    is_doubted: bool,
    /// The error that was logged since reading was last steady.
    logged: Option<String>,
}

impl Steadiness {
    /// A connection is open.
    pub(crate) fn opened(&mut self) {
        self.open_since = Some(Instant::now());
    }

    /// It is closed, or was not there.
    pub(crate) fn closed(&mut self) {
        self.settle();
        if self.open_since.take().is_some_and(|since| since.elapsed() < STEADY) {
            self.is_doubted = true;
        }
    }

    /// Whether it works.
    pub(crate) fn is_steady(&mut self) -> bool {
        self.settle();
        self.open_since.is_some() && !self.is_doubted
    }

    /// Whether an error is another than the one that was logged since it last worked.
    pub(crate) fn is_news(&mut self, error: &str) -> bool {
        self.settle();
        let is_news = self.logged.as_deref() != Some(error);
        if is_news {
            self.logged = Some(error.to_owned());
        }
        is_news
    }

    /// One that held long enough is beyond doubt, and what was logged before is past.
    fn settle(&mut self) {
        if self.open_since.is_some_and(|since| since.elapsed() >= STEADY) {
            (self.is_doubted, self.logged) = (false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_connection_that_broke_soon_the_next_counts_once_it_held() {
        let mut steadiness = Steadiness::default();
        assert!(!steadiness.is_steady());
        steadiness.opened();
        assert!(steadiness.is_steady(), "the first counts at once");
        for _ in 0..3 {
            steadiness.closed();
            steadiness.opened();
            assert!(!steadiness.is_steady());
            tokio::time::advance(STEADY / 2).await;
        }
        tokio::time::advance(STEADY / 2).await;
        assert!(steadiness.is_steady());
        steadiness.closed();
        assert!(!steadiness.is_steady());
        steadiness.opened();
        assert!(steadiness.is_steady(), "the one before had held");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_error_is_news_once_until_a_connection_has_held() {
        let mut steadiness = Steadiness::default();
        for expected in [true, false, false] {
            steadiness.opened();
            steadiness.closed();
            assert_eq!(steadiness.is_news("gone"), expected);
        }
        assert!(steadiness.is_news("another"));
        steadiness.opened();
        tokio::time::advance(STEADY).await;
        steadiness.closed();
        assert!(steadiness.is_news("another"));
    }
}
