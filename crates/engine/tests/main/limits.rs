//! How much one client may ask.

use serde_json::json;
use tidewire::protocol::{Close, Code, Frame, Wire};
use tidewire::{Identity, Limits, Node, Opening};

use crate::support::Client;

#[tokio::test(start_paused = true)]
async fn a_connection_has_so_many_subscriptions() {
    let limits = Limits { subscriptions: 3, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    for name in ["a", "b", "c"] {
        // Presence comes along and does not count.
        let request = json!({"type": "subscribe", "topic": name, "presence": true});
        assert_eq!(client.ask(request).await["type"], "subscribed");
    }
    let more = json!({"type": "subscribe", "topic": "d"});
    let answer = client.ask(more.clone()).await;
    assert_eq!(
        (&answer["code"], &answer["topic"]),
        (&json!("too_many_subscriptions"), &json!("d"))
    );
    client.subscribe("a").await;
    client.ask(json!({"type": "unsubscribe", "topic": "a"})).await;
    assert_eq!(client.ask(more).await["type"], "subscribed");
    assert_eq!(node.stats().subscriptions, 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_so_many_connections() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let first = Client::open(&node);
    let _second = Client::open(&node);
    let opening = || {
        let native = std::sync::Arc::new(tidewire::protocol::dialect::Native);
        Opening::new(native, Wire::Lines, Identity::everything())
    };
    let refused = node.open(opening()).err().expect("there is no room");
    assert_eq!(refused.code, Code::TooManyConnections);
    assert_eq!(node.stats().connections, 2);
    drop(first);
    assert!(node.open(opening()).is_ok());
    assert_eq!(node.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_fast_is_refused_and_may_go_on_later() {
    let limits = Limits { messages_per_second: 10, burst: 20, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    for _ in 0..30 {
        client.tell(json!({"type": "ping"})).await;
    }
    let frames = client.rest();
    let refused = frames.iter().filter(|frame| frame["code"] == "rate_limited").count();
    assert_eq!((frames.len(), refused), (30, 10));
    assert_eq!(frames[29]["retry"], "later");
    assert_eq!(frames[29]["id"], 30, "the client should know which request was not carried out");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_notice_of_being_too_fast_ends() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    let mut asked = 0;
    let end = loop {
        asked += 1;
        if let Err(why) = client.say(&json!({"type": "ping"})).await {
            break why;
        }
        client.rest();
    };
    assert_eq!(end, Close::TooFast);
    assert!((1_000..2_000).contains(&asked), "it ended after {asked} requests");
}

#[tokio::test(start_paused = true)]
async fn who_asks_ten_times_too_fast_all_the_time_ends_too() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    for _ in 0..10_000 {
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        if let Err(why) = client.say(&json!({"type": "ping"})).await {
            return assert_eq!(why, Close::TooFast);
        }
        client.rest();
    }
    panic!("a client should not be refused for ever");
}

#[tokio::test(start_paused = true)]
async fn nonsense_at_a_decent_pace_is_refused_for_ever() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    for _ in 0..3_000 {
        tokio::time::advance(std::time::Duration::from_millis(11)).await;
        client.session.receive(Frame::text("nonsense")).await.expect("the session goes on");
        assert_eq!(client.next().await["code"], "bad_json");
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_has_a_size() {
    let limits = Limits { payload_bytes: 100, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    let fits = "x".repeat(98);
    let request = json!({"type": "publish", "topic": "a", "data": fits});
    assert_eq!(client.ask(request).await["type"], "published");
    let request = json!({"type": "publish", "topic": "a", "data": fits, "event": "e"});
    assert_eq!(client.ask(request).await["code"], "too_large");
    assert_eq!(client.contents(1).await, [fits]);
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_never_reads_ends_as_too_slow() {
    let limits = Limits { mailbox_bytes: 1_000, burst: 1_000, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    for _ in 0..1_000 {
        if let Err(why) = client.say(&json!({"type": "ping", "id": 1})).await {
            return assert_eq!(why, Close::SlowConsumer);
        }
    }
    panic!("answers should not be kept without end");
}
