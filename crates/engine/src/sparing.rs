//! Saying once in a while what happens again and again, and how often it was not said.
//!
//! A disk that is full fails every write: the first failure is worth a line at once, each of the
//! thousands after it is not. Where a line is about to be logged, [`Sparing::due`] says whether.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time between two lines about the same thing: soon enough for whoever watches the log while they
/// mend something, and six lines a minute fill no disk.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Whether a line is due.
///
/// ```
/// use tidewire::sparing::Sparing;
///
/// static FAILURES: Sparing = Sparing::new();
///
/// for _ in 0..1_000 {
///     if let Some(unsaid) = FAILURES.due() {
///         println!("it failed, and {unsaid} times since it was last said");
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Sparing(Mutex<State>);

#[derive(Debug)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl State {
    const fn new() -> Self {
        Self { said: None, unsaid: 0 }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl Sparing {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self(parking_lot::const_mutex(State::new()))
    }

    /// It happened: the count of times it was not said if it is to be said now, which is so at first
    /// and then not before [`PAUSE`] is over; `None` otherwise.
    pub fn due(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.said.is_some_and(|said| said.elapsed() < PAUSE) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_said_at_once_and_later_ones_with_the_count_of_the_others() {
        let sparing = Sparing::new();
        assert_eq!(sparing.due(), Some(0));
        for _ in 0..7 {
            assert_eq!(sparing.due(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(sparing.due(), Some(7));
        assert_eq!(sparing.due(), None);
        tokio::time::advance(3 * PAUSE).await;
        assert_eq!(sparing.due(), Some(1));
    }
}
