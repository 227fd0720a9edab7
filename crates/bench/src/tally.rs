//! The books: what was said, what arrived, when, and in which order.
//!
//! Every subscriber's events of one lane must come with numbers that count up by one. Over several
//! lanes the order is the server's choice, but it must be the same for all subscribers of a topic:
//! a running hash of what each has seen shows whether it was.

use std::collections::VecDeque;

use crate::latency::Times;
use crate::stamp::Stamp;

/// The books of one run.
pub(crate) struct Tally {
    lanes: usize,
    /// What each subscriber has seen, a row of lanes each: the last number, 0 for none yet.
    seen: Vec<u32>,
    subscribers: Vec<Seen>,
    /// Subscribers of each topic that are waited for.
    listeners: Vec<u32>,
    flights: Vec<Flights>,
    /// Whether a publication is over only when every listener has it.
    pub(crate) until_delivered: bool,
    pub(crate) count: Count,
    /// From sending to arriving.
    pub(crate) latency: Times,
    /// From sending to the server's answer.
    pub(crate) answer: Times,
    /// From the answer to arriving, nothing for what arrived first; of one topic only.
    pub(crate) after_answer: Times,
    /// What was refused first, for the report.
    pub(crate) first_refusal: Option<String>,
}

/// What happened so far; the difference of two tells what happened between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) published: u64,
    pub(crate) answered: u64,
    /// Publications that were refused.
    pub(crate) refused: u64,
    pub(crate) delivered: u64,
    /// Deliveries that should have been: one for each listener and publication not refused.
    pub(crate) expected: u64,
    pub(crate) out_of_order: u64,
    pub(crate) duplicates: u64,
    /// Arrived at a subscriber of another topic.
    pub(crate) misdelivered: u64,
    /// Gaps told to subscribers.
    pub(crate) gaps: u64,
    /// Messages that refuse something, to subscribers.
    pub(crate) complaints: u64,
    /// Connections that ended although nobody wanted it.
    pub(crate) disconnects: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    topic: u32,
    events: u32,
    history: u64,
}

#[derive(Debug, Default)]
struct Flights {
    open: VecDeque<Flight>,
    /// How many of them, from the front, are answered.
    answered: usize,
    /// The newest answers: to which number, and when.
    answers: VecDeque<(u32, u64)>,
}

/// Answers that are remembered for each lane: what arrives later than so many is not measured.
const ANSWERS: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Flight {
    topic: u32,
    number: u32,
    sent: u64,
    /// Listeners that do not have it yet.
    missing: u32,
}

impl Tally {
    /// Empty books for so many lanes and topics.
    pub(crate) fn new(lanes: usize, topics: usize) -> Self {
        Self {
            lanes,
            seen: Vec::new(),
            subscribers: Vec::new(),
            listeners: vec![0; topics],
            flights: (0..lanes).map(|_| Flights::default()).collect(),
            until_delivered: false,
            count: Count::default(),
            latency: Times::new(),
            answer: Times::new(),
            after_answer: Times::new(),
            first_refusal: None,
        }
    }

    /// Opens a page for one more subscriber, numbered as they come.
    pub(crate) fn add_subscriber(&mut self, topic: u32) {
        self.subscribers.push(Seen { topic, ..Seen::default() });
        self.seen.resize(self.subscribers.len() * self.lanes, 0);
    }

    /// From now on publications on the topic are to reach one more, or one fewer.
    pub(crate) fn expect(&mut self, topic: u32, is_listening: bool) {
        let listeners = &mut self.listeners[topic as usize];
        *listeners = if is_listening { *listeners + 1 } else { listeners.saturating_sub(1) };
    }

    /// Something was handed to a lane's socket, to be answered or not.
    pub(crate) fn published(&mut self, stamp: Stamp, wants_answer: bool) {
        self.count.published += 1;
        let listeners = self.listeners[stamp.topic as usize];
        self.count.expected += u64::from(listeners);
        let missing = if self.until_delivered { listeners } else { 0 };
        let Stamp { topic, number, sent, .. } = stamp;
        let flight = Flight { topic, number, sent, missing };
        let flights = &mut self.flights[stamp.lane as usize];
        flights.open.push_back(flight);
        if !wants_answer {
            flights.answered += 1;
            flights.let_go();
        }
    }

