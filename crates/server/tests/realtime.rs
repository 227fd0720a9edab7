//! Fluxbase's paths beside its WebSocket.

use serde_json::json;

use crate::support::{SECRET, Server, client, get};

#[tokio::test]
async fn the_counts_have_exactly_the_documented_keys_and_need_no_token() {
    let secret = [("auth.jwt.secret", SECRET)];
    let server = Server::start(&secret).await;
    let counts = get(server.address, "/api/realtime/stats?any=parameter").await.good().await;
    assert_eq!(counts, json!({"connections": 0, "channels": 0}));
}

#[tokio::test]
async fn connections_and_topics_are_counted() {
    let server = Server::start(&[]).await;
    let mut client = client(server.address).await;
    client.subscribe(json!({"topic": "room:1"})).await;
    let counts = get(server.address, "/api/realtime/stats").await.good().await;
    assert_eq!(counts, json!({"connections": 1, "channels": 1}));
}

#[tokio::test]
async fn the_example_page_loads_nothing_from_elsewhere() {
    let server = Server::start(&[]).await;
    let page = get(server.address, "/examples/fluxbase").await;
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    let page = page.rest().await;
    assert!(!page.contains("://"), "an address of another server");
    let parts = page.split(['"']).filter(|part| part.starts_with("/examples/"));
    let parts: Vec<_> = parts.collect();
    assert!(parts.len() >= 4, "{parts:?}");
    for part in parts {
        assert_eq!(get(server.address, part).await.status, 200, "{part}");
    }
}
