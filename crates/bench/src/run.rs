//! One scenario from the first connection to the report.
//!
//! Every number is the difference of two looks at the books and at the server's process, taken
//! around what it is about. Each step has an end in time, whatever the server does.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::client::Phase;
use crate::clock::{self, SECOND};
use crate::kernel;
use crate::process::{Usage, Watched};
use crate::report::Report;
use crate::scenario::{Kind, Load, Scenario};
use crate::server::Server;
use crate::swarm::Swarm;
use crate::tally::Count;
use crate::template::Template;

/// For the server to come to rest after connections were opened.
const SETTLE: u64 = SECOND / 2;

/// For all connections to be there.
const CONNECT: u64 = 60 * SECOND;

/// Connections under way at once in a storm: as many as the queue of a listening socket takes, which
/// Linux cuts to 4,096. What comes beyond a full queue is dropped, and its client repeats it a
/// second later: then it would be the kernel's clock that is measured.
const CROWD: usize = 4_000;

/// A publication that is not over after this long is given up, so that the loop goes on.
const STUCK: u64 = 5 * SECOND;

/// How often the server's memory is looked at under load.
const LOOK: u64 = SECOND / 4;

/// The longest wait for events, so that every deadline is seen in time.
const TURN: Duration = Duration::from_millis(50);

/// What was said while nobody listened, in [`Kind::Resume`].
const MISSED: u32 = 50;

/// One run.
pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    watched: Option<Watched>,
    swarm: Swarm,
    effort: Effort,
    report: Report,
    /// Resident bytes before anybody came, and the most under load.
    resident: u64,
    peak: u64,
    gave_up: u64,
}

/// How much effort to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Seconds to measure.
    pub(crate) seconds: f64,
    /// Handshakes under way at once, where it is not a storm that is measured.
    pub(crate) handshakes: usize,
    /// Seconds for what was said to arrive after the last publication.
    pub(crate) patience: f64,
}

/// A look at everything that counts.
#[derive(Clone, Copy)]
struct Look {
    at: u64,
    count: Count,
    server: Usage,
    own: u64,
}

impl<'a> Run<'a> {
    /// Measures one scenario on a server that nobody is connected to yet.
    ///
    /// # Errors
    /// When connections cannot be made or the server ends.
    pub(crate) fn measure(
        scenario: &'a Scenario,
        server: &Server,
        templates: Vec<Template>,
        effort: Effort,
    ) -> anyhow::Result<Report> {
        let (lanes, _) = scenario.lanes();
        let target = server.target.clone();
        let topics = scenario.topics;
        let swarm = Swarm::new(target, templates, topics, lanes, scenario.payload)?;
        let report = Report {
            scenario: scenario.name.to_owned(),
            system: server.name.clone(),
            way: format!("{:?}", scenario.way).to_lowercase(),
            at: clock::since_1970(),
            subscribers: scenario.subscribers as u64,
            topics: topics as u64,
            payload_bytes: scenario.payload as u64,
            ..Report::default()
        };
        let watched = server.watched.clone();
        let mut run =
            Self { scenario, watched, swarm, effort, report, resident: 0, peak: 0, gave_up: 0 };
        run.resident = run.resident_now();
        run.report.resident_before = run.watched.as_ref().map(|_| run.resident as f64 / 1024.0);
        match scenario.kind {
            Kind::Load | Kind::Stalled => run.load()?,
            Kind::Idle => run.idle()?,
            Kind::Held => run.held()?,
            Kind::Storm => run.storm()?,
            Kind::Resume => run.resume()?,
        }
        run.finish();
        Ok(run.report)
    }

    fn load(&mut self) -> anyhow::Result<()> {
        self.connect(self.effort.handshakes)?;
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        let stalled = (self.scenario.kind == Kind::Stalled).then(|| self.stall()).transpose()?;
        self.begin_publishing()?;
        let start = self.swarm.tally.count;
        self.drive(clock::now() + (self.effort.seconds * 0.2 * SECOND as f64) as u64)?;
        self.measure_window()?;
        self.drain()?;
        self.totals(start);
        if let Some(stalled) = stalled {
            self.tell_stalled(stalled)?;
        }
        Ok(())
    }

