//! Signs of life that a language's clients are sent, whether they say something or not.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire::protocol::Wire;
use tidewire::protocol::dialect::Fluxbase;
use tidewire::{Identity, Node, Opening};
use tokio::time::{Instant, sleep};

use crate::support::Client;

#[tokio::test(start_paused = true)]
async fn a_language_with_heartbeats_has_one_each_30_seconds_and_answers_none() {
    let node = Node::builder().start();
    let opening = Opening::new(Arc::new(Fluxbase), Wire::WebSocket, Identity::everything());
    let mut client = Client::opening(&node, opening);
    for talks in [false, true, true] {
        let before = Instant::now();
        // Half of the time in which nothing may come, so as not to be taken for gone.
        for _ in 0..2 {
            client.session.heard();
            if talks {
                client.say(&json!({"type": "heartbeat"})).await.expect("the session goes on");
            }
            client.hears_nothing().await;
            sleep(Duration::from_secs(13)).await;
        }
        assert_eq!(client.next().await, json!({"type": "heartbeat"}));
        let passed = before.elapsed().as_secs();
        assert!((28..=31).contains(&passed), "after {passed} s");
    }
}
