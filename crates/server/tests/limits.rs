//! Limits of one client, which others do not notice.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Server, client, client_with, get, post};

#[tokio::test]
async fn a_thousand_subscriptions_are_taken_and_one_more_is_not() {
    let server = Server::start(&[("limits.burst", "5000")]).await;
    let mut client = client(server.address).await;
    for number in 0..1_000 {
        client.feed(&json!({ "type": "subscribe", "topic": format!("t{number}") })).await;
    }
    client.flush().await;
    for _ in 0..1_000 {
        assert_eq!(client.hear().await["type"], "subscribed");
    }
    let one_more = json!({ "type": "subscribe", "topic": "one more" });
    assert_eq!(client.outcome(one_more.clone()).await, "too_many_subscriptions");
    // One that is held may be asked for again, and leaving makes room.
    assert_eq!(client.outcome(json!({ "type": "subscribe", "topic": "t7" })).await, "subscribed");
    let leave = json!({ "type": "unsubscribe", "topic": "t8" });
    assert_eq!(client.outcome(leave).await, "unsubscribed");
    assert_eq!(client.outcome(one_more).await, "subscribed");
    client.say(&json!({ "type": "publish", "topic": "t999", "data": 1 })).await;
    assert_eq!(client.hear_type("event").await["topic"], "t999");
}

#[tokio::test]
async fn publishing_over_http_has_a_rate_and_a_batch_counts_its_items() {
    let server =
        Server::start(&[("limits.publishes_per_second", "1"), ("limits.publish_burst", "1000")])
            .await;
    let batch: Value = (0..1_000).map(|number| json!({ "topic": "a", "data": number })).collect();
    post(server.address, "/v1/publish", &batch).await.good().await;
    let refused = post(server.address, "/v1/publish", &batch).await;
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.refused().await, (429, "rate_limited".to_owned()));
}

#[tokio::test]
async fn a_client_that_never_pauses_is_warned_then_sent_away() {
    let server = Server::start(&[]).await;
    let mut hasty = client(server.address).await;
    let mut other = client(server.address).await;
    other.subscribe(json!({ "topic": "calm" })).await;
    // All at once: 200 are taken, a thousand refused, and then it is over.
    for _ in 0..3_000 {
        if !hasty.feed(&json!({ "type": "ping", "id": 1 })).await {
            break;
        }
    }
    hasty.flush().await;
    let waited = tokio::time::timeout(Duration::from_secs(2), async {
        other.say(&json!({ "type": "publish", "topic": "calm", "data": "hello" })).await;
        other.hear_type("event").await
    });
    assert_eq!(waited.await.expect("others are served at once")["data"], "hello");

    let (mut pongs, mut refused) = (0, 0);
    let (code, name) = loop {
        let frame = hasty.hear().await;
        match frame["type"].as_str() {
            Some("pong") => pongs += 1,
            Some("error") => {
                assert_eq!(frame["code"], "rate_limited");
                refused += 1;
            }
            Some("close") => break (frame["code"].clone(), frame["name"].clone()),
            _ => panic!("unexpected: {frame}"),
        }
    };
    assert_eq!((code, name), (json!(4003), json!("too_fast")));
    assert!((200..400).contains(&pongs), "{pongs}");
    assert!(refused >= 999, "{refused}");
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_closes_total{name=\"too_fast\"} 1"), "{metrics}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_back() {
    let server = Server::start(&[("limits.connections", "2")]).await;
    let _held = [client(server.address).await, client(server.address).await];
    assert_eq!(client_with(server.address, "/v1/ws", &[]).await.err(), Some(503));
    for path in ["/v1/sse?topic=a", "/v1/poll?topic=a"] {
        let answer = get(server.address, path).await;
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.refused().await, (503, "too_many_connections".to_owned()));
    }
    assert_eq!(get(server.address, "/health").await.status, 200);
}
