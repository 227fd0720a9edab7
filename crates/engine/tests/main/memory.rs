//! The history in memory: what it lets go of, it says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use proptest::prelude::*;
use serde_json::json;
use tidewire::history::{HistoryLimits, MemoryHistory, MemorySettings};
use tidewire::protocol::Payload;
use tidewire::{Draft, Event, History, Namespace, Namespaces, Page, Position};

use crate::support::{Client, topic};

const TOPICS: usize = 4;

#[derive(Clone, Debug)]
enum Action {
    /// Events of so many bytes each.
    Say { topic: usize, count: usize, bytes: usize },
    /// Someone remembers where the topic is.
    Remember { topic: usize },
    /// Everyone on the topic comes back to where they were.
    Resume { topic: usize },
    /// Someone looks at it, as the relay does.
    Look { topic: usize },
    /// Time passes, and the ticker ticks.
    Pass { seconds: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let topic = 0..TOPICS;
    prop_oneof![
        6 => (topic.clone(), 1usize..8, 0usize..800)
            .prop_map(|(topic, count, bytes)| Action::Say { topic, count, bytes }),
        3 => topic.clone().prop_map(|topic| Action::Remember { topic }),
        3 => topic.clone().prop_map(|topic| Action::Resume { topic }),
        1 => topic.prop_map(|topic| Action::Look { topic }),
        3 => prop_oneof![Just(1u64), Just(61), Just(601), Just(3_601)]
            .prop_map(|seconds| Action::Pass { seconds }),
    ]
}

struct Model {
    history: MemoryHistory,
    total: usize,
    topics: usize,
    /// Everything ever said on each topic.
    said: HashMap<usize, Vec<Arc<Event>>>,
    /// Places, and how much was said before them.
    remembered: Vec<(usize, Position, usize)>,
}

fn name(index: usize) -> tidewire::Topic {
    topic(&format!("topic {index}"))
}

impl Model {
    /// A history that keeps `events` events of each topic and `total` bytes in all, of `topics`
    /// topics.
    fn new(events: usize, total: usize, topics: usize) -> Self {
        let limits = HistoryLimits { events, ..HistoryLimits::default() };
        let namespaces = Namespaces::new(Vec::new(), limits, false);
        let settings = MemorySettings { total_bytes: total, topics, ..MemorySettings::default() };
        let history = MemoryHistory::new(settings, Arc::new(RwLock::new(Arc::new(namespaces))));
        Self { history, total, topics, said: HashMap::new(), remembered: Vec::new() }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Say { topic, count, bytes } => self.say(topic, count, bytes).await,
            Action::Remember { topic } => self.remember(topic).await,
            Action::Resume { topic } => self.resume(topic).await,
            Action::Look { topic } => {
                self.history.earliest(&name(topic)).await.expect("memory");
            }
            Action::Pass { seconds } => {
                tokio::time::advance(Duration::from_secs(seconds)).await;
                self.history.tick();
            }
        }
        let (bytes, _) = self.history.bytes();
        assert!(bytes <= self.total, "{bytes} bytes are kept, which is more than {}", self.total);
        let topics = self.history.topics();
        assert!(topics <= self.topics, "there are {topics} topics");
    }

    /// What came of something that a new topic may be refused for.
    fn unless_refused<T>(&self, result: Result<T, tidewire::Error>) -> Option<T> {
        let refused = |error: tidewire::Error| {
            assert_eq!(error.kind(), tidewire::error::Kind::Full);
            assert_eq!(self.history.topics(), self.topics, "there was a place");
        };
        result.map_err(refused).ok()
    }

    async fn say(&mut self, topic: usize, count: usize, bytes: usize) {
        let payload = Payload::Text("x".repeat(bytes).into());
        let draft = Draft::message(name(topic), payload);
        for result in self.history.append(vec![draft; count]).await {
            let Some(event) = self.unless_refused(result) else { continue };
            let said = self.said.entry(topic).or_default();
            let last = said.last().map(|event| event.position);
            assert!(last.is_none_or(|last| last < event.position), "numbers began again");
            said.push(event);
        }
    }

