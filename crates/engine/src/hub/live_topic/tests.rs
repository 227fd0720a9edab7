//! A model of one topic on one node: several sessions in one lane or in several, announcements
//! lost, repeated and reordered, epochs that change, tiny mailboxes, histories and inboxes.
//!
//! Each session must receive every event after where it began exactly once and in order, or be
//! told of a gap at the very place.

use std::sync::Arc;

use proptest::prelude::*;
use tidewire_protocol::dialect::Native;
use tidewire_protocol::{
    Audience, Body, Epoch, Event, GapReason, Payload, Position, SessionId, Shape, Topic, Wire,
};

use super::Member;
use crate::delivery::{Batch, Form, within};
use crate::hub::{Fed, Lane, LaneIndex, Lanes, Portion};
use crate::mailbox::{Mailbox, SubscriptionKey};
use crate::relay::{Arrived, Progress};

const SESSIONS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Action {
    /// An event is appended; whether it is announced, and from which session it is hidden.
    Say { announced: bool, hidden_from: Option<usize> },
    /// An announcement waiting in the bus arrives; it may stay there to be repeated.
    Arrive { index: usize, stays: bool },
    /// The relay compares with the history's head.
    Check,
    /// The relay reads what it began to read.
    Read,
    /// Someone works a lane that waits for it.
    Work(usize),
    /// A session takes what waits for it.
    Drain(usize),
    /// A session does one step of catching up.
    CatchUp(usize),
    /// A session asks how far it has everything, and takes that for its place.
    Reach(usize),
    /// A session goes away and comes back with its last position.
    Resume(usize),
    /// The history is lost and begins again.
    NewEpoch,
}

fn action() -> impl Strategy<Value = Action> {
    let session = 0..SESSIONS;
    prop_oneof![
        8 => (prop::bool::weighted(0.8), prop::option::weighted(0.2, 0..SESSIONS))
            .prop_map(|(announced, hidden_from)| Action::Say { announced, hidden_from }),
        8 => (0usize..4, prop::bool::weighted(0.2))
            .prop_map(|(index, stays)| Action::Arrive { index, stays }),
        1 => Just(Action::Check),
        4 => Just(Action::Read),
        6 => (0usize..SESSIONS).prop_map(Action::Work),
        4 => session.clone().prop_map(Action::Drain),
        4 => session.clone().prop_map(Action::CatchUp),
        1 => session.clone().prop_map(Action::Reach),
        1 => session.prop_map(Action::Resume),
        1 => Just(Action::NewEpoch),
    ]
}

/// The history: the newest events of the present epoch.
struct Store {
    epoch: u64,
    events: Vec<Arc<Event>>,
    /// Everything ever said, to judge by.
    log: Vec<Arc<Event>>,
    head: u64,
    keep: usize,
}

enum Read {
    Events(Vec<Arc<Event>>),
    Lost(Position),
}

impl Store {
    fn at(&self, seq: u64) -> Position {
        Position { epoch: Epoch(self.epoch), seq }
    }

    fn say(&mut self, hidden_from: Option<usize>) -> Arc<Event> {
        self.head += 1;
        let event = Arc::new(Event {
            topic: topic(),
            position: self.at(self.head),
            at: 0,
            name: None,
            body: Body::Message(Payload::Text("x".into())),
            audience: hidden_from
                .map_or(Audience::Everyone, |session| Audience::Except(SessionId(session as u64))),
        });
        self.events.push(Arc::clone(&event));
        self.log.push(Arc::clone(&event));
        let excess = self.events.len().saturating_sub(self.keep);
        self.events.drain(..excess);
        event
    }

    fn read(&self, after: Position, limit: usize) -> Read {
        let base = self.head - self.events.len() as u64;
        if after.epoch.0 != self.epoch || after.seq < base || after.seq > self.head {
            return Read::Lost(self.at(self.head));
        }
        let from = (after.seq - base) as usize;
        Read::Events(self.events.iter().skip(from).take(limit).cloned().collect())
    }

    fn earliest(&self) -> Position {
        self.at(self.head - self.events.len() as u64)
    }
}

/// One session, and what it has received: positions, `None` standing for a gap told.
struct Client {
    id: usize,
    mailbox: Arc<Mailbox>,
    key: u32,
    /// Where it pulls from, or live.
    behind: Option<Position>,
    /// Where it is live, or was last.
    lane: LaneIndex,
    /// The last place it knows of.
    at: Position,
}

