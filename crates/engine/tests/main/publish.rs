//! Publishing through sessions.

use serde_json::json;
use tidewire::{Identity, Limits, Node};

use crate::support::Client;

#[tokio::test(start_paused = true)]
async fn who_publishes_without_echo_is_the_only_one_not_to_hear_it() {
    let node = Node::builder().start();
    let (mut sender, mut other) = (Client::open(&node), Client::open(&node));
    let start = sender.subscribe("a").await["position"].take();
    other.subscribe("a").await;
    let quiet = json!({"type": "publish", "topic": "a", "data": 1, "echo": false});
    assert_eq!(sender.ask(quiet.clone()).await["type"], "published");
    sender.ask(json!({"type": "publish", "topic": "a", "data": 2})).await;
    sender.ask(quiet).await;
    assert_eq!(other.contents(3).await, [1, 2, 1]);
    assert_eq!(sender.contents(1).await, [2]);
    sender.hears_nothing().await;

    // What was not for it is no hole when it goes back.
    assert_eq!(sender.resume("a", &start).await["outcome"], "resumed");
    assert_eq!(sender.contents(1).await, [2]);
    sender.hears_nothing().await;
    other.ask(json!({"type": "publish", "topic": "a", "data": 3})).await;
    assert_eq!(sender.contents(1).await, [3]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_carries_the_place_of_the_event() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    let answer = client.ask(json!({"type": "publish", "topic": "a", "data": {"b": [1]}})).await;
    let event = client.event().await;
    assert_eq!(answer["position"], event["position"]);
    assert_eq!(event["data"], json!({"b": [1]}));
}

#[tokio::test(start_paused = true)]
async fn a_publication_without_an_id_is_answered_only_when_refused() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.say(&json!({"type": "publish", "topic": "a", "data": 1})).await.unwrap();
    client.hears_nothing().await;
    let long = "x".repeat(Limits::default().payload_bytes);
    client.say(&json!({"type": "publish", "topic": "a", "data": long})).await.unwrap();
    let refused = client.next().await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("too_large")));
    assert_eq!(refused["topic"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_is_repeated_with_its_key_is_said_once() {
    let node = Node::builder().start();
    let (mut client, mut other) = (Client::open(&node), Client::open(&node));
    client.subscribe("a").await;
    let request = json!({"type": "publish", "topic": "a", "data": 1, "key": "once"});
    let first = client.ask(request.clone()).await;
    let again = client.ask(request.clone()).await;
    // As after a lost connection: another session of the same subject.
    let elsewhere = other.ask(request).await;
    assert_eq!(first["position"], again["position"]);
    assert_eq!(first["position"], elsewhere["position"]);
    let reused = json!({"type": "publish", "topic": "a", "data": 2, "key": "once"});
    assert_eq!(client.ask(reused).await["code"], "key_reused");
    assert_eq!(client.contents(1).await, [1]);
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_listeners_can_be_published_on() {
    let node = Node::builder().start();
    let mut client = Client::with(&node, tidewire::protocol::Wire::Lines, Identity::everything());
    let answer = client.ask(json!({"type": "publish", "topic": "a", "data": null})).await;
    assert_eq!(answer["type"], "published");
    assert_eq!((node.stats().events, node.stats().topics), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_channel_needs_its_source() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    for kind in ["publish", "subscribe"] {
        let mut request = json!({"type": kind, "notify": "orders"});
        if kind == "publish" {
            request["data"] = json!("x");
        }
        assert_eq!(client.ask(request).await["code"], "not_configured");
    }
    client.hears_nothing().await;
    assert_eq!(node.stats().subscriptions, 0);
}
