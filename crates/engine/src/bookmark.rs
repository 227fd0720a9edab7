//! Telling listeners how far they have everything, when nothing was for them for a while.
//!
//! A listener whose filter rarely matches would come back with a position that the history has
//! long let go of. So once a second whoever may be silent is looked at, and whom too much has
//! passed by is told where its topic is: under the lock of its lane, so that the place is one up
//! to which everything for it was handed over, and in its mailbox, so that it comes after all that.
//! Who catches up is told by its session in the same measure. The limits follow from what the
//! history keeps; no connection has a timer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_protocol::wire::event_stream_place;
use tidewire_protocol::{Event, Position, Topic, TopicKind, Wire};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Batch, Form};
use crate::history::{HistoryLimits, cost, overhead};
use crate::hub::Entry;
use crate::mailbox::Outgoing;
use crate::node::Inner;

/// Which part of what a history keeps may pass a listener by without a word.
///
/// A listener that catches up and goes live may have twice that behind it, which leaves half of
/// the history for the time that it is away.
const PART: usize = 4;

/// Seconds after which a listener is told its place, however little has passed it by.
const SILENCE: u64 = 30;

/// How often listeners are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Listeners of one lane that are told at each tick, if so many are due.
const EACH_TICK: usize = 500;

/// Ticks within which everyone is told, however many are due. Where a topic turns its history over
/// faster than that, a place would soon be lost anyway.
const TURN: usize = 10;

/// Listeners told under one lock: some fraction of a millisecond of writes.
const AT_ONCE: usize = 64;

/// How much may pass a listener by without a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    events: u64,
    bytes: u64,
    /// Ticks with something that passed by.
    ticks: u32,
}

/// What was said and was not for a listener, or was said in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    events: u64,
    bytes: u64,
}

/// How long a listener is silent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// What had been said when it was last told something.
    told: Passed,
    ticks: u32,
}

impl From<HistoryLimits> for Pace {
    fn from(limits: HistoryLimits) -> Self {
        // Nobody goes on in a history that keeps nothing.
        let part = |of: usize| if of == 0 { u64::MAX } else { of.div_ceil(PART) as u64 };
        let seconds = SILENCE.min(limits.age.as_secs() / 2).max(1);
        Self {
            events: part(limits.events),
            bytes: part(limits.bytes),
            ticks: (seconds / TICK.as_secs()) as u32,
        }
    }
}

impl Passed {
    pub(crate) fn add(&mut self, event: &Event) {
        self.events += 1;
        self.bytes += cost(event) as u64;
    }

    /// The same for all of a batch.
    pub(crate) fn add_all(&mut self, batch: &Batch) {
        let count = batch.events().len();
        self.events += count as u64;
        self.bytes += (batch.bytes() + count * overhead(&batch.events()[0].topic)) as u64;
    }

    /// Whether a listener that all of this passed by should be told its place at once.
    pub(crate) fn is_much(self, pace: Pace) -> bool {
        self.events >= pace.events || self.bytes >= pace.bytes
    }

    fn since(self, earlier: Self) -> Self {
        Self { events: self.events - earlier.events, bytes: self.bytes - earlier.bytes }
    }
}

impl Silence {
    /// The listener was told something just now, when so much has been said.
    pub(crate) fn broken(said: Passed) -> Self {
        Self { told: said, ticks: 0 }
    }

    /// One tick more; whether the listener should be told its place, and how much has passed by.
    pub(crate) fn goes_on(&mut self, said: Passed, pace: Pace) -> Option<u64> {
        let passed = said.since(self.told);
        self.ticks = if passed.events == 0 { 0 } else { self.ticks.saturating_add(1) };
        let is_due = self.ticks >= pace.ticks || passed.is_much(pace);
        is_due.then_some(passed.events)
    }
}

/// Whose turn it is, of those who are due: those whom most has passed by.
///
/// A very busy topic with very many listeners would otherwise be busy with telling places.
pub(crate) fn in_turn<T: Ord>(mut due: Vec<(u64, T)>) -> Vec<T> {
    let count = EACH_TICK.max(due.len().div_ceil(TURN));
    if count < due.len() {
        due.select_nth_unstable_by(count, |one, other| other.cmp(one));
        due.truncate(count);
    }
    due.into_iter().map(|(_, listener)| listener).collect()
}

impl Form {
    /// The news of a place; `None` where clients know of no places.
    pub(crate) fn bookmark(&self, topic: &Topic, position: Position) -> Option<Outgoing> {
        // A client of presence is told anew who is there, and has no place there.
        if topic.kind() == TopicKind::Presence {
            return None;
        }
        let bytes = match self.shape.wire {
            Wire::WebSocket => {
                let tag = self.shape.tag.as_ref();
                let frame = self.shape.dialect.bookmark(topic, position, tag)?;
                Wire::WebSocket.seal(&frame, None)
            }
            // The transport writes the places of all topics before it.
            Wire::EventStream if self.composite => Bytes::from_static(b"\n"),
            Wire::EventStream => event_stream_place(&position.to_string()),
            // A poll asks for it when it ends.
            Wire::Lines => return None,
        };
        let mark = self.marked.then(|| Box::new((topic.clone(), position)));
        Some(Outgoing { bytes, mark })
    }
}

