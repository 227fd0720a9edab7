//! Wrong tokens.

use super::{ATTACKER, OTHER, Peer, guarded};
use crate::support::{client_with, short_lived, token};

async fn asks(from: &str, to: std::net::SocketAddr, token: &str) -> u16 {
    let mut peer = Peer::connect(from, to).await;
    let lines = format!("Authorization: Bearer {token}\r\n");
    peer.ask("GET", "/v1/poll?topic=a&timeout=0", &lines).await;
    peer.status().await
}

#[tokio::test]
async fn an_address_that_guesses_is_not_answered_for_a_while_and_others_are() {
    let server =
        guarded(&[("budgets.failed_token_burst", "5"), ("budgets.failed_tokens_per_second", "1")])
            .await;
    let mut statuses = Vec::new();
    for number in 0..12 {
        statuses.push(asks(ATTACKER, server.address, &format!("guess{number}")).await);
    }
    assert_eq!(statuses[..5], [401; 5]);
    assert!(statuses[5..].iter().filter(|&&status| status == 429).count() >= 5, "{statuses:?}");
    // One connection that goes on asking is no way around it.
    let mut client = client_with(server.address, "/v1/ws", &[]).await.unwrap();
    client.hear_type("welcome").await;
    let mut outcomes = Vec::new();
    for number in 0..6 {
        let guess = serde_json::json!({ "type": "authenticate", "token": format!("x{number}") });
        outcomes.push(client.outcome(guess).await);
    }
    assert!(outcomes.contains(&"over_budget".to_owned()), "{outcomes:?}");
    assert_eq!(asks(OTHER, server.address, &token("ann")).await, 200);
}

#[tokio::test]
async fn a_page_with_a_token_that_ran_out_is_no_guesser() {
    let server = guarded(&[("auth.jwt.leeway", "0s"), ("budgets.failed_token_burst", "2")]).await;
    let old = short_lived("ann", 1);
    let expired = async || asks(ATTACKER, server.address, &old).await == 401;
    crate::support::until("the token has run out", expired).await;
    for _ in 0..5 {
        assert_eq!(asks(ATTACKER, server.address, &old).await, 401);
    }
    assert_eq!(asks(ATTACKER, server.address, &token("ann")).await, 200);
}

#[tokio::test]
async fn who_is_known_may_show_a_newer_token_although_others_at_the_address_guess() {
    let server = guarded(&[("budgets.failed_token_burst", "2")]).await;
    let path = format!("/v1/ws?token={}", token("ann"));
    let mut client = client_with(server.address, &path, &[]).await.unwrap();
    client.hear_type("welcome").await;
    let refused = async || asks(ATTACKER, server.address, "guess").await == 429;
    crate::support::until("the address is over its budget", refused).await;
    let newer = serde_json::json!({ "type": "authenticate", "token": token("ann") });
    assert_eq!(client.outcome(newer).await, "authenticated");
}
