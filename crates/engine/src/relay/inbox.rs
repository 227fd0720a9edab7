//! What waits for a relay worker: bounded, because whatever does not fit is found again in the
//! history.

use std::collections::HashSet;
use std::sync::Arc;

use tidewire_protocol::{Event, Topic};

use super::reading::Found;
use crate::error::Error;
use crate::hub::Entry;

/// Events waiting for one worker at most; what comes beyond is dropped and found again in the
/// history. About a tenth of a second of a very busy node.
const EVENTS: usize = 16_384;

/// Bytes of their content: as many events of 4 KiB. Large ones are kept by a history in memory
/// anyway; with any other this is what they may take beside it.
const BYTES: usize = 64 << 20;

/// What waits for one worker.
#[derive(Default)]
pub(super) struct Inbox {
    events: Vec<Arc<Event>>,
    /// Of the events' content.
    bytes: usize,
    /// Topics to compare with the history's head.
    pub(super) checks: HashSet<Topic>,
    /// What was read for topics that wait for it.
    pub(super) found: Vec<(Arc<Entry>, Result<Found, Error>)>,
    /// Topics whose history could not be read, to be tried again at the next tick.
    pub(super) failed: HashSet<Topic>,
}

/// What a worker can do now.
pub(super) struct Due {
    pub(super) events: Vec<Arc<Event>>,
    pub(super) checks: HashSet<Topic>,
    pub(super) found: Vec<(Arc<Entry>, Result<Found, Error>)>,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.checks.is_empty() && self.found.is_empty()
    }

    /// Keeps what fits, in order; the topics of the rest are checked against the history. Gives how
    /// many were dropped.
    pub(super) fn put(&mut self, events: Vec<Arc<Event>>) -> usize {
        let mut dropped = 0;
        for event in events {
            let bytes = event.content_bytes();
            if dropped == 0 && self.has_room_for(bytes) {
                self.bytes += bytes;
                self.events.push(event);
                continue;
            }
            dropped += 1;
            if !self.checks.contains(&event.topic) {
                self.checks.insert(event.topic.clone());
            }
        }
        dropped
    }

    /// Whatever its size, one event has room alone.
    fn has_room_for(&self, bytes: usize) -> bool {
        let fits = self.events.len() < EVENTS && self.bytes.saturating_add(bytes) <= BYTES;
        fits || self.events.is_empty()
    }

    /// All events.
    pub(super) fn take_events(&mut self) -> Vec<Arc<Event>> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// Events that were taken and not handed over, before all that came since.
    pub(super) fn put_back(&mut self, events: Vec<Arc<Event>>) {
        self.bytes += events.iter().map(|event| event.content_bytes()).sum::<usize>();
        self.events.splice(0..0, events);
    }

    /// Everything.
    pub(super) fn take(&mut self) -> Due {
        Due {
            events: self.take_events(),
            checks: std::mem::take(&mut self.checks),
            found: std::mem::take(&mut self.found),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::{Draft, Epoch, Payload, Position};

    use super::*;

    fn event(seq: u64, bytes: usize) -> Arc<Event> {
        let topic = Topic::application("a").unwrap();
        let draft = Draft::message(topic, Payload::Text("x".repeat(bytes).into()));
        Arc::new(Event::new(draft, Position { epoch: Epoch(1), seq }, 0))
    }

    #[test]
    fn what_does_not_fit_is_dropped_with_all_behind_it_and_its_topic_checked() {
        let mut inbox = Inbox::default();
        let events = (0..EVENTS as u64 + 2).map(|seq| event(seq, 1)).collect();
        assert_eq!(inbox.put(events), 2);
        assert_eq!(inbox.take().checks.len(), 1);

        let half = BYTES / 2 + 1;
        assert_eq!(inbox.put(vec![event(1, half), event(2, half), event(3, 1)]), 2);
        let Due { events, checks, .. } = inbox.take();
        assert_eq!((events.len(), checks.len()), (1, 1));
    }

    #[test]
    fn one_event_has_room_whatever_its_size() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.put(vec![event(1, BYTES + 1)]), 0);
        assert_eq!(inbox.put(vec![event(2, 1)]), 1);
        let events = inbox.take_events();
        inbox.put_back(events);
        assert_eq!(inbox.put(vec![event(3, 1)]), 1);
        assert_eq!(inbox.take().events.len(), 1);
    }
}
