//! Nodes that end.

use std::sync::Arc;
use std::time::Duration;

use tidewire::protocol::{Close, Wire};
use tidewire::{Identity, Node};
use tokio::time::Instant;

use crate::support::{Client, Troubled, publish, topic};

const SPREAD: Duration = Duration::from_secs(9);
const GRACE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn everyone_is_told_to_come_back_within_the_spread() {
    let node = Node::builder().start();
    let mut clients: Vec<_> = (0..50).map(|_| Client::open(&node)).collect();
    let down = tokio::spawn(async move { node.shutdown(SPREAD, GRACE).await });
    let mut pauses = Vec::new();
    for mut client in clients.drain(..) {
        let Close::Restart { after } = client.end().await else {
            panic!("a session should end because of the restart");
        };
        client.session.close(Close::Restart { after });
        let goodbye = client.rest().pop().expect("the last frame");
        assert_eq!((&goodbye["type"], &goodbye["retry_after"]), (&"close".into(), &after.into()));
        pauses.push(after);
    }
    assert!(pauses.iter().all(|after| u64::from(*after) <= SPREAD.as_secs()));
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 3, "not all should come back at once: {pauses:?}");
    let start = Instant::now();
    down.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "all are gone, so nothing is waited for");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_go_is_not_waited_for_beyond_the_grace_period() {
    let node = Node::builder().start();
    let client = Client::open(&node);
    let start = Instant::now();
    node.shutdown(SPREAD, GRACE).await;
    assert!(start.elapsed() <= GRACE);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_node_goes_is_told_at_once() {
    let node = Node::builder().start();
    let staying = Client::open(&node);
    let down = {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown(SPREAD, GRACE).await })
    };
    tokio::task::yield_now().await;
    let mut late = Client::with(&node, Wire::WebSocket, Identity::everything());
    assert!(matches!(late.end().await, Close::Restart { .. }));
    drop((late, staying));
    down.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_keep_the_node_from_ending() {
    let history = Troubled::keeping(100);
    let node = Node::builder().history(Arc::clone(&history) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    let start = publish(&node, "a", "x").await;
    client.event().await;
    history.hang(Some(topic("a")));
    // The relay finds a hole and hangs while it reads what is missing.
    history.begin_again(100);
    publish(&node, "a", "y").await;
    tokio::task::yield_now().await;
    drop((client, start));
    let start = Instant::now();
    node.shutdown(SPREAD, GRACE).await;
    assert!(start.elapsed() <= GRACE, "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_ended_counts_no_one() {
    let node = Node::builder().start();
    let mut clients: Vec<_> = (0..5).map(|_| Client::open(&node)).collect();
    for client in &mut clients {
        client.subscribe("a").await;
    }
    drop(clients);
    node.shutdown(SPREAD, GRACE).await;
    let stats = node.stats();
    assert_eq!((stats.connections, stats.subscriptions), (0, 0));
}
