//! Listeners for whom nothing is said keep their place while the topic moves on.

use std::time::Duration;

use parking_lot::RwLock;
use proptest::prelude::*;
use tidewire::history::HistoryLimits;
use tidewire::protocol::dialect::Native;
use tidewire::protocol::{Frame, Wire};
use tidewire::{Identity, Limits, Namespaces, Opening};
use tokio::time::sleep;

use super::*;
use crate::support;

/// For clients that neither say nor take anything for long.
fn patient() -> Limits {
    let [ping_interval, idle_timeout, write_timeout] = [Duration::from_secs(86_400); 3];
    Limits { ping_interval, idle_timeout, write_timeout, ..Limits::default() }
}

/// A node that keeps so few events of each topic.
fn keeping(events: usize) -> (Node, Arc<Database>) {
    let kept = HistoryLimits { events, ..HistoryLimits::default() };
    let namespaces = Namespaces::new(Vec::new(), kept, true);
    let builder = Node::builder().namespaces(Arc::new(RwLock::new(Arc::new(namespaces))));
    let prepared = builder.limits(patient()).prepare();
    let database = Database::new(prepared.publisher().clone());
    (prepared.upstream(TopicKind::Table, Arc::clone(&database) as _).start(), database)
}

fn open(node: &Node) -> Client {
    Client::with(node, Wire::WebSocket, Identity::everything())
}

async fn insert(database: &Database, ids: std::ops::Range<u64>, state: &str) {
    for id in ids {
        database.commit_and_publish(id, Some(state)).await;
    }
}

