//! Nothing is left behind, whatever clients do.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use tidewire::{Limits, Node};

use crate::support::{Client, publish, until};

const CLIENTS: usize = 4;
const TOPICS: usize = 3;

#[derive(Clone, Debug)]
enum Action {
    Subscribe { client: usize, topic: usize, presence: bool, since: bool },
    Unsubscribe { client: usize, topic: usize },
    Track { client: usize, topic: usize },
    Publish { topic: usize },
    Read { client: usize },
    Drop { client: usize },
    Pass { seconds: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let (client, topic) = (0..CLIENTS, 0..TOPICS);
    prop_oneof![
        4 => (client.clone(), topic.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(client, topic, presence, since)| Action::Subscribe { client, topic, presence, since }
        ),
        2 => (client.clone(), topic.clone())
            .prop_map(|(client, topic)| Action::Unsubscribe { client, topic }),
        1 => (client.clone(), topic.clone())
            .prop_map(|(client, topic)| Action::Track { client, topic }),
        4 => topic.prop_map(|topic| Action::Publish { topic }),
        2 => client.clone().prop_map(|client| Action::Read { client }),
        1 => client.prop_map(|client| Action::Drop { client }),
        1 => (0u64..8).prop_map(|seconds| Action::Pass { seconds }),
    ]
}

/// What the model knows of a client.
struct Known {
    client: Client,
    topics: [bool; TOPICS],
    tracked: [bool; TOPICS],
}

impl Known {
    fn open(node: &Node) -> Self {
        Self { client: Client::open(node), topics: [false; TOPICS], tracked: [false; TOPICS] }
    }
}

fn count(known: &[Known], flags: impl Fn(&Known) -> &[bool; TOPICS]) -> usize {
    known.iter().flat_map(flags).filter(|flag| **flag).count()
}

async fn run(actions: Vec<Action>) {
    let limits = Limits { mailbox_bytes: 400, burst: 10_000, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut known: Vec<_> = (0..CLIENTS).map(|_| Known::open(&node)).collect();
    for action in actions {
        act(&node, &mut known, action).await;
        assert_eq!(node.stats().connections, CLIENTS);
        assert_eq!(node.stats().subscriptions, count(&known, |known| &known.topics));
    }
    until("everyone who is tracked is counted", || {
        node.metrics().members.get() as usize == count(&known, |known| &known.tracked)
    })
    .await;
    drop(known);
    until("nothing is left", || {
        let stats = node.stats();
        let left = (stats.connections, stats.subscriptions, stats.topics);
        left == (0, 0, 0) && node.metrics().members.get() == 0
    })
    .await;
    node.shutdown(Duration::ZERO, Duration::from_secs(1)).await;
}

async fn act(node: &Node, known: &mut [Known], action: Action) {
    match action {
        Action::Subscribe { client, topic, presence, since } => {
            let since = if since { "earliest" } else { "now" };
            let request = json!({
                "type": "subscribe", "topic": name(topic), "presence": presence, "since": since,
            });
            let answer = known[client].client.ask(request).await;
            assert_eq!(answer["type"], "subscribed", "{answer}");
            known[client].topics[topic] = true;
        }
        Action::Unsubscribe { client, topic } => {
            known[client].client.ask(json!({"type": "unsubscribe", "topic": name(topic)})).await;
            known[client].topics[topic] = false;
        }
        Action::Track { client, topic } => {
            let request = json!({"type": "track", "topic": name(topic)});
            let answer = known[client].client.ask(request).await;
            assert_eq!(answer["type"] == "tracked", known[client].topics[topic], "{answer}");
            known[client].tracked[topic] |= known[client].topics[topic];
        }
        Action::Publish { topic } => {
            publish(node, &name(topic), &"x".repeat(100)).await;
        }
        Action::Read { client } => {
            known[client].client.rest();
        }
        Action::Drop { client } => known[client] = Known::open(node),
        Action::Pass { seconds } => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
}

fn name(topic: usize) -> String {
    format!("topic {topic}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_clients_leave_behind_is_nothing(actions in prop::collection::vec(action(), 1..60)) {
        // Clients that are never read for half a minute end, so runs are shorter than that.
        let slept: u64 = actions.iter().map(|action| match action {
            Action::Pass { seconds } => *seconds,
            _ => 0,
        }).sum();
        prop_assume!(slept < 25);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(actions));
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_delivered_counts_as_a_delivery() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    let start = client.subscribe("a").await["position"].take();
    for _ in 0..5 {
        client.ask(json!({"type": "publish", "topic": "a", "data": 1, "echo": false})).await;
    }
    publish(&node, "a", "heard").await;
    assert_eq!(client.contents(1).await, ["heard"]);
    assert_eq!(node.stats().deliveries, 1);
    client.resume("a", &start).await;
    assert_eq!(client.contents(1).await, ["heard"]);
    assert_eq!(node.stats().deliveries, 2);
}