    /// Looks at what subscribed connections cost at rest.
    fn idle(&mut self) -> anyhow::Result<()> {
        self.connect(self.effort.handshakes)?;
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        let before = self.look();
        self.wait((self.effort.seconds * SECOND as f64) as u64)?;
        let after = self.look();
        self.report.seconds = (after.at - before.at) as f64 / SECOND as f64;
        self.report.server_cores = self.cores(before, after);
        Ok(())
    }

    /// Connects all without subscribing, then subscribes all.
    fn held(&mut self) -> anyhow::Result<()> {
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
    fn storm(&mut self) -> anyhow::Result<()> {
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
    fn resume(&mut self) -> anyhow::Result<()> {
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

    /// Opens all subscribers, at most so many under way, and waits until they are where they go.
    fn connect(&mut self, at_once: usize) -> anyhow::Result<()> {
        let before = self.look();
        let subscribers = self.scenario.subscribers;
        self.await_ready(at_once, subscribers)?;
        self.connected(before)
    }

    /// Puts down what it took until now to connect all.
    fn connected(&mut self, before: Look) -> anyhow::Result<()> {
        let took = (clock::now() - before.at) as f64 / SECOND as f64;
        self.report.connections_per_second = Some(self.scenario.subscribers as f64 / took);
        self.settle()?;
        self.report.cpu_per_connection = self.cpu_each(before, self.look());
        Ok(())
    }

    /// Opens so many more, and waits for all that are being opened.
    fn await_ready(&mut self, at_once: usize, more: usize) -> anyhow::Result<()> {
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

    fn open_next(&mut self, is_stalled: bool) -> anyhow::Result<usize> {
        let number = self.swarm.clients.len();
        let topic = u32::try_from(number % self.swarm.topic_count()).expect("topics are few");
        self.swarm.open(number % self.scenario.templates.len(), topic, is_stalled)
    }

    fn complaint(&self) -> String {
        self.swarm.complaint.as_ref().map_or_else(String::new, |first| format!("; first: {first}"))
    }

    /// One more subscriber, who stops reading as soon as it is subscribed.
    fn stall(&mut self) -> anyhow::Result<usize> {
        let number = self.open_next(true)?;
        self.await_ready(1, 0)?;
        self.swarm.clients[number].is_stalled = true;
        Ok(number)
    }

    /// Opens the lanes and makes sure that everybody receives what they say.
    fn begin_publishing(&mut self) -> anyhow::Result<()> {
        self.swarm.open_lanes(self.scenario.way)?;
        let deadline = clock::now() + CONNECT;
        while !self.swarm.lanes_are_ready() {
            self.swarm.turn(TURN)?;
            self.check_lanes()?;
            if clock::now() > deadline {
                bail!("the publishers were not ready in time");
            }
        }
        let clients = &self.swarm.clients;
        let listening: Vec<_> =
            clients.iter().filter(|client| !client.is_stalled).map(|client| client.topic).collect();
        listening.into_iter().for_each(|topic| self.swarm.tally.expect(topic, true));
        for topic in 0..self.swarm.topic_count() {
            let lane = topic % self.swarm.lane_count();
            self.swarm.schedule(lane, u32::try_from(topic).expect("topics are few"), clock::now());
        }
        self.send_scheduled()?;
        self.drain()?;
        let count = self.swarm.tally.count;
        if count.delivered < count.expected {
            let Count { delivered, expected, .. } = count;
            let refusal = self.swarm.tally.first_refusal.as_deref().unwrap_or("no refusal");
            bail!("the first messages reached {delivered} of {expected} subscribers; {refusal}");
        }
        self.swarm.tally.begin_agreement();
        self.swarm.tally.until_delivered = matches!(self.scenario.load, Load::Outstanding(_));
        Ok(())
    }

    /// Sends what is scheduled, one at a time and lane.
    fn send_scheduled(&mut self) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT;
        while self.swarm.overdue() > 0 {
            self.swarm.send_due(1);
            self.swarm.turn(Duration::from_millis(1))?;
            self.check_lanes()?;
            if clock::now() > deadline {
                bail!("the server does not answer the publishers");
            }
        }
        Ok(())
    }

    fn measure_window(&mut self) -> anyhow::Result<()> {
        self.swarm.tally.latency.clear();
        self.swarm.tally.answer.clear();
        self.swarm.lateness.clear();
        let before = self.look();
        self.drive(before.at + (self.effort.seconds * SECOND as f64) as u64)?;
        let after = self.look();
        self.window(before, after);
        self.report.latency = self.swarm.tally.latency.summary();
        self.report.answer = self.swarm.tally.answer.summary();
        self.report.lateness = self.swarm.lateness.summary();
        self.report.kib_loaded = self.kib_each(self.peak);
        Ok(())
    }

    /// Publishes as the scenario says until a moment.
    fn drive(&mut self, until: u64) -> anyhow::Result<()> {
        let mut pace = Pace::new(self.scenario.load);
        let mut look = clock::now();
        loop {
            let now = clock::now();
            if now >= until {
                break;
            }
            self.say(&mut pace, now);
            if now >= look {
                self.look_around(now)?;
                look = now + LOOK;
            }
            self.swarm.wake_at(pace.next.min(until));
            self.swarm.turn(TURN)?;
        }
        self.swarm.drop_due();
        Ok(())
    }

    fn say(&mut self, pace: &mut Pace, now: u64) {
        let (_, depth) = self.scenario.lanes();
        match self.scenario.load {
            Load::Silence => {}
            Load::Paced(_) => {
                pace.schedule(&mut self.swarm, now);
                self.swarm.send_due(depth);
            }
            Load::Outstanding(_) => {
                for lane in 0..self.swarm.lane_count() {
                    while self.swarm.tally.in_flight(lane) < depth {
                        self.swarm.publish(lane, 0);
                    }
                }
            }
        }
    }

    /// What has to be looked at from time to time.
    fn look_around(&mut self, now: u64) -> anyhow::Result<()> {
        self.check_lanes()?;
        if let Some(watched) = &self.watched {
            self.peak = self.peak.max(watched.resident_roughly());
            if !watched.is_alive() {
                bail!("the server ended");
            }
        }
        let stuck = self.swarm.tally.oldest().is_some_and(|oldest| oldest + STUCK < now);
        if stuck && self.swarm.tally.until_delivered {
            self.gave_up += 1;
            self.swarm.tally.give_up();
        }
        Ok(())
    }

    fn check_lanes(&self) -> anyhow::Result<()> {
        self.swarm.broken_lane().map_or(Ok(()), |why| bail!("a publisher broke: {why}"))
    }

    /// Waits for what was said to arrive.
    fn drain(&mut self) -> anyhow::Result<()> {
        let deadline = clock::now() + (self.effort.patience * SECOND as f64) as u64;
        while !self.swarm.tally.is_complete() && clock::now() < deadline {
            self.swarm.turn(TURN)?;
        }
        // What comes too often comes late, too.
        self.wait(SECOND / 5)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.wait(SETTLE)
    }

    fn wait(&mut self, length: u64) -> anyhow::Result<()> {
        let until = clock::now() + length;
        while clock::now() < until {
            self.swarm.wake_at(until);
            self.swarm.turn(TURN)?;
        }
        Ok(())
    }

    /// What became of the reader that stood still, once it reads on.
    fn tell_stalled(&mut self, number: usize) -> anyhow::Result<()> {
        let before = self.swarm.tally.count;
        self.swarm.wake_stalled(number);
        self.wait(2 * SECOND)?;
        let Count { delivered, gaps, disconnects, .. } = self.swarm.tally.count - before;
        let said = before.published;
        let note = format!(
            "the stalled reader, reading on, had {delivered} of {said} messages, {gaps} gaps told, \
             and its connection {}",
            if disconnects > 0 { "had been ended" } else { "lived on" }
        );
        self.report.notes.push(note);
        self.report.disconnects += disconnects;
        Ok(())
    }

    fn look(&self) -> Look {
        let server = self.watched.as_ref().map(Watched::usage).unwrap_or_default();
        Look { at: clock::now(), count: self.swarm.tally.count, server, own: clock::own_cpu() }
    }

    /// Puts down what happened between two looks.
    fn window(&mut self, before: Look, after: Look) {
        let seconds = (after.at - before.at) as f64 / SECOND as f64;
        let count = after.count - before.count;
        let report = &mut self.report;
        report.seconds = seconds;
        report.published = count.published;
        report.deliveries = count.delivered;
        report.deliveries_per_second = count.delivered as f64 / seconds;
        if count.delivered > 0 {
            let each = |nanos: u64| nanos as f64 / 1e3 / count.delivered as f64;
            report.own_cpu_per_delivery = Some(each(after.own - before.own));
            let server = after.server.cpu - before.server.cpu;
            report.server_cpu_per_million = self.watched.as_ref().map(|_| each(server));
        }
        let user = after.server.user_ticks - before.server.user_ticks;
        let system = after.server.system_ticks - before.server.system_ticks;
        report.server_user_share =
            (user + system > 0).then(|| user as f64 / (user + system) as f64);
        self.report.server_cores = self.cores(before, after);
    }

    fn cores(&self, before: Look, after: Look) -> Option<f64> {
        let cpu = (after.server.cpu - before.server.cpu) as f64;
        self.watched.as_ref().map(|_| cpu / (after.at - before.at) as f64)
    }

    fn cpu_each(&self, before: Look, after: Look) -> Option<f64> {
        let cpu = (after.server.cpu - before.server.cpu) as f64;
        self.watched.as_ref().map(|_| cpu / 1e3 / self.swarm.clients.len() as f64)
    }

    fn resident_now(&self) -> u64 {
        self.watched.as_ref().map_or(0, Watched::resident)
    }

    fn kib_each(&self, resident: u64) -> Option<f64> {
        let more = resident.saturating_sub(self.resident) as f64 / 1024.0;
        self.watched.as_ref().map(|_| more / self.swarm.clients.len() as f64)
    }

    /// Puts down what was lost or went wrong since a count.
    fn totals(&mut self, start: Count) {
        let count = self.swarm.tally.count - start;
        let report = &mut self.report;
        report.delivered_fraction =
            (count.expected > 0).then(|| count.delivered as f64 / count.expected as f64);
        report.out_of_order = count.out_of_order;
        report.duplicates = count.duplicates;
        report.misdelivered = count.misdelivered;
        report.gaps = count.gaps;
        report.refused = count.refused;
        report.disconnects = count.disconnects;
        report.disagreeing = self.swarm.tally.disagreeing();
    }

    fn finish(&mut self) {
        let mut note = |text: String| self.report.notes.push(text);
        if self.gave_up > 0 {
            note(format!("{} times a message did not reach everybody in 5 s", self.gave_up));
        }
        if let Some(refusal) = &self.swarm.tally.first_refusal {
            note(format!("a publisher was told: {refusal}"));
        }
        if let Some(first) = &self.swarm.complaint {
            note(format!("a subscriber met: {first}"));
        }
        let late = self.report.lateness.filter(|late| late.p50 > 100.0);
        if let Some(late) = late {
            let rate = self.report.published as f64 / self.report.seconds;
            let (p50, p99) = (late.p50, late.p99);
            note(format!("offered more than was taken: {rate:.0}/s, late by {p50:.0}/{p99:.0} ms"));
        }
    }
}

/// When the next publication is due, and whose it is.
struct Pace {
    interval: f64,
    start: u64,
    count: u64,
    next: u64,
}

impl Pace {
    fn new(load: Load) -> Self {
        let interval = match load {
            Load::Paced(rate) => SECOND as f64 / rate,
            Load::Silence | Load::Outstanding(_) => f64::INFINITY,
        };
        let start = clock::now();
        let next = if interval.is_finite() { start } else { u64::MAX };
        Self { interval, start, count: 0, next }
    }

    fn schedule(&mut self, swarm: &mut Swarm, now: u64) {
        while self.next <= now {
            let topics = swarm.topic_count() as u64;
            let topic = self.count % topics;
            // A topic is always published to by the same lane, for its order's sake.
            let turn = if topics > 1 { topic } else { self.count };
            let lane = usize::try_from(turn).unwrap_or(0) % swarm.lane_count();
            swarm.schedule(lane, u32::try_from(topic).expect("topics are few"), self.next);
            self.count += 1;
            self.next = self.start + (self.count as f64 * self.interval) as u64;
        }
    }
}

/// The templates of a scenario, or a peer's own.
///
/// # Errors
/// When one of them does not exist.
pub(crate) fn templates(scenario: &Scenario, own: Option<&str>) -> anyhow::Result<Vec<Template>> {
    let named = |name: &str| Template::named(name).context("choosing templates");
    match own {
        Some(name) => Ok(vec![named(name)?; scenario.templates.len()]),
        None => scenario.templates.iter().map(|name| named(name)).collect(),
    }
}

#[cfg(test)]
mod tests;