    /// The server answered a lane's first unanswered publication.
    pub(crate) fn answered(&mut self, lane: usize, now: u64) {
        self.count.answered += 1;
        let flights = &mut self.flights[lane];
        if let Some(flight) = flights.open.get(flights.answered) {
            self.answer.record(now.saturating_sub(flight.sent));
            let number = flight.number;
            flights.note_answer(number, now);
            flights.answered += 1;
        }
        flights.let_go();
    }

    /// The server refused a lane's first unanswered publication.
    pub(crate) fn refused(&mut self, lane: usize, why: &str) {
        self.count.refused += 1;
        self.first_refusal.get_or_insert_with(|| why.to_owned());
        let flights = &mut self.flights[lane];
        if let Some(flight) = flights.open.get_mut(flights.answered) {
            flight.missing = 0;
            flights.answered += 1;
            let listeners = self.listeners[flight.topic as usize];
            self.count.expected -= u64::from(listeners);
        }
        flights.let_go();
    }

    /// A stamp arrived at a subscriber.
    pub(crate) fn delivered(&mut self, subscriber: usize, stamp: Stamp, now: u64) {
        let lane = stamp.lane as usize;
        let seen = &mut self.subscribers[subscriber];
        if stamp.topic != seen.topic || lane >= self.lanes {
            self.count.misdelivered += 1;
            return;
        }
        let last = &mut self.seen[subscriber * self.lanes + lane];
        if stamp.number == *last {
            self.count.duplicates += 1;
            return;
        }
        if stamp.number < *last {
            // Late, or a repeat of something older: then more will have come than was expected.
            self.count.out_of_order += 1;
        }
        *last = stamp.number.max(*last);
        seen.events += 1;
        seen.history = (seen.history ^ (u64::from(stamp.lane) << 32 | u64::from(stamp.number)))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
        self.count.delivered += 1;
        self.latency.record(now.saturating_sub(stamp.sent));
        if let Some(time) = self.flights[lane].since_answer(stamp.number, now) {
            self.after_answer.record(time);
        }
        if self.until_delivered {
            self.flights[lane].arrived(stamp.number);
        }
    }

    /// The last number of a lane that a subscriber has seen, 0 for none yet.
    pub(crate) fn last(&self, subscriber: usize, lane: usize) -> u32 {
        self.seen[subscriber * self.lanes + lane]
    }

    /// Publications of a lane that are not over.
    pub(crate) fn in_flight(&self, lane: usize) -> usize {
        self.flights[lane].open.len()
    }

    /// Publications of a lane that are not answered.
    pub(crate) fn unanswered(&self, lane: usize) -> usize {
        let flights = &self.flights[lane];
        flights.open.len() - flights.answered
    }

    /// Whether every publication was answered and everything expected has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.count.delivered >= self.count.expected
            && (0..self.lanes).all(|lane| self.unanswered(lane) == 0)
    }

    /// The moment of the oldest publication that is not over.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.flights.iter().filter_map(|flights| Some(flights.open.front()?.sent)).min()
    }

    /// Gives up on everything that is not over, so that the next may be sent.
    pub(crate) fn give_up(&mut self) {
        for flights in &mut self.flights {
            for flight in &mut flights.open {
                flight.missing = 0;
            }
            flights.let_go();
        }
    }

    /// Forgets what subscribers saw: from here on everybody must see the same.
    pub(crate) fn begin_agreement(&mut self) {
        for seen in &mut self.subscribers {
            seen.events = 0;
            seen.history = 0;
        }
    }

    /// Subscribers that saw as many events of their topic as another and in another order.
    pub(crate) fn disagreeing(&self) -> u64 {
        let mut rows: Vec<_> = self.subscribers.iter().collect();
        rows.sort_unstable_by_key(|seen| (seen.topic, seen.events));
        let alike = |a: &&Seen, b: &&Seen| (a.topic, a.events) == (b.topic, b.events);
        let others =
            |rows: &[&Seen]| rows.iter().filter(|row| row.history != rows[0].history).count();
        rows.chunk_by(alike).map(|rows| others(rows) as u64).sum()
    }
}

impl Flights {
    fn note_answer(&mut self, number: u32, now: u64) {
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back((number, now));
    }

    /// The time since a number was answered; none where it was not yet, `None` where it is too long
    /// ago.
    fn since_answer(&self, number: u32, now: u64) -> Option<u64> {
        let Some((newest, _)) = self.answers.back() else { return Some(0) };
        let Some(before) = newest.checked_sub(number) else { return Some(0) };
        let at = self.answers.len().checked_sub(before as usize + 1)?;
        let (_, answered) = self.answers.get(at).filter(|(answered, _)| *answered == number)?;
        Some(now.saturating_sub(*answered))
    }

