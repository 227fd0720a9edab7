//! Bodies that are sent and never finished.

use std::net::SocketAddr;

use serde_json::json;
use tokio::task::JoinSet;

use super::{ATTACKER, OTHER, Peer, guarded};
use crate::support::{get, post_with, soon, token, until};

/// Bytes that an attacker announces, and of which it holds the last back.
const BODY: usize = 4 << 20;

/// Sends all of a body but the last byte, and waits for an answer.
async fn hold_back(to: SocketAddr, lines: String) -> u16 {
    let mut peer = Peer::connect(ATTACKER, to).await;
    peer.ask("POST", "/v1/publish", &format!("{lines}Content-Length: {BODY}\r\n")).await;
    peer.send(&vec![b' '; BODY - 1]).await;
    peer.status().await
}

/// The status of a whole body that is no JSON.
async fn nonsense(from: &str, to: SocketAddr) -> u16 {
    let mut peer = Peer::connect(from, to).await;
    peer.ask("POST", "/v1/publish", &format!("Content-Length: {BODY}\r\n")).await;
    peer.send(&vec![b' '; BODY]).await;
    peer.status().await
}

async fn publishes(address: SocketAddr, subject: &str) -> u16 {
    let authorization = format!("Bearer {}", token(subject));
    let headers = [("authorization", authorization.as_str())];
    post_with(address, "/v1/publish", &headers, &json!({ "topic": "a", "data": 1 })).await.status
}

#[tokio::test]
async fn a_body_is_not_read_of_who_shows_no_token() {
    let server = guarded(&[]).await;
    for path in ["/v1/publish", "/notify"] {
        let mut peer = Peer::connect(ATTACKER, server.address).await;
        let lines = format!("Content-Type: application/json\r\nContent-Length: {BODY}\r\n");
        peer.ask("POST", path, &lines).await;
        assert_eq!(peer.status().await, 401, "{path}");
    }
}

#[tokio::test]
async fn bodies_held_back_by_one_address_or_subject_leave_room_for_others() {
    let server = guarded(&[
        ("auth.anonymous", "true"),
        ("budgets.address_body_bytes", "16MiB"),
        ("budgets.subject_body_bytes", "16MiB"),
        ("budgets.body_bytes", "64MiB"),
    ])
    .await;
    for lines in [String::new(), format!("Authorization: Bearer {}\r\n", token("mallory"))] {
        let mut attack = JoinSet::new();
        for _ in 0..10 {
            attack.spawn(hold_back(server.address, lines.clone()));
        }
        for _ in 0..6 {
            let refused = soon("a body that is too much", attack.join_next()).await;
            assert_eq!(refused.expect("ten were sent").expect("no panic"), 429);
        }
        // The other four are in memory, and their senders wait.
        assert_eq!(publishes(server.address, "ann").await, 200);
        assert_eq!(nonsense(OTHER, server.address).await, 400, "it is read, and no JSON");
        drop(attack);
        until("room again", async || nonsense(ATTACKER, server.address).await == 400).await;
    }
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_over_budget_total{name=\"bodies\"}"), "{metrics}");
}
