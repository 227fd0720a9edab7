//! How far the relay is with one topic, and what to do with what comes.
//!
//! Pure: says which events follow and when the history must be read. While that is read the topic
//! waits, and what comes for it meanwhile is kept up to a limit; what is beyond is read as well.

use std::sync::Arc;

use tidewire_protocol::{Event, Position};

use crate::cursor::{Cursor, Step};

/// Events that wait for one topic while its history is read, at most: what a busy topic says in
/// the time of one read. What is beyond is in the history as well.
const WAITING: usize = 1_024;

/// How far the relay is with one topic.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Up to here everything was fed; `None` until the topic is placed.
    cursor: Option<Cursor>,
    /// Something came that was not kept, so the history must be looked at.
    missed: bool,
    reading: bool,
    waiting: Vec<Arc<Event>>,
}

/// What is to be done about events that came.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// These follow.
    pub(crate) ready: Vec<Arc<Event>>,
    /// After them something is missing, which must be read; other events wait for that.
    pub(crate) missing: bool,
}

impl Progress {
    /// Begins at `at`; whether something came before that.
    pub(crate) fn place(&mut self, at: Position) -> bool {
        self.cursor = Some(Cursor::at(at));
        std::mem::take(&mut self.missed)
    }

    /// Everything up to here was fed.
    pub(crate) fn advance(&mut self, at: Position) {
        self.cursor = Some(Cursor::at(at));
    }

    /// Whether all events follow one another and nothing is missing before them.
    pub(crate) fn follow(&self, events: &[Arc<Event>]) -> bool {
        let Some(mut cursor) = self.cursor else { return false };
        !self.reading && events.iter().all(|event| cursor.step(event.position) == Step::Next)
    }

    /// Takes events as they come.
    pub(crate) fn arrive(&mut self, events: Vec<Arc<Event>>) -> Arrived {
        let Some(mut cursor) = self.cursor else {
            self.missed = true;
            return Arrived::default();
        };
        if self.reading {
            self.wait(events);
            return Arrived::default();
        }
        let mut ready = Vec::with_capacity(events.len());
        let mut events = events.into_iter();
        while let Some(event) = events.next() {
            match cursor.step(event.position) {
                Step::Next => ready.push(event),
                Step::Stale => {}
                // The event itself is read with what is missing before it.
                Step::Gap | Step::NewEpoch => {
                    self.wait(events);
                    return Arrived { ready, missing: true };
                }
            }
        }
        Arrived { ready, missing: false }
    }

    fn wait(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        let mut events = events.into_iter();
        let room = WAITING - self.waiting.len();
        self.waiting.extend(events.by_ref().take(room));
        self.missed |= events.next().is_some();
    }

    /// Asks for a look at the history; `None` where the topic is not placed, or where one is under
    /// way, after which there will be another.
    pub(crate) fn look(&mut self) -> Option<Position> {
        if self.reading {
            self.missed = true;
            return None;
        }
        self.begin_reading()
    }

    /// From where to read; until that is done nothing is ready.
    pub(crate) fn begin_reading(&mut self) -> Option<Position> {
        self.reading = self.cursor.is_some();
        self.cursor.map(|cursor| cursor.position())
    }

    /// The history has nothing more.
    pub(crate) fn end_reading(&mut self) -> Arrived {
        self.reading = false;
        let missed = std::mem::take(&mut self.missed);
        let waiting = std::mem::take(&mut self.waiting);
        let mut arrived = self.arrive(waiting);
        arrived.missing |= missed;
        arrived
    }

    /// What is missing cannot be had now, and what waits for it comes to nothing: both are read
    /// when the topic is looked at again.
    pub(crate) fn give_up(&mut self) {
        self.reading = false;
        self.missed = false;
        self.waiting = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::{Audience, Body, Epoch, Payload, Topic};

    use super::*;

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch(1), seq }
    }

    fn events(numbers: std::ops::Range<u64>) -> Vec<Arc<Event>> {
        let event = |seq| Event {
            topic: Topic::application("t").expect("a topic's name"),
            position: at(seq),
            at: 0,
            name: None,
            body: Body::Message(Payload::Text("x".into())),
            audience: Audience::Everyone,
        };
        numbers.map(|seq| Arc::new(event(seq))).collect()
    }

    fn placed() -> Progress {
        let mut progress = Progress::default();
        progress.place(at(0));
        progress
    }

    fn seqs(arrived: &Arrived) -> Vec<u64> {
        arrived.ready.iter().map(|event| event.position.seq).collect()
    }

    #[test]
    fn what_comes_before_the_topic_is_placed_is_looked_for_then() {
        let mut progress = Progress::default();
        assert!(progress.arrive(events(1..2)).ready.is_empty());
        assert!(progress.place(at(0)));
        assert!(!progress.place(at(0)), "it is said once");
    }

    #[test]
    fn events_wait_for_what_is_missing_before_them() {
        let mut progress = placed();
        let mut some = events(1..3);
        some.extend(events(5..8));
        let arrived = progress.arrive(some);
        assert_eq!((seqs(&arrived), arrived.missing), (vec![1, 2], true));
        progress.advance(at(2));
        assert_eq!(progress.begin_reading(), Some(at(2)));
        assert!(progress.arrive(events(8..10)).ready.is_empty());
        assert!(!progress.follow(&events(3..4)), "a topic that waits is not handed over");
        // What was read is fed.
        progress.advance(at(5));
        let arrived = progress.end_reading();
        assert_eq!((seqs(&arrived), arrived.missing), (vec![6, 7, 8, 9], false));
    }

    #[test]
    fn what_cannot_wait_is_read_afterwards() {
        let mut progress = placed();
        progress.begin_reading();
        let many = WAITING as u64 + 10;
        progress.arrive(events(1..many));
        assert_eq!(progress.waiting.len(), WAITING);
        let arrived = progress.end_reading();
        assert_eq!((arrived.ready.len(), arrived.missing), (WAITING, true));
    }

    #[test]
    fn whoever_asks_for_a_look_during_another_gets_one_more() {
        let mut progress = placed();
        assert!(progress.look().is_some());
        assert!(progress.look().is_none());
        assert!(progress.end_reading().missing);
    }

    #[test]
    fn a_topic_that_gave_up_keeps_nothing() {
        let mut progress = placed();
        progress.begin_reading();
        progress.arrive(events(5..8));
        progress.give_up();
        assert!(progress.waiting.is_empty());
        assert!(progress.arrive(events(8..9)).missing, "the next event has it read again");
    }
}