struct Model {
    store: Store,
    bus: Vec<Arc<Event>>,
    progress: Progress,
    /// From where the relay reads.
    reading: Option<Position>,
    lanes: Lanes,
    /// Lanes that must be worked.
    summoned: Vec<Arc<Lane>>,
    clients: Vec<Client>,
    limit: usize,
}

fn topic() -> Topic {
    Topic::application("t").expect("a topic's name")
}

fn form() -> Form {
    let shape = Shape { dialect: Arc::new(Native), wire: Wire::Lines, tag: None };
    Form { shape, marked: true, composite: false, columns: None, everyone: None }
}

fn gap_at(position: Position) -> Event {
    crate::relay::gap_event(&topic(), position, GapReason::HistoryTrimmed)
}

impl Model {
    fn new(keep: usize, limit: usize, lanes: Lanes) -> Self {
        let store = Store { epoch: 1, events: Vec::new(), log: Vec::new(), head: 0, keep };
        let start = store.at(0);
        lanes.place(start);
        let mut progress = Progress::default();
        progress.place(start);
        let clients = (0..SESSIONS)
            .map(|id| Client {
                id,
                mailbox: Arc::new(Mailbox::new(Wire::Lines, None, 0)),
                key: 0,
                behind: Some(start),
                lane: LaneIndex::default(),
                at: start,
            })
            .collect();
        let (bus, summoned, reading) = (Vec::new(), Vec::new(), None);
        Self { store, bus, progress, reading, lanes, summoned, clients, limit }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Say { announced, hidden_from } => {
                let event = self.store.say(hidden_from);
                if announced {
                    self.bus.push(event);
                }
            }
            Action::Arrive { index, stays } => self.arrive(index, stays),
            Action::Check => self.look(),
            Action::Read => self.read(),
            Action::Work(index) => self.work(index),
            Action::Drain(client) => self.drain(client),
            Action::CatchUp(client) => self.catch_up(client),
            Action::Reach(client) => self.reach(client),
            Action::Resume(client) => self.resume(client),
            Action::NewEpoch => {
                self.store.epoch += 1;
                self.store.events.clear();
                self.store.head = 0;
            }
        }
    }

    fn arrive(&mut self, index: usize, stays: bool) {
        if index >= self.bus.len() {
            return;
        }
        let event = Arc::clone(&self.bus[index]);
        if !stays {
            self.bus.remove(index);
        }
        if !self.lanes.are_held() {
            let arrived = self.progress.arrive(vec![event]);
            self.take(arrived);
        }
    }

    fn take(&mut self, Arrived { ready, missing }: Arrived) {
        if self.feed_all(&ready) && missing {
            self.reading = self.progress.begin_reading();
        }
    }

    fn feed_all(&mut self, events: &[Arc<Event>]) -> bool {
        let batches: Vec<_> = events.chunks(2).map(|some| Batch::shared(some.to_vec())).collect();
        batches.into_iter().all(|batch| self.feed(&Portion::Events(Arc::new(batch))))
    }

    fn feed(&mut self, portion: &Portion) -> bool {
        match self.lanes.feed(portion, self.limit) {
            Fed::Delivered(_) => {}
            Fed::Waits(lanes) => self.summoned.extend(lanes),
            Fed::Full => return false,
        }
        self.progress.advance(portion.last());
        true
    }

    fn look(&mut self) {
        if let Some(after) = self.progress.look() {
            self.reading = Some(after);
        }
    }

    fn read(&mut self) {
        let Some(after) = self.reading.take() else { return };
        let fed = match self.store.read(after, 3) {
            Read::Events(events) if events.is_empty() => {
                let arrived = self.progress.end_reading();
                return self.take(arrived);
            }
            Read::Events(events) => self.feed_all(&events),
            Read::Lost(_) => {
                let gap = Batch::shared(vec![Arc::new(gap_at(self.store.earliest()))]);
                self.feed(&Portion::Gap(Arc::new(gap)))
            }
        };
        if fed {
            self.reading = self.progress.begin_reading();
        } else {
            self.progress.give_up();
        }
    }

    fn work(&mut self, index: usize) {
        if index >= self.summoned.len() {
            return;
        }
        let lane = self.summoned.remove(index);
        let (_, again) = lane.work(self.limit);
        if again {
            self.summoned.push(lane);
        }
        if self.lanes.is_released() {
            self.look();
        }
    }

    /// Takes what waits and checks that it follows what the client had.
    fn drain(&mut self, client: usize) {
        let client = &mut self.clients[client];
        for outgoing in client.mailbox.take() {
            let (_, position) = *outgoing.mark.expect("lines are marked");
            let is_gap = outgoing.bytes.starts_with(br#"{"type":"gap""#);
            if !is_gap {
                check_follows(client, position, &self.store);
            }
            client.at = position;
        }
        for (key, position) in client.mailbox.take_fallen() {
            if key == SubscriptionKey(client.key) {
                client.behind = Some(position);
            }
        }
    }

    fn catch_up(&mut self, client: usize) {
        self.drain(client);
        let client = &mut self.clients[client];
        let Some(after) = client.behind else { return };
        let member = Member {
            wants: None,
            session: SessionId(client.id as u64),
            key: SubscriptionKey(client.key),
            mailbox: Arc::clone(&client.mailbox),
        };
        if let Some(lane) = self.lanes.go_live(member.clone(), &form(), after) {
            client.lane = lane;
            client.behind = None;
            return;
        }
        match self.store.read(after, 2) {
            Read::Events(events) => {
                let mine = events.iter().filter(|event| event.audience.admits(member.session));
                form()
                    .encode(mine.map(within))
                    .offer_to(|outgoing| client.mailbox.offer(outgoing, usize::MAX))
                    .expect("a page is always taken");
                client.behind = Some(events.last().map_or(after, |event| event.position));
            }
            Read::Lost(head) => {
                form()
                    .encode([Arc::new(gap_at(head))].iter().map(within))
                    .offer_to(|outgoing| client.mailbox.offer(outgoing, usize::MAX))
                    .expect("the news of a gap is always taken");
                client.behind = Some(head);
            }
        }
    }

    /// All up to that place, and nothing after it, must be in what it takes then.
    fn reach(&mut self, client: usize) {
        let held = &self.clients[client];
        let (session, key) = (SessionId(held.id as u64), SubscriptionKey(held.key));
        let reached = match held.behind {
            None => {
                let lane = self.lanes.lane(held.lane).expect("a lane stays");
                lane.change(|live| live.reached(session, key))
            }
            after => after,
        };
        self.drain(client);
        let held = &mut self.clients[client];
        let Some(reached) = reached else { return };
        if reached.epoch == held.at.epoch && reached.seq > held.at.seq {
            check_follows(held, reached.next(), &self.store);
            held.at = reached;
        }
    }

    fn resume(&mut self, client: usize) {
        self.drain(client);
        let client = &mut self.clients[client];
        self.lanes.leave(client.lane, SessionId(client.id as u64), SubscriptionKey(client.key));
        client.mailbox.take_fallen();
        client.key += 1;
        client.behind = Some(client.at);
    }

    /// Everyone drains until nothing moves any more, and must then be at the head.
    fn settle(&mut self) {
        self.bus.clear();
        self.look();
        for _ in 0..self.store.events.len() + 30 {
            self.read();
            (0..SESSIONS).for_each(|_| self.work(0));
            (0..SESSIONS).for_each(|client| self.catch_up(client));
        }
        let head = self.store.at(self.store.head);
        for client in &self.clients {
            assert!(client.behind.is_none(), "session {} is not live", client.id);
            let unseen = self.store.events.iter().filter(|event| {
                event.position > client.at && event.audience.admits(SessionId(client.id as u64))
            });
            assert_eq!(unseen.count(), 0, "session {} is not at the head {head}", client.id);
            assert_eq!(client.at.epoch, head.epoch, "session {} is in an old epoch", client.id);
        }
    }
}

/// Between the client's place and the event there may only be events hidden from the client.
fn check_follows(client: &Client, position: Position, store: &Store) {
    assert_eq!(position.epoch, client.at.epoch, "an epoch changed and nobody said so");
    assert!(position.seq > client.at.seq, "a repeat: {position} after {}", client.at);
    let missed = store.log.iter().filter(|event| {
        event.position.epoch == position.epoch
            && (client.at.seq + 1..position.seq).contains(&event.position.seq)
            && event.audience.admits(SessionId(client.id as u64))
    });
    assert_eq!(missed.count(), 0, "a hole: {position} after {}", client.at);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn never_a_hole_never_a_repeat_or_told_gap(
        keep in prop_oneof![1usize..6, Just(1_000)],
        limit in 60usize..600,
        listeners in prop_oneof![1usize..SESSIONS, Just(SESSIONS + 1)],
        waiting in prop_oneof![1usize..6, Just(1_000)],
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let mut model = Model::new(keep, limit, Lanes::tiny(listeners, waiting));
        for action in actions {
            model.act(action);
        }
        model.settle();
    }
}
