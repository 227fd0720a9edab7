//! A real node over a broker that loses, repeats and reorders, many sessions, several publishers,
//! several threads: every subscriber receives each event once and in order, or is told a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidewire::broker::LocalBroker;
use tidewire::protocol::Payload;
use tidewire::{Broker, Draft, Error, Event, Inlet, Limits, Node, Position, Topic};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, SOON, keeping, topic};

const TOPICS: [&str; 2] = ["a", "b"];
const PUBLISHERS: u64 = 4;
const EVENTS: u64 = 400;
const SESSIONS: u64 = 12;

/// How often a reader that waits looks whether it is at the end.
const LOOK: Duration = Duration::from_millis(50);

/// Small, fast, and the same again for the same seed.
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    /// A number below `end`.
    fn roll(&self, end: u64) -> u64 {
        let step = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let old = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(step(x)));
        (old.expect("always some") >> 33) % end
    }
}

/// Loses some announcements, repeats some, and keeps some back for a while.
struct Storm {
    local: LocalBroker,
    dice: Dice,
    kept_back: Mutex<Vec<Arc<Event>>>,
    calm: AtomicBool,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let (local, kept_back) = (LocalBroker::default(), Mutex::default());
        Self { local, dice: Dice::new(seed), kept_back, calm: AtomicBool::new(false) }
    }

    /// What becomes of one announcement.
    fn toss(&self, event: &Arc<Event>, out: &mut Vec<Arc<Event>>) {
        let mut kept_back = self.kept_back.lock();
        match self.dice.roll(10) {
            0 | 1 => {}
            2 => out.extend([Arc::clone(event), Arc::clone(event)]),
            3 | 4 => kept_back.push(Arc::clone(event)),
            _ => out.push(Arc::clone(event)),
        }
        if kept_back.len() > 5 {
            let index = self.dice.roll(kept_back.len() as u64) as usize;
            out.insert(0, kept_back.swap_remove(index));
        }
    }
}

#[async_trait]
impl Broker for Storm {
    fn attach(&self, inlet: Inlet) {
        self.local.attach(inlet);
    }

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        if self.calm.load(Ordering::SeqCst) {
            return self.local.announce(events).await;
        }
        let mut out = Vec::new();
        for event in events {
            self.toss(event, &mut out);
        }
        self.local.announce(&out).await
    }

    async fn follow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }
}

