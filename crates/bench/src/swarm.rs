//! All connections on one thread: subscribers, lanes, and the clock that says when to publish.
//!
//! Edge-triggered epoll, one buffer for all reads, nothing allocated for a delivery. What is done
//! with the connections is up to whoever calls [`Swarm::turn`].

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::Context as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, Phase, READ_BYTES, Surroundings};
use crate::clock;
use crate::lane::{Door, Heard, Lane, Login, Way};
use crate::latency::Times;
use crate::stamp::{Stamp, Stamps};
use crate::tally::Tally;
use crate::template::Template;

/// Events taken at once: few enough that a publication that is due is not kept waiting.
const EVENTS: usize = 256;

/// Lanes and the timer have tokens from here on; below are subscribers.
const LANES: usize = 1 << 30;
const TIMER: Token = Token(usize::MAX - 1);

/// Bytes of the receive buffer of a subscriber that stands still: the least, so that what the
/// kernel keeps for it soon ends and the server's own buffers are what is tried.
const STALLED_BUFFER: usize = 4 << 10;

/// Connections from one address. Linux gives out 28,000 ports by itself, but the odd and the even
/// ones apart, and looking for a free one among 14,000 takes longer than the server takes.
const PORTS: usize = 10_000;

/// What is measured against.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Where lanes connect to.
    pub(crate) publish: Door,
    pub(crate) login: Login,
}

/// All connections of one run.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    timer: TimerFd,
    armed: Option<u64>,
    buffer: Vec<u8>,
    target: Target,
    host: String,
    templates: Vec<Template>,
    topics: Vec<String>,
    pub(crate) clients: Vec<Client>,
    lanes: Vec<Lane>,
    /// The last number of each lane on each topic, a row of topics each.
    numbers: Vec<u32>,
    pub(crate) tally: Tally,
    stamps: Stamps,
    payload: usize,
    /// Subscribers that were opened and are not at their goal.
    pub(crate) opening: usize,
    /// Whether new subscribers stop before subscribing.
    pub(crate) hold: bool,
    /// Whether new subscribers come back to [`Swarm::position`].
    pub(crate) resume: bool,
    pub(crate) position: String,
    pub(crate) complaint: Option<String>,
    /// Publications that are due, by lane, with the moment they were.
    due: Vec<VecDeque<(u32, u64)>>,
    /// How late publications were sent.
    pub(crate) lateness: Times,
    /// From a subscriber's connect to where opening it leads.
    pub(crate) opened: Times,
}

