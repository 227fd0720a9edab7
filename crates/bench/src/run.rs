//! One scenario from the first connection to the report.
//!
//! Every number is the difference of two looks at the books and at the server's process, taken
//! around what it is about. Each step has an end in time, whatever the server does.

mod crowd;
mod pace;

use std::time::Duration;

use anyhow::{Context as _, bail};

use self::pace::Pace;
use crate::clock::{self, SECOND};
use crate::lane::Way;
use crate::process::{self, Usage, Watched};
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

/// A publication that is not over after this long is given up, so that the loop goes on.
const STUCK: u64 = 5 * SECOND;

/// How often the server's memory is looked at under load.
const LOOK: u64 = SECOND / 4;

/// The longest wait for events, so that every deadline is seen in time.
const TURN: Duration = Duration::from_millis(50);

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
    own_sleeps: u64,
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
            Kind::Keyed => run.keyed()?,
            Kind::Idle => run.idle()?,
            Kind::Held => run.held()?,
            Kind::Storm => run.storm()?,
            Kind::OneByOne => run.one_by_one()?,
            Kind::Resume => run.resume()?,
            Kind::Backlog => bail!("a backlog is measured from before its server begins"),
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
        self.warm_up()?;
        self.measure_window()?;
        self.drain()?;
        self.totals(start);
        if let Some(stalled) = stalled {
            self.tell_stalled(stalled)?;
        }
        Ok(())
    }

    /// What a row costs when one client wants it, and when each of very many wants another.
    fn keyed(&mut self) -> anyhow::Result<()> {
        self.await_ready(1, 1)?;
        self.settle()?;
        self.begin_publishing()?;
        self.warm_up()?;
        self.measure_window()?;
        self.drain()?;
        self.report.beside_cpu_per_million = self.report.server_cpu_per_million;
        let start = self.swarm.tally.count;
        self.connect(self.effort.handshakes)?;
        self.report.kib_subscribed = self.kib_each(self.resident_now());
        self.await_hearing(1)?;
        self.warm_up()?;
        self.measure_window()?;
        self.drain()?;
        self.totals(start);
        Ok(())
    }

    /// Says a little that is not counted.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        self.drive(clock::now() + (self.effort.seconds * 0.2 * SECOND as f64) as u64)
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
        self.await_hearing(0)
    }

    /// Expects what is said to reach those who came from a number on, and makes sure that it does.
    fn await_hearing(&mut self, from: usize) -> anyhow::Result<()> {
        let clients = &self.swarm.clients[from..];
        let listening: Vec<_> =
            clients.iter().filter(|client| !client.is_stalled).map(|client| client.topic).collect();
        listening.into_iter().for_each(|topic| self.swarm.tally.expect(topic, true));
        for topic in 0..self.spoken() {
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

    /// How many topics are spoken on: all, but none that nobody is there for.
    fn spoken(&self) -> usize {
        self.swarm.topic_count().min(self.swarm.clients.len())
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
        self.swarm.tally.after_answer.clear();
        self.swarm.lateness.clear();
        let before = self.look();
        self.drive(before.at + (self.effort.seconds * SECOND as f64) as u64)?;
        let after = self.look();
        self.window(before, after);
        self.report.latency = self.swarm.tally.latency.summary();
        self.report.answer = self.swarm.tally.answer.summary();
        if matches!(self.scenario.way, Way::Notify | Way::Insert) && self.scenario.topics == 1 {
            self.report.over_commit = self.swarm.tally.after_answer.summary();
        }
        self.report.lateness = self.swarm.lateness.summary();
        self.report.kib_loaded = self.kib_each(self.peak);
        Ok(())
    }

    /// Publishes as the scenario says until a moment.
    fn drive(&mut self, until: u64) -> anyhow::Result<()> {
        let mut pace = Pace::new(self.scenario.load, self.spoken());
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
        let (at, own, own_sleeps) = (clock::now(), clock::own_cpu(), process::own_sleeps());
        Look { at, count: self.swarm.tally.count, server, own, own_sleeps }
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
            let sleeps = (after.own_sleeps - before.own_sleeps) as f64;
            report.own_sleeps_per_delivery = Some(sleeps / count.delivered as f64);
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

    fn sleeps_each(&self, before: Look, after: Look) -> Option<f64> {
        let sleeps = after.server.sleeps.saturating_sub(before.server.sleeps) as f64;
        self.watched.as_ref().map(|_| sleeps / self.swarm.clients.len() as f64)
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
