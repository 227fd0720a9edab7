//! A place in one topic.
//!
//! A sequence number alone does not say whether the numbers began again, for example after a
//! restart of a server that keeps history in memory. So a position is an [`Epoch`] and a sequence
//! number, and a client that comes back with a position of another epoch is told *gap*.
//!
//! Clients treat the printed form as opaque; it is the same on every transport.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::digits::Digits;

/// Which run of numbers a sequence number belongs to; random, so that two runs never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A place in one topic: after the event that carries it.
///
/// Prints as `epoch-seq`, the epoch in hexadecimal.
///
/// ```
/// use tidewire_protocol::{Epoch, Position};
///
/// let position = Position { epoch: Epoch(0xbeef), seq: 17 };
/// assert_eq!(position.to_string(), "beef-17");
/// assert_eq!("beef-17".parse(), Ok(position));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Which run of numbers `seq` belongs to.
    pub epoch: Epoch,
    /// The first event of a topic has 1; 0 is the place before it.
    pub seq: u64,
}

/// The text is not a position.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a position; positions are the strings that events carry, such as \"4f1c-17\"")]
pub struct PositionError;

impl Position {
    /// A place in no topic, whatever its run of numbers: going on from it is answered with a gap.
    ///
    /// Stands for what a client shows as a place and is none. Epochs are random, so that none is 0.
    pub const ELSEWHERE: Self = Self { epoch: Epoch(0), seq: 0 };

    /// The place after the next event.
    #[must_use]
    pub fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }

    /// The place before this event.
    #[must_use]
    pub fn before(self) -> Self {
        Self { seq: self.seq.saturating_sub(1), ..self }
    }

    /// What it prints as.
    pub(crate) fn text(self) -> Digits {
        Digits::hyphenated(self.epoch.0, self.seq)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    /// Accepts only what [`fmt::Display`] prints, so equal places have equal texts.
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, seq) = text.split_once('-').ok_or(PositionError)?;
        let position = Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?),
            seq: seq.parse().map_err(|_| PositionError)?,
        };
        if *position.text() == *text { Ok(position) } else { Err(PositionError) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_place(epoch: u64, seq: u64) {
            let position = Position { epoch: Epoch(epoch), seq };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".*") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }

    #[test]
    fn other_spellings_of_a_position_are_refused() {
        for text in ["", "-", "1", "1-", "-1", "01-1", "1-01", "A-1", "+1-1", "1-+1", "1-1-1"] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
