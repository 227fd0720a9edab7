//! The README's library example, running.

use std::net::TcpListener;

use serde_json::json;
use tidewire_server::{Bridge, BridgeConfig};

use crate::support::{client_with, database, get, soon, until};

#[tokio::test]
async fn a_bridge_runs_inside_another_program_until_it_is_told_to_stop() {
    let mut database = database().await;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let config = BridgeConfig::new(database.url(), address.to_string())
        .with_channels(vec!["channel1".to_owned(), "one, channel".to_owned()]);
    let bridge = Bridge::new(config);
    let running = tokio::spawn(bridge.clone().run());
    until("a bridge that serves", async || tokio::net::TcpStream::connect(address).await.is_ok())
        .await;
    until("a bridge that listens", async || get(address, "/ready").await.status == 200).await;

    database.notify("channel1", "before anyone").await;
    database.notify("one, channel", "a comma is part of its name").await;
    let mut alle = client_with(address, "/", &[]).await.expect("an upgrade");
    alle.say(&json!({ "type": "subscribe", "channel": "channel2" })).await;
    assert_eq!(alle.hear().await["type"], "subscribed");
    database.notify("channel2", "hello").await;
    let heard = json!({ "type": "notification", "channel": "channel2", "payload": "hello" });
    assert_eq!(alle.hear().await, heard);
    let kept = get(address, "/v1/history?notify=channel1").await.good().await;
    assert_eq!(kept["events"][0]["data"], "before anyone");
    let kept = get(address, "/v1/history?notify=one,%20channel").await.good().await;
    assert_eq!(kept["events"][0]["data"], "a comma is part of its name");

    bridge.terminate();
    assert_eq!(alle.end().await.1, 4000);
    soon("the end", running).await.expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_bridge_says_what_is_wrong_with_its_configuration() {
    let open = BridgeConfig::new("postgresql://localhost".into(), "0.0.0.0:0".into());
    let refused = Bridge::new(open).run().await.unwrap_err().to_string();
    assert!(refused.contains("no authentication is configured"), "{refused}");
    let bad = BridgeConfig::new("nonsense".into(), "127.0.0.1:0".into());
    assert!(Bridge::new(bad).run().await.is_err());
}