/// Long enough for everyone to have been looked at.
async fn a_tick() {
    sleep(Duration::from_millis(1_100)).await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_never_matches_loses_no_place_while_the_history_turns_over() {
    for filter in ["state=eq.paid", "slow state=eq.paid"] {
        let (node, database) = keeping(40);
        let mut client = open(&node);
        let answer = subscribe(&mut client, json!({"filter": filter})).await;
        let mut place = answer["position"].clone();
        for round in 0..50 {
            insert(&database, 10 * round..10 * round + 10, "new").await;
            a_tick().await;
            for frame in client.everything().await {
                assert_eq!((&frame["type"], &frame["table"]), (&json!("bookmark"), &json!(TABLE)));
                assert_ne!(frame["position"], place, "a place is told once");
                place = frame["position"].clone();
            }
        }
        drop(client);
        insert(&database, 500..505, "new").await;
        insert(&database, 505..506, "paid").await;
        let mut client = open(&node);
        let answer = subscribe(&mut client, json!({"filter": filter, "since": place})).await;
        assert_eq!(answer["outcome"], "resumed", "500 events have passed and 40 are kept");
        assert_eq!(told(&mut client).await.1["id"], 505);
        assert!(node.metrics().bookmarks.get() >= 50 * 10 / 20);
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_minute_of_little_that_is_for_others_is_told_too() {
    let (node, database) = keeping(1_000);
    let mut client = open(&node);
    subscribe(&mut client, json!({"filter": "state=eq.paid"})).await;
    sleep(Duration::from_secs(100)).await;
    assert!(client.everything().await.is_empty(), "the topic has not moved");
    insert(&database, 0..1, "new").await;
    sleep(Duration::from_secs(29)).await;
    assert!(client.everything().await.is_empty());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(client.next().await["type"], "bookmark");
    sleep(Duration::from_secs(100)).await;
    assert!(client.everything().await.is_empty(), "nor has it since");
}

#[tokio::test(start_paused = true)]
async fn who_catches_up_with_what_is_not_for_it_moves_on_in_between() {
    let (node, database) = keeping(1_000);
    let mut first = open(&node);
    let start = subscribe(&mut first, json!({})).await["position"].clone();
    insert(&database, 0..900, "new").await;
    let mut client = open(&node);
    let wish = json!({"filter": "state=eq.paid", "since": start});
    assert_eq!(subscribe(&mut client, wish).await["outcome"], "resumed");
    let frames = client.everything().await;
    assert!((3..=4).contains(&frames.len()), "one for each quarter of the history: {frames:?}");
    assert!(frames.iter().all(|frame| frame["type"] == "bookmark"));
}

#[tokio::test(start_paused = true)]
async fn who_hears_all_that_is_said_is_not_told_places() {
    let (node, database) = keeping(40);
    let (mut all, mut matching) = (open(&node), open(&node));
    subscribe(&mut all, json!({})).await;
    subscribe(&mut matching, json!({"filter": "state=eq.paid"})).await;
    for round in 0..10 {
        insert(&database, 100 * round..100 * round + 20, "paid").await;
        a_tick().await;
    }
    for mut client in [all, matching] {
        let frames = client.everything().await;
        assert_eq!(frames.len(), 200);
        assert!(frames.iter().all(|frame| frame["type"] == "change"));
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_all_that_is_said_and_does_not_hear_it_keeps_its_place() {
    let (node, _) = keeping(40);
    let (mut speaker, mut other) = (open(&node), open(&node));
    let mut place = speaker.subscribe("room").await["position"].clone();
    other.subscribe("room").await;
    for _ in 0..20 {
        for _ in 0..10 {
            let words = json!({"type": "publish", "topic": "room", "data": 1, "echo": false});
            speaker.say(&words).await.expect("the session goes on");
        }
        a_tick().await;
        for frame in speaker.everything().await {
            assert_eq!((&frame["type"], &frame["topic"]), (&json!("bookmark"), &json!("room")));
            place = frame["position"].clone();
        }
    }
    drop(speaker);
    support::publish(&node, "room", "after").await;
    let mut speaker = open(&node);
    assert_eq!(speaker.resume("room", &place).await["outcome"], "resumed");
    let heard = speaker.everything().await;
    assert_eq!(heard.last().expect("at least the last event")["data"], "after");
    assert!(other.everything().await.iter().all(|frame| frame["type"] == "event"));
}

#[tokio::test(start_paused = true)]
async fn on_a_stream_a_place_is_an_id_without_an_event() {
    let (node, database) = keeping(40);
    let opening = Opening::new(Arc::new(Native), Wire::EventStream, Identity::everything());
    let mut alone = node.open(opening).expect("there is room");
    let opening = Opening::new(Arc::new(Native), Wire::EventStream, Identity::everything());
    let mut several = node.open(opening.composite()).expect("there is room");
    for session in [&mut alone, &mut several] {
        let wish = json!({"type": "subscribe", "table": TABLE, "filter": "state=eq.paid"});
        session.receive(Frame::text(wish.to_string())).await.expect("the session goes on");
        session.take();
    }
    insert(&database, 0..20, "new").await;
    a_tick().await;
    let head = node.history().head(&table()).await.expect("a history that works");
    let [told] = &alone.take()[..] else { panic!("one place should be told") };
    assert_eq!(told.bytes, format!("id: {head}\n\n"));
    let [told] = &several.take()[..] else { panic!("one place should be told") };
    assert_eq!(told.bytes, "\n", "the transport writes its own id before it");
    assert_eq!(**told.mark.as_ref().expect("a mark"), (table(), head));
}

#[tokio::test(start_paused = true)]
async fn a_session_knows_where_it_is_though_nothing_was_for_it() {
    let (node, database) = keeping(40);
    let mut client = Client::open(&node);
    subscribe(&mut client, json!({"filter": "state=eq.paid"})).await;
    insert(&database, 0..100, "new").await;
    assert!(client.everything().await.is_empty());
    let head = node.history().head(&table()).await.expect("a history that works");
    assert_eq!(client.session.reached(), [(table(), head)]);
}

#[derive(Clone, Debug)]
enum Action {
    /// Rows of which each is the listener's or not.
    Say(Vec<bool>),
    Tick,
    /// The listener takes what waits.
    Hear,
    /// The listener goes away and comes back with the last place that it knows.
    Return,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(prop::bool::weighted(0.1), 1..12).prop_map(Action::Say),
        3 => Just(Action::Tick),
        3 => Just(Action::Hear),
        1 => Just(Action::Return),
    ]
}

/// One listener with a filter, and what it should have heard.
struct Listener {
    client: Client,
    place: Json,
    due: std::collections::VecDeque<u64>,
}

impl Listener {
    async fn join(node: &Node, place: Json) -> (Client, Json) {
        let mut client = open(node);
        let wish = json!({"filter": "state=eq.paid", "since": place});
        let answer = subscribe(&mut client, wish).await;
        (client, answer)
    }

    /// A change must be the next that is due; a place must come after all that are due before it.
    async fn hear(&mut self, database: &Database) {
        for frame in self.client.everything().await {
            self.place = frame["position"].clone();
            match frame["type"].as_str() {
                Some("change") => {
                    let id = frame["record"]["id"].as_u64();
                    assert_eq!(id, self.due.pop_front(), "out of turn: {frame}");
                }
                Some("bookmark") => {
                    let place = self.place.as_str().expect("a place");
                    let seq = place.split_once('-').expect("a place has a number").1;
                    let seq: u64 = seq.parse().expect("a number");
                    // The n-th event inserts the row n-1.
                    assert!(self.due.front().is_none_or(|due| *due >= seq), "{frame} hides one");
                    assert!(seq <= database.rows().len() as u64);
                }
                other => panic!("unexpected {other:?}: {frame}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_place_hides_anything_from_a_listener_that_comes_back_to_it(
        actions in prop::collection::vec(action(), 1..40),
        mailbox in prop_oneof![Just(300_usize), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let limits = Limits { mailbox_bytes: mailbox, ..patient() };
            // Kept is everything, but a place is told after eight events already.
            let kept = HistoryLimits { events: 100_000, bytes: 8 * 4 * 400, ..HistoryLimits::default() };
            let namespaces = Arc::new(RwLock::new(Arc::new(Namespaces::new(Vec::new(), kept, true))));
            let history = Arc::new(support::keeping(100_000));
            let builder = Node::builder().namespaces(namespaces).history(history).limits(limits);
            let prepared = builder.prepare();
            let database = Database::new(prepared.publisher().clone());
            let node = prepared.upstream(TopicKind::Table, Arc::clone(&database) as _).start();
            let (client, answer) = Listener::join(&node, json!("now")).await;
            let place = answer["position"].clone();
            let mut listener = Listener { client, place, due: Default::default() };
            let mut id = 0;
            for action in actions {
                match action {
                    Action::Say(rows) => {
                        for mine in rows {
                            let state = if mine { "paid" } else { "new" };
                            database.commit(id, Some(state));
                            listener.due.extend(mine.then_some(id));
                            id += 1;
                        }
                        database.publish(usize::MAX).await;
                    }
                    Action::Tick => a_tick().await,
                    Action::Hear => listener.hear(&database).await,
                    Action::Return => {
                        listener.hear(&database).await;
                        let (client, answer) = Listener::join(&node, listener.place.clone()).await;
                        assert_eq!(answer["outcome"], "resumed");
                        listener.client = client;
                    }
                }
            }
            a_tick().await;
            listener.hear(&database).await;
            assert!(listener.due.is_empty(), "{:?} never came", listener.due);
        });
    }
}
