//! Where a reader of one topic is, and what the next event means to it.

use tidewire_protocol::Position;

/// The last position seen of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(Position);

/// What an event at some position is to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It follows; the cursor has moved to it.
    Next,
    /// It was seen before.
    Stale,
    /// Some before it are missing; the cursor has not moved.
    Gap,
    /// It is of another run of numbers; the cursor has not moved.
    NewEpoch,
}

impl Cursor {
    /// A reader that has seen everything up to `position`.
    pub fn at(position: Position) -> Self {
        Self(position)
    }

    /// The last position seen.
    pub fn position(&self) -> Position {
        self.0
    }

    /// Tells what an event at `at` is, and moves to it when it follows.
    pub fn step(&mut self, at: Position) -> Step {
        if at.epoch != self.0.epoch {
            return Step::NewEpoch;
        }
        if at.seq <= self.0.seq {
            return Step::Stale;
        }
        if at.seq != self.0.seq + 1 {
            return Step::Gap;
        }
        self.0 = at;
        Step::Next
    }

    /// Moves to `position` without asking.
    pub fn jump(&mut self, position: Position) {
        self.0 = position;
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::Epoch;

    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq }
    }

    #[test]
    fn only_the_next_event_moves_the_cursor() {
        let mut cursor = Cursor::at(at(1, 5));
        assert_eq!(cursor.step(at(1, 5)), Step::Stale);
        assert_eq!(cursor.step(at(1, 7)), Step::Gap);
        assert_eq!(cursor.step(at(2, 6)), Step::NewEpoch);
        assert_eq!(cursor.position(), at(1, 5));
        assert_eq!(cursor.step(at(1, 6)), Step::Next);
        assert_eq!(cursor.position(), at(1, 6));
    }
}