/// Everything that was said, by topic and place.
type Log = Arc<Mutex<HashMap<(&'static str, u64), String>>>;

/// Where each topic ends, once that is known.
type Ends = Arc<Mutex<HashMap<&'static str, Position>>>;

/// One subscriber of one topic and what it has seen.
struct Reader {
    client: Client,
    topic: &'static str,
    at: Position,
    /// What it received: each place once.
    seen: HashMap<u64, String>,
    gaps: u64,
}

impl Reader {
    async fn open(node: &Node, topic: &'static str) -> Self {
        let mut client = Client::open(node);
        let answer = client.subscribe(topic).await;
        let at = place(&answer);
        Self { client, topic, at, seen: HashMap::new(), gaps: 0 }
    }

    /// Takes in one frame; the rule of the whole program is checked here.
    fn take_in(&mut self, frame: &Value) {
        let at = place(frame);
        match frame["type"].as_str() {
            Some("event") => {
                assert_eq!(at, self.at.next(), "an event came after {}", self.at);
                let content = frame["data"].as_str().expect("a text").to_owned();
                assert_eq!(self.seen.insert(at.seq, content), None, "an event came twice");
            }
            Some("gap") => {
                assert!(at >= self.at, "a gap leads from {} back to {at}", self.at);
                self.gaps += 1;
            }
            _ => panic!("an event or a gap should come, not {frame}"),
        }
        self.at = at;
    }

    /// Loses its connection and comes back with its place.
    async fn come_back(&mut self, node: &Node) {
        self.client = Client::open(node);
        let answer = self.client.resume(self.topic, &self.at.to_string().into()).await;
        match answer["outcome"].as_str() {
            Some("resumed") => assert_eq!(place(&answer), self.at),
            Some("gap") => self.gaps += 1,
            _ => panic!("a resume should be answered with resumed or gap, not {answer}"),
        }
        self.at = place(&answer);
    }

    /// Reads at its own pace until it is at the end.
    async fn read(mut self, node: Node, dice: Dice, ends: Ends) -> Self {
        let deadline = Instant::now() + SOON;
        while ends.lock().get(self.topic) != Some(&self.at) {
            let (at, topic) = (self.at, self.topic);
            assert!(Instant::now() < deadline, "stuck at {at} of {topic}, which ends: {ends:?}");
            // What is still waited for may be known to be the end only now.
            let Ok(frame) = timeout(LOOK, self.client.next()).await else { continue };
            self.take_in(&frame);
            match dice.roll(60) {
                0 => self.come_back(&node).await,
                1..4 => sleep(Duration::from_millis(dice.roll(4))).await,
                _ => {}
            }
        }
        self
    }
}

fn place(frame: &Value) -> Position {
    frame["position"].as_str().expect("a position").parse().expect("a position")
}

async fn say(node: &Node, log: &Log, name: &'static str, contents: Vec<String>) -> Position {
    let drafts = contents.iter();
    let drafts =
        drafts.map(|text| Draft::message(topic(name), Payload::Text(text.as_str().into())));
    let results = node.publisher().publish(drafts.collect()).await;
    let events = results.into_iter().map(|result| result.expect("a history that works"));
    let positions: Vec<_> = events.map(|event| event.position).collect();
    let places = positions.iter().map(|position| (name, position.seq));
    log.lock().extend(places.zip(contents));
    *positions.last().expect("something is said")
}

async fn publish_all(node: Node, log: Log, publisher: u64, dice: Dice) {
    let mut said = 0;
    while said < EVENTS {
        let count = 1 + dice.roll(4);
        let contents = (said..said + count).map(|number| format!("{publisher} {number}"));
        let name = TOPICS[dice.roll(2) as usize];
        say(&node, &log, name, contents.collect()).await;
        said += count;
        match dice.roll(4) {
            0 => sleep(Duration::from_millis(1)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// One storm; gives how many gaps were told in all.
async fn storm(seed: u64, keep: usize, mailbox_bytes: usize) -> u64 {
    let broker = Arc::new(Storm::new(seed));
    let limits = Limits { mailbox_bytes, burst: 1_000_000, ..Limits::default() };
    let node = Node::builder()
        .limits(limits)
        .history(Arc::new(keeping(keep)))
        .broker(Arc::clone(&broker) as _)
        .start();
    let (log, ends) = (Log::default(), Ends::default());
    let mut readers = JoinSet::new();
    for session in 0..SESSIONS {
        let reader = Reader::open(&node, TOPICS[session as usize % 2]).await;
        let dice = Dice::new(seed * 100 + session);
        readers.spawn(reader.read(node.clone(), dice, Arc::clone(&ends)));
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let dice = Dice::new(seed * 1_000 + publisher);
        publishers.spawn(publish_all(node.clone(), Arc::clone(&log), publisher, dice));
    }
    publishers.join_all().await;
    broker.calm.store(true, Ordering::SeqCst);
    for name in TOPICS {
        let end = say(&node, &log, name, vec!["last".to_owned()]).await;
        ends.lock().insert(name, end);
    }
    let readers = readers.join_all().await;
    node.shutdown(Duration::ZERO, Duration::from_millis(100)).await;
    let log = log.lock();
    for reader in &readers {
        for (seq, content) in &reader.seen {
            assert_eq!(log.get(&(reader.topic, *seq)), Some(content), "an event is what was said");
        }
        if reader.gaps == 0 {
            let all = log.keys().filter(|(name, _)| *name == reader.topic).count();
            assert_eq!(reader.seen.len(), all, "who was told no gap has everything");
        }
    }
    readers.iter().map(|reader| reader.gaps).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_long_history_everyone_receives_everything_once_and_in_order() {
    for seed in 1..=6 {
        let gaps = storm(seed, 100_000, 300 + 400 * seed as usize).await;
        assert_eq!(gaps, 0, "nothing was lost, so nobody should be told so");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_short_history_everyone_receives_everything_or_is_told_a_gap() {
    let mut gaps = 0;
    for seed in 1..=6 {
        gaps += storm(seed, 4 + 8 * seed as usize, 300).await;
    }
    assert!(gaps > 0, "a history this short should lose something, or this shows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_history_everyone_is_told_what_was_lost() {
    for seed in 1..=3 {
        storm(seed, 0, 2_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_publish_receive_each_other_in_one_order() {
    let node = Node::builder().history(Arc::new(keeping(10_000))).start();
    let mut tasks = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::open(&node);
        client.subscribe("a").await;
        clients.push(client);
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        tasks.spawn(async move {
            for turn in 0..25 {
                let data = format!("{number} {turn}");
                client.ask(json!({"type": "publish", "topic": "a", "data": data})).await;
            }
            client.contents(150).await
        });
    }
    let seen = tasks.join_all().await;
    assert!(seen.iter().all(|contents| *contents == seen[0]), "all should see the same order");
}
