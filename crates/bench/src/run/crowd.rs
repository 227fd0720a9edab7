//! Subscribers come: one after the other, all at once, or back to where they were.

use std::time::Duration;

use anyhow::bail;

use super::{CONNECT, Look, Run, SETTLE, TURN};
use crate::client::Phase;
use crate::clock::{self, SECOND};
use crate::kernel;

/// What was said while nobody listened, in [`Kind::Resume`](crate::scenario::Kind::Resume).
const MISSED: u32 = 50;

/// Connections under way at once in a storm: as many as the queue of a listening socket takes, which
/// Linux cuts to 4,096. What comes beyond a full queue is dropped, and its client repeats it a
/// second later: then it would be the kernel's clock that is measured.
const CROWD: usize = 4_000;

/// From step to step of clients that come one by one: long enough for the server to be at rest. How
/// long matters, because meanwhile the processor's caches are used by others.
const STEP: u64 = SECOND / 2_500;

impl Run<'_> {
    /// Connects all without subscribing, then subscribes all.
    pub(super) fn held(&mut self) -> anyhow::Result<()> {
        self.swarm.hold = true;
        self.connect(self.effort.handshakes)?;
        self.report.kib_connected = self.kib_each(self.resident_now());
        self.swarm.hold = false;
        for number in 0..self.swarm.clients.len() {
            self.swarm.release(number);
            if number % self.effort.handshakes == 0 {
                self.swarm.turn(Duration::ZERO)?;
            }
        }
        self.await_ready(1, 0)?;
        self.settle()?;
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        Ok(())
    }

    /// All connect as fast as this program can.
    pub(super) fn storm(&mut self) -> anyhow::Result<()> {
        let (before, repeated) = (self.look(), kernel::repeated_connects());
        for _ in 0..self.scenario.subscribers {
            self.open_next(false)?;
            self.leave_room()?;
        }
        self.await_ready(usize::MAX, 0)?;
        self.connected(before)?;
        self.report.latency = self.swarm.opened.summary();
        self.tell_repeated(repeated);
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        Ok(())
    }

    /// Lets a crowd go on, and waits while it is as large as it may be.
    ///
    /// Each asks as soon as it is connected: a client does not wait for the others, and servers
    /// take in only so many who say nothing yet.
    fn leave_room(&mut self) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT;
        self.swarm.turn(Duration::ZERO)?;
        while self.swarm.opening >= CROWD {
            self.swarm.turn(TURN)?;
            if clock::now() > deadline {
                bail!("the server takes no more connections{}", self.complaint());
            }
        }
        Ok(())
    }

    /// Says so when connects were dropped all the same, because the server asked for a shorter queue.
    fn tell_repeated(&mut self, before: Option<u64>) {
        let now = kernel::repeated_connects();
        let more = now.zip(before).map_or(0, |(now, before)| now - before);
        if more > 0 {
            let note = format!("the kernel repeated {more} connects of the whole machine");
            self.report.notes.push(note);
        }
    }

    /// Everybody leaves, something is said, everybody comes back.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.connect(self.effort.handshakes)?;
        self.begin_publishing()?;
        self.drain()?;
        let start = self.swarm.tally.count;
        let clients = self.swarm.clients.len();
        if self.swarm.position.is_empty() {
            bail!("the template tells no position to come back to");
        }
        (0..clients).for_each(|number| self.swarm.leave(number));
        self.wait(SETTLE)?;
        for _ in 0..MISSED {
            self.swarm.schedule(0, 0, clock::now());
        }
        self.send_scheduled()?;
        self.swarm.resume = true;
        self.swarm.tally.latency.clear();
        let before = self.look();
        for number in 0..clients {
            self.swarm.reopen(number)?;
            self.leave_room()?;
        }
        self.await_ready(usize::MAX, 0)?;
        let ready = clock::now();
        self.drain()?;
        let after = self.look();
        self.totals(start);
        let took = |to: u64| (to - before.at) as f64 / SECOND as f64;
        self.report.connections_per_second = Some(clients as f64 / took(ready));
        self.report.cpu_per_connection = self.cpu_each(before, after);
        self.window(before, after);
        self.report.latency = None;
        let note = format!("all were back with everything after {:.2} s", took(after.at));
        self.report.notes.push(note);
        Ok(())
    }

    /// One client after the other, and each says what it has to say only when the server has been at
    /// rest for a while, so that the figure does not hang on how quick this program is.
    pub(super) fn one_by_one(&mut self) -> anyhow::Result<()> {
        let before = self.look();
        let mut stepped = before.at;
        for _ in 0..self.scenario.subscribers {
            let (number, topic) = self.next();
            self.swarm.begin(number % self.scenario.templates.len(), topic, false)?;
            self.rest(&mut stepped)?;
            self.swarm.clients[number].is_stalled = true;
            self.swarm.listen(number)?;
            self.answer_slowly(number, &mut stepped)?;
        }
        self.connected(before)?;
        // That was our choice.
        self.report.connections_per_second = None;
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        Ok(())
    }

    /// Waits until it is time for the next step.
    fn rest(&mut self, stepped: &mut u64) -> anyhow::Result<()> {
        self.wait((*stepped + STEP).saturating_sub(clock::now()))?;
        *stepped = clock::now();
        Ok(())
    }

    /// Lets a client read what came and answer it, step by step until it is subscribed.
    fn answer_slowly(&mut self, number: usize, stepped: &mut u64) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT;
        while self.swarm.opening > 0 {
            self.rest(stepped)?;
            self.swarm.wake_stalled(number);
            self.swarm.clients[number].is_stalled = true;
            if clock::now() > deadline {
                bail!("connection {number} was not ready in time{}", self.complaint());
            }
        }
        self.swarm.clients[number].is_stalled = false;
        match self.swarm.clients[number].phase {
            Phase::Lost => bail!("connection {number} was lost{}", self.complaint()),
            _ => Ok(()),
        }
    }

    /// Opens all subscribers, at most so many under way, and waits until they are where they go.
    pub(super) fn connect(&mut self, at_once: usize) -> anyhow::Result<()> {
        let before = self.look();
        let more = self.scenario.subscribers - self.swarm.clients.len();
        self.await_ready(at_once, more)?;
        self.connected(before)
    }

    /// Puts down what it took until now to connect all.
    fn connected(&mut self, before: Look) -> anyhow::Result<()> {
        let took = (clock::now() - before.at) as f64 / SECOND as f64;
        self.report.connections_per_second = Some(self.scenario.subscribers as f64 / took);
        self.settle()?;
        let after = self.look();
        self.report.cpu_per_connection = self.cpu_each(before, after);
        self.report.sleeps_per_connection = self.sleeps_each(before, after);
        Ok(())
    }

    /// Opens so many more, and waits for all that are being opened.
    pub(super) fn await_ready(&mut self, at_once: usize, more: usize) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT;
        let goal = self.swarm.clients.len() + more;
        loop {
            while self.swarm.clients.len() < goal && self.swarm.opening < at_once {
                self.open_next(false)?;
            }
            if self.swarm.opening == 0 && self.swarm.clients.len() == goal {
                break;
            }
            self.swarm.turn(TURN)?;
            if clock::now() > deadline {
                let missing = self.swarm.opening;
                bail!("{missing} connections were not ready in time{}", self.complaint());
            }
        }
        let lost = self.swarm.count(Phase::Lost);
        if lost > 0 {
            bail!("{lost} connections were lost while opening{}", self.complaint());
        }
        Ok(())
    }

    pub(super) fn open_next(&mut self, is_stalled: bool) -> anyhow::Result<usize> {
        let (number, topic) = self.next();
        self.swarm.open(number % self.scenario.templates.len(), topic, is_stalled)
    }

    /// The number of the client that comes next, and its topic.
    fn next(&self) -> (usize, u32) {
        let number = self.swarm.clients.len();
        let topic = number % self.swarm.topic_count();
        (number, u32::try_from(topic).expect("topics are few"))
    }
}
