//! Sockets on which nothing comes, and sockets that are kept open after an answer.

use super::{ATTACKER, OTHER, Peer, guarded};
use crate::support::get;

async fn is_healthy(peer: &mut Peer) -> bool {
    peer.ask("GET", "/health", "").await;
    peer.status().await == 200
}

#[tokio::test]
async fn silent_sockets_of_one_address_hold_up_nobody() {
    let keys = [("budgets.handshakes", "64"), ("budgets.address_handshakes", "16")];
    let server = guarded(&keys).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Peer::connect(ATTACKER, server.address).await);
    }
    assert!(is_healthy(&mut Peer::connect(OTHER, server.address).await).await);
    // The oldest are closed long before their time is over, the newest may still ask.
    for peer in &mut silent[..84] {
        assert_eq!(peer.status().await, 0);
    }
    assert!(is_healthy(silent.last_mut().expect("a hundred")).await);
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_over_budget_total{name=\"handshakes\"} 84"), "{metrics}");
}

#[tokio::test]
async fn silent_sockets_of_many_addresses_make_place_for_a_newcomer() {
    let keys = [("budgets.handshakes", "30"), ("budgets.address_handshakes", "16")];
    let server = guarded(&keys).await;
    let mut silent = Vec::new();
    for number in 0..90 {
        let from = format!("127.0.1.{}", number % 6);
        silent.push(Peer::connect(&from, server.address).await);
    }
    let mut newcomer = Peer::connect(OTHER, server.address).await;
    let mut other = Peer::connect(OTHER, server.address).await;
    assert!(is_healthy(&mut other).await && is_healthy(&mut newcomer).await);
}

#[tokio::test]
async fn sockets_kept_open_after_an_answer_make_place_for_others() {
    let server = guarded(&[("limits.sockets", "20"), ("budgets.address_sockets", "15")]).await;
    let mut kept = Vec::new();
    for number in 0..60 {
        let from = format!("127.0.1.{}", number % 3);
        let mut peer = Peer::connect(&from, server.address).await;
        assert!(is_healthy(&mut peer).await, "the {number}th is answered");
        kept.push(peer);
    }
    let mut other = Peer::connect(OTHER, server.address).await;
    assert!(is_healthy(&mut other).await);
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_over_budget_total{name=\"sockets\"}"), "{metrics}");
}

#[tokio::test]
async fn sessions_are_never_closed_for_others_and_leave_room_for_the_authenticated() {
    let server = guarded(&[("budgets.address_sockets", "4")]).await;
    let token = crate::support::token("ann");
    let mut held = Vec::new();
    // With a good token they do not count for their address.
    for path in [format!("/v1/ws?token={token}"), "/v1/ws".to_owned()] {
        for _ in 0..4 {
            let mut peer = Peer::connect(ATTACKER, server.address).await;
            assert_eq!(peer.upgrade(&path).await, 101);
            held.push(peer);
        }
    }
    let mut refused = Peer::connect(ATTACKER, server.address).await;
    assert!(!is_healthy(&mut refused).await);
    assert!(is_healthy(&mut Peer::connect(OTHER, server.address).await).await);
    for peer in &mut held {
        // A ping, masked with zeros, and its pong.
        peer.send(&[0x89, 0x80, 0, 0, 0, 0]).await;
        assert!(peer.gets(&[0x8a, 0]).await);
    }
}
