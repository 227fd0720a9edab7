//! Subscribing, resuming, and being told what cannot be resumed.

use std::sync::Arc;

use serde_json::{Value, json};
use tidewire::protocol::Wire;
use tidewire::{Identity, Limits, Node, Position};

use crate::support::{Client, Troubled, count, keeping, numbers, publish};

#[tokio::test(start_paused = true)]
async fn a_new_subscriber_receives_what_comes_and_nothing_older() {
    let node = Node::builder().start();
    let before = publish(&node, "a", "old").await;
    let mut client = Client::open(&node);
    let answer = client.subscribe("a").await;
    assert_eq!((&answer["outcome"], &answer["position"]), (&json!("fresh"), &place(before)));
    let after = publish(&node, "a", "new").await;
    let event = client.event().await;
    assert_eq!((&event["data"], &event["position"]), (&json!("new"), &place(after)));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_told_the_same() {
    let node = Node::builder().start();
    let mut client = Client::with(&node, Wire::WebSocket, Identity::everything());
    client.subscribe("a").await;
    count(&node, "a", 0..100).await;
    assert_eq!(client.contents(100).await, numbers(0..100));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_receives_what_was_missed_and_then_what_comes() {
    let node = Node::builder().start();
    let seen = publish(&node, "a", "seen").await;
    count(&node, "a", 0..200).await;
    let mut client = Client::open(&node);
    let answer = client.resume("a", &place(seen)).await;
    assert_eq!((&answer["outcome"], &answer["position"]), (&json!("resumed"), &place(seen)));
    count(&node, "a", 200..300).await;
    assert_eq!(client.contents(300).await, numbers(0..300));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn who_missed_nothing_is_resumed_at_once() {
    let node = Node::builder().start();
    let seen = publish(&node, "a", "seen").await;
    let mut client = Client::open(&node);
    assert_eq!(client.resume("a", &place(seen)).await["outcome"], "resumed");
    client.hears_nothing().await;
    publish(&node, "a", "new").await;
    assert_eq!(client.event().await["data"], "new");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_trimmed_is_a_gap() {
    let node = Node::builder().history(Arc::new(keeping(3))).start();
    let seen = publish(&node, "a", "seen").await;
    count(&node, "a", 0..10).await;
    let last = Position { seq: seen.seq + 10, ..seen };
    gap_and_then_what_comes(&node, place(seen), "history_trimmed", last).await;
}

#[tokio::test(start_paused = true)]
async fn a_place_of_another_epoch_is_a_gap() {
    let node = Node::builder().start();
    let last = publish(&node, "a", "x").await;
    gap_and_then_what_comes(&node, json!("dead-1"), "epoch_changed", last).await;
}

#[tokio::test(start_paused = true)]
async fn a_place_ahead_of_everything_is_a_gap() {
    let node = Node::builder().start();
    let last = publish(&node, "a", "x").await;
    let ahead = Position { seq: u64::MAX, ..last };
    gap_and_then_what_comes(&node, place(ahead), "position_unknown", last).await;
    let (head, ahead) = (Position { seq: 2, ..last }, Position { seq: 3, ..last });
    gap_and_then_what_comes(&node, place(ahead), "position_unknown", head).await;
}

async fn gap_and_then_what_comes(node: &Node, since: Value, reason: &str, head: Position) {
    let mut client = Client::open(node);
    let answer = client.resume("a", &since).await;
    assert_eq!((&answer["outcome"], &answer["reason"]), (&json!("gap"), &json!(reason)));
    assert_eq!(answer["position"], place(head), "what follows begins at the head");
    client.hears_nothing().await;
    publish(node, "a", "next").await;
    assert_eq!(client.event().await["data"], "next");
}

#[tokio::test(start_paused = true)]
async fn earliest_is_everything_that_is_kept() {
    let node = Node::builder().history(Arc::new(keeping(3))).start();
    count(&node, "a", 0..10).await;
    let mut client = Client::open(&node);
    let answer = client.resume("a", &json!("earliest")).await;
    assert_eq!(answer["outcome"], "fresh");
    assert_eq!(client.contents(3).await, numbers(7..10));
    count(&node, "a", 10..11).await;
    assert_eq!(client.contents(1).await, numbers(10..11));
}

#[tokio::test(start_paused = true)]
async fn who_unsubscribes_receives_nothing_more() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    client.subscribe("b").await;
    let answer = client.ask(json!({"type": "unsubscribe", "topic": "a"})).await;
    assert_eq!(answer["type"], "unsubscribed");
    publish(&node, "a", "unheard").await;
    publish(&node, "b", "heard").await;
    assert_eq!(client.event().await["data"], "heard");
    client.hears_nothing().await;
    let again = client.ask(json!({"type": "unsubscribe", "topic": "a"})).await;
    assert_eq!(again["type"], "unsubscribed", "to leave what one is not on is nothing");
    assert_eq!(node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn topics_of_one_name_and_different_kinds_are_apart() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.ask(json!({"type": "subscribe", "topic": "a", "private": true})).await;
    publish(&node, "a", "unheard").await;
    client.hears_nothing().await;
    client.ask(json!({"type": "publish", "topic": "a", "private": true, "data": 1})).await;
    assert_eq!(client.event().await["private"], true);
}

#[tokio::test(start_paused = true)]
async fn to_subscribe_again_changes_nothing_and_misses_nothing() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    for number in 0..20 {
        publish(&node, "a", &number.to_string()).await;
        client.subscribe("a").await;
    }
    assert_eq!(client.contents(20).await, numbers(0..20));
    client.hears_nothing().await;
    assert_eq!(node.stats().subscriptions, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_subscribe_in_another_way_misses_nothing_while_events_come() {
    let limits = Limits { burst: 1_000_000, ..Limits::default() };
    let node = Node::builder().limits(limits).history(Arc::new(keeping(100_000))).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    let publishing = {
        let node = node.clone();
        tokio::spawn(async move {
            for start in (0..20_000).step_by(50) {
                count(&node, "a", start..start + 50).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let mut presence = false;
    let mut seen = Vec::new();
    while !publishing.is_finished() {
        presence = !presence;
        let request = json!({"type": "subscribe", "topic": "a", "presence": presence});
        let answer = client.ask(request).await;
        assert_eq!((&answer["type"], &answer["outcome"]), (&json!("subscribed"), &json!("fresh")));
        seen.extend(client.rest());
    }
    while seen.last().is_none_or(|frame| frame["data"] != "19999") {
        seen.push(client.next().await);
    }
    let contents = seen.iter().filter(|frame| frame["type"] == "event");
    let contents: Vec<_> = contents.map(|frame| frame["data"].clone()).collect();
    assert_eq!(contents, numbers(0..20_000), "every event should come once and in order");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_behind_and_subscribes_in_another_way_misses_nothing() {
    let limits = Limits { mailbox_bytes: 500, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    count(&node, "a", 0..100).await;
    tokio::task::yield_now().await;
    client.ask(json!({"type": "subscribe", "topic": "a", "presence": true})).await;
    assert_eq!(client.contents(100).await, numbers(0..100));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn to_go_back_to_an_earlier_place_repeats_what_follows_it() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    let start = client.subscribe("a").await["position"].take();
    count(&node, "a", 0..5).await;
    assert_eq!(client.contents(5).await, numbers(0..5));
    assert_eq!(client.resume("a", &start).await["outcome"], "resumed");
    assert_eq!(client.contents(5).await, numbers(0..5));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_leaves_the_subscription_that_is_there() {
    let history = Troubled::keeping(100);
    let node = Node::builder().history(Arc::clone(&history) as _).start();
    let mut client = Client::open(&node);
    let start = client.subscribe("a").await["position"].take();
    history.fail(true);
    let answer = client.resume("a", &start).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unavailable")));
    history.fail(false);
    publish(&node, "a", "heard").await;
    assert_eq!(client.event().await["data"], "heard");
    assert_eq!(node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn who_resumes_many_topics_at_once_is_sent_all_of_them() {
    let limits = Limits { mailbox_bytes: 10_000, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let names: Vec<_> = (0..10).map(|number| format!("topic {number}")).collect();
    for name in &names {
        for _ in 0..20 {
            publish(&node, name, &"x".repeat(1_000)).await;
        }
    }
    let mut client = Client::open(&node);
    for name in &names {
        let request = json!({"type": "subscribe", "topic": name, "since": "earliest"});
        client.say(&request).await.expect("nobody can read before it has asked");
    }
    let mut events = 0;
    while events < 200 {
        if client.next().await["type"] == "event" {
            events += 1;
        }
    }
    client.hears_nothing().await;
}

fn place(position: Position) -> Value {
    position.to_string().into()
}

#[tokio::test(start_paused = true)]
async fn many_subscriptions_come_and_go_in_any_order_and_each_is_found_again() {
    const TOPICS: usize = 60;
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    let name = |number: usize| format!("t{number}");
    for number in 0..TOPICS {
        client.subscribe(&name(number)).await;
    }
    // Each third leaves, from both ends towards the middle, and some come back.
    let leaves = |number: usize| number.is_multiple_of(3);
    for number in (0..TOPICS / 2).flat_map(|number| [number, TOPICS - 1 - number]) {
        if leaves(number) {
            let left = client.ask(json!({"type": "unsubscribe", "topic": name(number)})).await;
            assert_eq!(left["type"], "unsubscribed");
        }
    }
    for number in (0..TOPICS).filter(|number| number.is_multiple_of(6)) {
        client.subscribe(&name(number)).await;
    }
    let held = |number: usize| !leaves(number) || number.is_multiple_of(6);
    assert_eq!(node.stats().subscriptions, (0..TOPICS).filter(|number| held(*number)).count());
    for number in 0..TOPICS {
        publish(&node, &name(number), &number.to_string()).await;
    }
    let mut heard: Vec<usize> = Vec::new();
    for frame in client.everything().await {
        heard.push(frame["data"].as_str().expect("a number").parse().expect("a number"));
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..TOPICS).filter(|number| held(*number)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscription_costs_the_same_beside_twenty_thousand_others() {
    let node = Node::builder()
        .limits(Limits { subscriptions: 50_000, burst: 1_000_000, ..Limits::default() })
        .start();
    let mut client = Client::open(&node);
    let mut next = 0..;
    // The quickest of several tries, so that a busy machine does not count.
    let mut cost = async |client: &mut Client| {
        let mut quickest = std::time::Duration::MAX;
        for _ in 0..10 {
            let begun = tokio::time::Instant::now();
            for _ in 0..20 {
                client.subscribe(&format!("t{}", next.next().expect("a number"))).await;
            }
            quickest = quickest.min(begun.elapsed());
        }
        quickest
    };
    let few = cost(&mut client).await;
    for number in 0..20_000 {
        client.subscribe(&format!("other{number}")).await;
    }
    let many = cost(&mut client).await;
    assert!(many < 4 * few, "{few:?} beside few, {many:?} beside many");
}