    async fn remember(&mut self, topic: usize) {
        let head = self.history.head(&name(topic)).await;
        let Some(head) = self.unless_refused(head) else { return };
        let before = self.said.get(&topic).map_or(0, Vec::len);
        self.remembered.push((topic, head, before));
    }

    async fn resume(&mut self, topic: usize) {
        let nothing = Vec::new();
        let said = self.said.get(&topic).unwrap_or(&nothing);
        for (_, place, before) in self.remembered.iter().filter(|(on, ..)| *on == topic) {
            let page = self.history.read(&name(topic), *place, usize::MAX).await;
            let Page::Events(events) = page.expect("memory") else { continue };
            let missed: Vec<_> = said[*before..].iter().map(|event| event.position).collect();
            let told: Vec<_> = events.iter().map(|event| event.position).collect();
            assert_eq!(told, missed, "who is resumed is told all that was said since");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn who_is_resumed_missed_nothing_and_memory_has_its_limit(
        events in prop_oneof![0usize..4, Just(1_000)],
        total in 4_000usize..20_000,
        topics in 2..=TOPICS,
        actions in prop::collection::vec(action(), 1..80),
    ) {
        run(async {
            let mut model = Model::new(events, total, topics);
            for action in actions {
                model.act(action).await;
            }
        });
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

fn in_memory(settings: MemorySettings) -> MemoryHistory {
    MemoryHistory::new(settings, Arc::default())
}

async fn say(history: &MemoryHistory, name: &str, bytes: usize) -> Position {
    let draft = Draft::message(topic(name), Payload::Text("x".repeat(bytes).into()));
    history.append(vec![draft]).await.remove(0).expect("memory").position
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_dropped_never_begins_its_numbers_again() {
    let limits = HistoryLimits { events: 0, ..HistoryLimits::default() };
    let namespaces = Arc::new(RwLock::new(Arc::new(Namespaces::new(Vec::new(), limits, false))));
    let history = MemoryHistory::new(MemorySettings::default(), namespaces);
    let mut last = say(&history, "a", 10).await;
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(3_601)).await;
        history.tick();
        assert_eq!(history.topics(), 0);
        let next = say(&history, "a", 10).await;
        assert!(next > last);
        last = next;
    }
}

#[tokio::test(start_paused = true)]
async fn to_ask_about_a_topic_keeps_nothing() {
    let history = in_memory(MemorySettings::default());
    let place = say(&history, "a", 10).await;
    let bytes = history.bytes();
    for number in 0..100 {
        let topic = topic(&format!("unknown {number}"));
        history.read(&topic, place, 10).await.expect("memory");
        history.read_back(&topic, None, 10).await.expect("memory");
        history.earliest(&topic).await.expect("memory");
    }
    assert_eq!((history.topics(), history.bytes()), (1, bytes));
}

#[tokio::test(start_paused = true)]
async fn topics_count_as_memory_and_go_soon_when_it_is_short() {
    let settings = MemorySettings { total_bytes: 100_000, ..MemorySettings::default() };
    let history = in_memory(settings);
    for number in 0..1_000 {
        history.head(&topic(&format!("topic {number}"))).await.expect("memory");
    }
    assert!(history.bytes().1 > 100_000, "a thousand topics are not for nothing");
    tokio::time::advance(Duration::from_secs(61)).await;
    history.tick();
    assert_eq!((history.topics(), history.bytes()), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn topics_that_nobody_asked_about_go_at_once_when_memory_is_short() {
    let limits = HistoryLimits { events: 0, ..HistoryLimits::default() };
    let namespaces = Arc::new(RwLock::new(Arc::new(Namespaces::new(Vec::new(), limits, false))));
    let settings = MemorySettings { total_bytes: 100_000, ..MemorySettings::default() };
    let history = MemoryHistory::new(settings, namespaces);
    history.head(&topic("listened to")).await.expect("memory");
    for number in 0..1_000 {
        say(&history, &format!("topic {number}"), 10).await;
    }
    history.tick();
    assert_eq!(history.topics(), 1, "only the one that someone may listen to");
}

#[tokio::test(start_paused = true)]
async fn a_new_topic_takes_the_place_of_one_that_was_idle_for_a_minute() {
    let history = in_memory(MemorySettings { topics: 2, ..MemorySettings::default() });
    let old = say(&history, "old", 10).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let kept = say(&history, "kept", 10).await;
    let new = say(&history, "new", 10).await;
    assert_eq!(history.topics(), 2);
    let page = history.read(&topic("kept"), kept.before(), 10).await.expect("memory");
    assert!(matches!(page, Page::Events(events) if events.len() == 1));
    let page = history.read(&topic("new"), new.before(), 10).await.expect("memory");
    assert!(matches!(page, Page::Events(events) if events.len() == 1));
    let page = history.read(&topic("old"), old.before(), 10).await.expect("memory");
    assert!(matches!(page, Page::Lost { .. }), "what was forgotten is said to be lost");
    assert_eq!(history.bytes().0, 2 * (10 + 200) + "kept".len() + "new".len());
}

#[tokio::test(start_paused = true)]
async fn a_topic_too_many_is_refused_until_another_is_idle() {
    let settings = MemorySettings { topics: 10, ..MemorySettings::default() };
    let node = tidewire::Node::builder().memory(settings).start();
    let mut client = Client::open(&node);
    for number in 0..10 {
        client.subscribe(&format!("topic {number}")).await;
    }
    let subscribe = json!({"type": "subscribe", "topic": "more"});
    let publish = json!({"type": "publish", "topic": "more", "data": 1});
    for request in [subscribe, publish] {
        let answer = client.ask(request).await;
        assert_eq!(answer["code"], "too_many_topics", "{answer}");
        assert_eq!(answer["topic"], "more", "{answer}");
    }
    assert_eq!(node.metrics().topics_refused.get(), 2);
    // Those that are here go on, and so does what clients do not name.
    let answer = client.ask(json!({"type": "publish", "topic": "topic 0", "data": 1})).await;
    assert_eq!(answer["type"], "published", "{answer}");
    client.ask(json!({"type": "unsubscribe", "topic": "topic 9"})).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let answer = client.subscribe("more").await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(node.metrics().topics_displaced.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_event_on_a_small_topic_is_kept_when_memory_is_full() {
    let settings = MemorySettings { total_bytes: 100_000, ..MemorySettings::default() };
    let history = in_memory(settings);
    for number in 0..2_000 {
        say(&history, &format!("large {}", number % 5), 100).await;
    }
    for number in 0..100 {
        let name = format!("small {number}");
        let place = say(&history, &name, 100).await;
        let page = history.read(&topic(&name), place.before(), 10).await.expect("memory");
        assert!(matches!(page, Page::Events(events) if events.len() == 1));
        assert!(history.bytes().0 <= 100_000);
    }
}

#[tokio::test(start_paused = true)]
async fn other_rules_hold_for_topics_that_are_there() {
    let namespaces = Arc::new(RwLock::new(Arc::new(Namespaces::default())));
    let history = MemoryHistory::new(MemorySettings::default(), Arc::clone(&namespaces));
    for _ in 0..10 {
        say(&history, "a", 10).await;
    }
    let pattern = "a".parse().expect("a pattern");
    let namespace = Namespace { events: Some(3), ..Namespace::of(pattern) };
    let rules = Namespaces::new(vec![namespace], HistoryLimits::default(), false);
    *namespaces.write() = Arc::new(rules);
    history.tick();
    let back = history.read_back(&topic("a"), None, 100).await.expect("memory");
    assert!(matches!(back, Page::Events(events) if events.len() == 3));
}

#[tokio::test]
async fn other_limits_hold_for_topics_that_are_here_already() {
    let limits = |events| {
        let limits = HistoryLimits { events, ..HistoryLimits::default() };
        Arc::new(Namespaces::new(Vec::new(), limits, false))
    };
    let namespaces = Arc::new(RwLock::new(limits(100)));
    let history = MemoryHistory::new(MemorySettings::default(), Arc::clone(&namespaces));
    let (said, topics) = (HashMap::new(), usize::MAX);
    let mut model = Model { history, total: usize::MAX, topics, said, remembered: vec![] };
    model.say(0, 10, 1).await;
    let kept = async || match model.history.read_back(&name(0), None, 100).await {
        Ok(tidewire::history::Page::Events(events)) => events.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kept().await, 10);
    *namespaces.write() = limits(3);
    model.history.tick();
    assert_eq!(kept().await, 3);
}