impl Swarm {
    /// No connections yet.
    ///
    /// # Errors
    /// When the kernel has no epoll or timer for us.
    pub(crate) fn new(
        target: Target,
        templates: Vec<Template>,
        topics: usize,
        lanes: usize,
        payload: usize,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new().context("making an epoll")?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("making a timer")?;
        let descriptor = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            armed: None,
            buffer: vec![0; READ_BYTES],
            host: target.address.to_string(),
            target,
            templates,
            topics: (0..topics).map(|topic| format!("bench{topic}")).collect(),
            clients: Vec::new(),
            lanes: Vec::new(),
            numbers: vec![0; topics * lanes],
            tally: Tally::new(lanes, topics),
            stamps: Stamps::new(),
            payload,
            opening: 0,
            hold: false,
            resume: false,
            position: String::new(),
            complaint: None,
            due: vec![VecDeque::new(); lanes],
            lateness: Times::new(),
            opened: Times::new(),
        })
    }

    /// Begins to connect one more subscriber, which goes on by itself; its number.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub(crate) fn open(
        &mut self,
        template: usize,
        topic: u32,
        is_stalled: bool,
    ) -> anyhow::Result<usize> {
        let number = self.begin(template, topic, is_stalled)?;
        self.listen(number)?;
        Ok(number)
    }

    /// Begins to connect one more subscriber, which does nothing until it is told to
    /// [listen](Self::listen); its number.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub(crate) fn begin(
        &mut self,
        template: usize,
        topic: u32,
        is_stalled: bool,
    ) -> anyhow::Result<usize> {
        let number = self.clients.len();
        let stream = self.connect(number, is_stalled);
        let stream = stream.with_context(|| format!("opening connection {number}"))?;
        self.tally.add_subscriber(topic);
        self.clients.push(Client::new(stream, template, topic));
        self.opening += 1;
        Ok(number)
    }

    /// Lets a subscriber act on what happens to its socket: as soon as it is connected, it asks.
    ///
    /// # Errors
    /// When epoll takes no more.
    pub(crate) fn listen(&mut self, number: usize) -> io::Result<()> {
        let Some(stream) = self.clients[number].stream() else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, Token(number), interest)
    }

    /// Connects a subscriber that left again, under its number.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub(crate) fn reopen(&mut self, number: usize) -> anyhow::Result<()> {
        let Client { template, topic, .. } = self.clients[number];
        let stream = self.connect(number, false)?;
        self.clients[number] = Client::new(stream, template, topic);
        self.opening += 1;
        Ok(self.listen(number)?)
    }

    fn connect(&self, number: usize, is_stalled: bool) -> io::Result<mio::net::TcpStream> {
        let address = self.target.address;
        if !is_stalled && number < PORTS {
            return mio::net::TcpStream::connect(address);
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if is_stalled {
            socket.set_recv_buffer_size(STALLED_BUFFER)?;
        }
        if number >= PORTS && address.ip().is_loopback() && address.is_ipv4() {
            let host = u8::try_from(2 + number / PORTS).unwrap_or(u8::MAX);
            let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0);
            // Only the address: a port that is bound is nobody else's for a minute after it, not
            // even towards another server.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&source.into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(mio::net::TcpStream::from_std(socket.into()))
    }

    /// Connects the publishers, by the first template.
    ///
    /// # Errors
    /// When the template has no such way.
    pub(crate) fn open_lanes(&mut self, way: Way) -> anyhow::Result<()> {
        for number in 0..self.due.len() {
            let target = &self.target;
            let mut lane =
                Lane::open(&self.templates[0], way, &target.publish, &self.host, &target.login)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(lane.socket(), Token(LANES + number), interest)?;
            self.lanes.push(lane);
        }
        Ok(())
    }

    pub(crate) fn lane_count(&self) -> usize {
        self.due.len()
    }

    pub(crate) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn lanes_are_ready(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_ready)
    }

    /// Why a publisher cannot go on.
    pub(crate) fn broken_lane(&self) -> Option<&str> {
        self.lanes.iter().find_map(|lane| lane.broken.as_deref())
    }

    /// Subscribers of a phase.
    pub(crate) fn count(&self, phase: Phase) -> usize {
        self.clients.iter().filter(|client| client.phase == phase).count()
    }

    /// Waits for what the kernel has, at most so long, and acts on it.
    ///
    /// # Errors
    /// When epoll fails, which it does not.
    pub(crate) fn turn(&mut self, longest: Duration) -> anyhow::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(longest)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        for event in &events {
            match event.token() {
                TIMER => self.timer_rang(),
                Token(lane) if lane >= LANES => self.lane_woken(lane - LANES, event),
                Token(client) => self.client_woken(client, event),
            }
        }
        self.events = events;
        Ok(())
    }

    fn timer_rang(&mut self) {
        self.armed = None;
        // Emptied so that it rings again; how often it rang does not matter.
        let _ = self.timer.wait();
    }

    /// Wakes [`Swarm::turn`] at a moment.
    pub(crate) fn wake_at(&mut self, at: u64) {
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        let ahead = at.saturating_sub(clock::now()).max(1_000);
        let expiration = Expiration::OneShot(TimeSpec::from(Duration::from_nanos(ahead)));
        if self.timer.set(expiration, TimerSetTimeFlags::empty()).is_ok() {
            self.armed = Some(at);
        }
    }

    fn client_woken(&mut self, number: usize, event: &mio::event::Event) {
        self.with_client(number, |client, around| client.woken(number, event, around));
    }

    /// Lets a held subscriber subscribe.
    pub(crate) fn release(&mut self, number: usize) {
        self.with_client(number, Client::release);
    }

    /// Closes a subscriber's connection.
    pub(crate) fn leave(&mut self, number: usize) {
        self.with_client(number, |client, _| client.leave());
    }

    /// Lets a subscriber that stood still read on.
    pub(crate) fn wake_stalled(&mut self, number: usize) {
        self.with_client(number, |client, around| {
            client.is_stalled = false;
            client.read(number, true, around);
        });
    }

    fn with_client(&mut self, number: usize, act: impl FnOnce(&mut Client, &mut Surroundings<'_>)) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let template = &self.templates[client.template];
        let resume = template.subscribe.resume.as_ref().filter(|_| self.resume);
        let mut around = Surroundings {
            tally: &mut self.tally,
            stamps: &self.stamps,
            buffer: &mut self.buffer,
            template,
            way: resume.unwrap_or(&template.subscribe.way),
            host: &self.host,
            topic: &self.topics[client.topic as usize],
            position: &mut self.position,
            note_position: number == 0 && !self.resume,
            hold: self.hold,
            complaint: &mut self.complaint,
        };
        let before = is_settled(client.phase);
        act(client, &mut around);
        match (before, is_settled(client.phase)) {
            (false, true) => {
                self.opening -= 1;
                self.opened.record(clock::now() - client.since);
            }
            (true, false) => self.opening += 1,
            _ => {}
        }
    }

    fn lane_woken(&mut self, number: usize, event: &mio::event::Event) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        let tally = &mut self.tally;
        let now = clock::now();
        lane.woken(event, &mut self.buffer, &mut |heard| match heard {
            Heard::Ready => {}
            Heard::Accepted => tally.answered(number, now),
            Heard::Refused(why) => tally.refused(number, &why),
        });
    }

    /// Says something on a topic, now.
    pub(crate) fn publish(&mut self, lane: usize, topic: u32) {
        let number = &mut self.numbers[lane * self.topics.len() + topic as usize];
        *number += 1;
        let lane_number = u32::try_from(lane).expect("lanes are few");
        let stamp = Stamp { lane: lane_number, topic, number: *number, sent: clock::now() };
        let payload = stamp.payload(self.payload);
        self.tally.published(stamp, self.lanes[lane].is_answered());
        self.lanes[lane].publish(&self.topics[topic as usize], &payload);
    }

    /// Puts a publication into its lane's queue: it goes out when its turn comes.
    pub(crate) fn schedule(&mut self, lane: usize, topic: u32, due: u64) {
        self.due[lane].push_back((topic, due));
    }

    /// Sends what is due as far as lanes are free: an HTTP connection has one at a time.
    pub(crate) fn send_due(&mut self, depth: usize) {
        for lane in 0..self.due.len() {
            while self.tally.unanswered(lane) < depth {
                let Some((topic, due)) = self.due[lane].pop_front() else { break };
                self.lateness.record(clock::now().saturating_sub(due).max(1));
                self.publish(lane, topic);
            }
        }
    }

    /// Publications that are due and not sent.
    pub(crate) fn overdue(&self) -> usize {
        self.due.iter().map(VecDeque::len).sum()
    }

    /// Forgets what is due.
    pub(crate) fn drop_due(&mut self) {
        self.due.iter_mut().for_each(VecDeque::clear);
    }
}

/// Whether a subscriber is where opening it leads, for better or worse.
fn is_settled(phase: Phase) -> bool {
    matches!(phase, Phase::Held | Phase::Ready | Phase::Left | Phase::Lost)
}