    fn arrived(&mut self, number: u32) {
        let Some(first) = self.open.front() else { return };
        let Some(at) = number.checked_sub(first.number) else { return };
        if let Some(flight) = self.open.get_mut(at as usize) {
            flight.missing = flight.missing.saturating_sub(1);
        }
        self.let_go();
    }

    /// Lets go of those at the front that are over.
    fn let_go(&mut self) {
        while self.answered > 0 && self.open.front().is_some_and(|flight| flight.missing == 0) {
            self.open.pop_front();
            self.answered -= 1;
        }
    }
}

impl std::ops::Sub for Count {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            published: self.published - before.published,
            answered: self.answered - before.answered,
            refused: self.refused - before.refused,
            delivered: self.delivered - before.delivered,
            expected: self.expected - before.expected,
            out_of_order: self.out_of_order - before.out_of_order,
            duplicates: self.duplicates - before.duplicates,
            misdelivered: self.misdelivered - before.misdelivered,
            gaps: self.gaps - before.gaps,
            complaints: self.complaints - before.complaints,
            disconnects: self.disconnects - before.disconnects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(lane: u32, number: u32) -> Stamp {
        Stamp { lane, topic: 0, number, sent: 0 }
    }

    fn tally(subscribers: usize) -> Tally {
        let mut tally = Tally::new(2, 1);
        tally.until_delivered = true;
        for _ in 0..subscribers {
            tally.add_subscriber(0);
            tally.expect(0, true);
        }
        tally
    }

    #[test]
    fn a_publication_is_over_when_it_was_answered_and_everybody_has_it() {
        let mut tally = tally(2);
        tally.published(stamp(0, 1), true);
        tally.delivered(0, stamp(0, 1), 5);
        tally.delivered(1, stamp(0, 1), 5);
        assert_eq!((tally.in_flight(0), tally.unanswered(0)), (1, 1));
        tally.answered(0, 7);
        assert_eq!((tally.in_flight(0), tally.unanswered(0)), (0, 0));
        assert!(tally.is_complete());

        tally.published(stamp(0, 2), true);
        tally.answered(0, 7);
        tally.delivered(0, stamp(0, 2), 5);
        assert_eq!((tally.in_flight(0), tally.unanswered(0)), (1, 0));
        assert!(!tally.is_complete());
        assert_eq!(tally.oldest(), Some(0));
        tally.give_up();
        assert_eq!(tally.in_flight(0), 0);
    }

    #[test]
    fn what_arrives_before_the_answer_takes_no_time_over_it() {
        let mut tally = tally(1);
        tally.published(stamp(0, 1), true);
        tally.delivered(0, stamp(0, 1), 1_000_000);
        tally.answered(0, 2_000_000);
        assert!(tally.after_answer.summary().unwrap().max < 0.001);
        tally.published(stamp(0, 2), true);
        tally.answered(0, 3_000_000);
        tally.delivered(0, stamp(0, 2), 4_000_000);
        assert!((tally.after_answer.summary().unwrap().max - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_refused_publication_is_not_waited_for() {
        let mut tally = tally(2);
        tally.published(stamp(0, 1), true);
        tally.refused(0, "429");
        assert!(tally.is_complete());
        assert_eq!(tally.in_flight(0), 0);
        assert_eq!(tally.first_refusal.as_deref(), Some("429"));
    }

    #[test]
    fn repeats_and_swaps_are_counted_apart() {
        let mut tally = tally(1);
        for number in [1, 2, 2, 5, 4] {
            tally.delivered(0, stamp(0, number), 0);
        }
        tally.delivered(0, Stamp { topic: 3, ..stamp(0, 6) }, 0);
        let Count { delivered, duplicates, out_of_order, misdelivered, .. } = tally.count;
        assert_eq!((delivered, duplicates, out_of_order, misdelivered), (4, 1, 1, 1));
    }

    #[test]
    fn subscribers_that_saw_lanes_in_another_order_disagree() {
        let mut tally = tally(3);
        for subscriber in 0..3 {
            tally.delivered(subscriber, stamp(0, 1), 0);
        }
        tally.begin_agreement();
        for (subscriber, lanes) in [(0, [0, 1]), (1, [0, 1]), (2, [1, 0])] {
            for lane in lanes {
                tally.delivered(subscriber, stamp(lane, 2), 0);
            }
        }
        assert_eq!(tally.disagreeing(), 1);
    }
}