/// Topics with listeners who may be silent; each is left out again when nobody listens.
#[derive(Default)]
pub(crate) struct Watched(Mutex<HashMap<Topic, Arc<Entry>>>);

impl Watched {
    /// Looks at the topic from now on; to be called after the listener has joined.
    pub(crate) fn watch(&self, entry: &Arc<Entry>) {
        let mut topics = self.0.lock();
        if topics.get(&entry.topic).is_none_or(|held| !Arc::ptr_eq(held, entry)) {
            topics.insert(entry.topic.clone(), Arc::clone(entry));
        }
    }

    fn list(&self) -> Vec<Arc<Entry>> {
        self.0.lock().values().cloned().collect()
    }

    /// Whoever joins after it was found empty watches it again.
    fn forget_deserted(&self) {
        self.0.lock().retain(|_, entry| !entry.lanes.is_deserted());
    }
}

/// Tells places until `stop` is cancelled.
pub(crate) async fn run(node: Arc<Inner>, stop: CancellationToken) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            interval.tick().await;
            for entry in node.watched.list() {
                look_at(&node, &entry).await;
            }
            node.watched.forget_deserted();
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn look_at(node: &Inner, entry: &Entry) {
    let pace = Pace::from(node.history_limits(&entry.topic));
    for lane in entry.lanes.all() {
        let silent = lane.change(|live| live.silent(pace));
        for some in silent.chunks(AT_ONCE) {
            let limit = node.limits.load().mailbox_bytes;
            let told = lane.change(|live| live.tell_place(some, &entry.topic, limit));
            node.metrics.bookmarks.inc_by(told);
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::{Draft, Epoch, Payload};

    use super::*;

    fn event(bytes: usize) -> Event {
        let topic = Topic::application("t").expect("a topic's name");
        let payload = Payload::Text("x".repeat(bytes).into());
        let position = Position { epoch: Epoch(1), seq: 1 };
        Event::new(Draft::message(topic, payload), position, 0)
    }

    fn limits() -> HistoryLimits {
        HistoryLimits { events: 1_000, bytes: 1 << 20, age: Duration::from_secs(3_600) }
    }

    /// Ticks until a listener is told, when so many events pass it by in each.
    fn ticks_until_told(pace: Pace, events: usize, bytes: usize) -> u32 {
        let (mut said, mut silence) = (Passed::default(), Silence::default());
        for tick in 1..1_000 {
            (0..events).for_each(|_| said.add(&event(bytes)));
            if silence.goes_on(said, pace).is_some() {
                return tick;
            }
        }
        panic!("it should be told at some time");
    }

    #[test]
    fn a_place_is_told_after_a_quarter_of_the_history_or_half_a_minute() {
        let pace = Pace::from(limits());
        assert_eq!(ticks_until_told(pace, 1, 10), 30);
        assert_eq!(ticks_until_told(pace, 25, 10), 10);
        assert_eq!(ticks_until_told(pace, 1_000, 10), 1);
        // Large events turn the history over before there are many of them.
        assert_eq!(ticks_until_told(pace, 1, 32 << 10), 8);
        let short = HistoryLimits { age: Duration::from_secs(20), ..limits() };
        assert_eq!(ticks_until_told(Pace::from(short), 1, 10), 10);
        let nothing = HistoryLimits { events: 0, bytes: 0, ..limits() };
        assert_eq!(ticks_until_told(Pace::from(nothing), 1_000, 10), 30);
    }

    #[test]
    fn nobody_is_told_a_place_that_has_not_moved() {
        let (mut said, pace) = (Passed::default(), Pace::from(limits()));
        said.add(&event(1));
        let mut silence = Silence::broken(said);
        assert!((0..1_000).all(|_| silence.goes_on(said, pace).is_none()));
        said.add(&event(1));
        assert!((0..29).all(|_| silence.goes_on(said, pace).is_none()));
        assert_eq!(silence.goes_on(said, pace), Some(1));
    }

    #[test]
    fn very_many_are_told_in_turn_and_nobody_waits_for_long() {
        const LISTENERS: usize = 20_000;
        let (mut said, pace) = (Passed::default(), Pace::from(limits()));
        let mut silences = vec![Silence::default(); LISTENERS];
        let mut times_told = vec![0; LISTENERS];
        for tick in 1..=3 * TURN {
            (0..1_000).for_each(|_| said.add(&event(1)));
            let due = silences.iter_mut().enumerate();
            let due = due.filter_map(|(at, silence)| Some((silence.goes_on(said, pace)?, at)));
            let told = in_turn(due.collect());
            assert!((LISTENERS / TURN).abs_diff(told.len()) <= 1, "{} at tick {tick}", told.len());
            for at in told {
                silences[at] = Silence::broken(said);
                times_told[at] += 1;
            }
        }
        let [least, most] = [times_told.iter().min(), times_told.iter().max()];
        assert!(least >= Some(&2) && most <= Some(&4), "{least:?} to {most:?}");
    }
}
