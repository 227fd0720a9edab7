//! Connections without a token, and more of one subject than one needs.

use super::{ATTACKER, OTHER, Peer, guarded};
use crate::support::{client_with, get, get_with, token};

#[tokio::test]
async fn websockets_without_a_token_leave_places_for_those_with_one() {
    let server = guarded(&[
        ("limits.connections", "20"),
        ("budgets.address_connections", "6"),
        ("budgets.unauthenticated_percent", "50"),
    ])
    .await;
    let mut held = Vec::new();
    let mut statuses = Vec::new();
    // From one address, and then from as many as the attacker has.
    for number in 0..24 {
        let from = format!("127.0.0.{}", if number < 8 { 1 } else { number });
        let mut peer = Peer::connect(&from, server.address).await;
        statuses.push(peer.upgrade("/v1/ws").await);
        held.push(peer);
    }
    let got = |status| statuses.iter().filter(|&&it| it == status).count();
    assert_eq!((got(101), got(429), got(503)), (10, 2, 12), "{statuses:?}");
    let path = format!("/v1/ws?token={}", token("ann"));
    assert!(client_with(server.address, &path, &[]).await.is_ok());
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_over_budget_total{name=\"connections\"} 14"), "{metrics}");
}

#[tokio::test]
async fn a_subject_has_so_many_connections_on_all_transports() {
    let server = guarded(&[("budgets.subject_connections", "2")]).await;
    let path = |path: &str, subject: &str| format!("{path}token={}", token(subject));
    let _first = client_with(server.address, &path("/v1/ws?", "mallory"), &[]).await.unwrap();
    let stream = get(server.address, &path("/v1/sse?topic=a&", "mallory")).await;
    assert_eq!(stream.status, 200);
    let third = client_with(server.address, &path("/v1/ws?", "mallory"), &[]).await;
    assert_eq!(third.err(), Some(429));
    for transport in ["/v1/sse?topic=a&", "/v1/poll?topic=a&"] {
        let refused = get(server.address, &path(transport, "mallory")).await;
        assert_eq!(refused.refused().await, (429, "over_budget".to_owned()));
    }
    // Nor by showing the token later.
    let mut late = client_with(server.address, "/v1/ws", &[]).await.unwrap();
    late.hear_type("welcome").await;
    let shown = serde_json::json!({ "type": "authenticate", "token": token("mallory") });
    assert_eq!(late.outcome(shown).await, "over_budget");
    assert!(client_with(server.address, &path("/v1/ws?", "ann"), &[]).await.is_ok());
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_who_the_proxy_says_it_is() {
    let keys = [("proxies", OTHER), ("budgets.address_connections", "1")];
    let server = guarded(&keys).await;
    let mut held = Vec::new();
    for (from, named, expected) in [
        (OTHER, "192.0.2.1", 101),
        (OTHER, "192.0.2.2", 101),
        (OTHER, "198.51.100.7, 192.0.2.1", 429),
        (ATTACKER, "192.0.2.3", 101),
        (ATTACKER, "192.0.2.4", 429),
    ] {
        let mut peer = Peer::connect(from, server.address).await;
        let lines = format!(
            "X-Forwarded-For: {named}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        peer.ask("GET", "/v1/ws", &lines).await;
        assert_eq!(peer.status().await, expected, "{named} by {from}");
        held.push(peer);
    }
    let authorization = format!("Bearer {}", token("ann"));
    let headers = [("authorization", authorization.as_str())];
    assert_eq!(get_with(server.address, "/v1/poll?topic=a&timeout=0", &headers).await.status, 200);
}
