//! Tokens on live connections.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidewire::protocol::{Close, Code, Refusal, Token, Wire};
use tidewire::{Action, Authenticator, Grant, Identity, Node};
use tokio::time::sleep;

use crate::support::{Client, publish};

/// Knows some tokens by heart.
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        let ann = Identity { subject: Some("ann".into()), ..Identity::default() };
        match token.expose() {
            "ann" => Ok(ann),
            "run out" => Ok(Identity { expires_at: Some(1), ..ann }),
            "everything" => Ok(granted("private:*", &Action::ALL)),
            "no presence" => Ok(granted("private:*", &[Action::Subscribe, Action::Publish])),
            _ => Err(Refusal::new(Code::TokenInvalid, "no such token")),
        }
    }
}

fn granted(pattern: &str, actions: &[Action]) -> Identity {
    let pattern = pattern.parse().expect("a pattern");
    let grant = Grant { pattern, actions: actions.to_vec(), rows: None };
    Identity {
        subject: Some("ann".into()),
        grants: Some(vec![grant].into()),
        ..Identity::default()
    }
}

fn node() -> Node {
    Node::builder().authenticator(Arc::new(Tokens)).start()
}

fn anonymous(node: &Node) -> Client {
    Client::with(node, Wire::WebSocket, Identity::anonymous())
}

async fn authenticate(client: &mut Client, token: &str) -> serde_json::Value {
    client.ask(json!({"type": "authenticate", "token": token})).await
}

#[tokio::test(start_paused = true)]
async fn who_shows_a_token_may_do_more() {
    let node = node();
    let mut client = anonymous(&node);
    let subscribe = json!({"type": "subscribe", "topic": "a"});
    let refused = client.ask(subscribe.clone()).await;
    assert_eq!(
        (&refused["code"], &refused["retry"]),
        (&json!("unauthorized"), &json!("with_token"))
    );
    let refused = client.ask(json!({"type": "publish", "topic": "a", "data": 1})).await;
    assert_eq!(refused["code"], "unauthorized");
    assert_eq!(authenticate(&mut client, "wrong").await["code"], "token_invalid");

    let answer = authenticate(&mut client, "ann").await;
    assert_eq!((&answer["type"], &answer["subject"]), (&json!("authenticated"), &json!("ann")));
    assert_eq!(client.ask(subscribe).await["type"], "subscribed");
    publish(&node, "a", "heard").await;
    assert_eq!(client.event().await["data"], "heard");
}

#[tokio::test(start_paused = true)]
async fn a_weaker_token_ends_what_it_does_not_allow() {
    let node = node();
    let mut client = anonymous(&node);
    authenticate(&mut client, "everything").await;
    let private = json!({"type": "subscribe", "topic": "secret", "private": true});
    client.ask(private.clone()).await;
    client.subscribe("open").await;
    authenticate(&mut client, "ann").await;
    let ended = client.next().await;
    assert_eq!(
        ended,
        json!({"type": "ended", "topic": "secret", "private": true, "code": "forbidden",
               "message": ended["message"]})
    );
    assert_eq!(client.ask(private).await["code"], "forbidden");
    publish(&node, "open", "heard").await;
    assert_eq!(client.event().await["data"], "heard");
    client.hears_nothing().await;
    assert_eq!(node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_presence_ends_the_subscription_that_asked_for_it() {
    let node = node();
    let (mut client, mut other) = (anonymous(&node), anonymous(&node));
    for client in [&mut client, &mut other] {
        authenticate(client, "everything").await;
        let request = json!({"type": "subscribe", "topic": "a", "private": true, "presence": true});
        assert_eq!(client.ask(request).await["type"], "subscribed");
    }
    client.ask(json!({"type": "track", "topic": "a", "private": true, "key": "ann"})).await;
    assert_eq!(other.next().await["joins"][0]["key"], "ann");
    assert_eq!(client.next().await["joins"][0]["key"], "ann");

    authenticate(&mut client, "no presence").await;
    let ended = client.next().await;
    assert_eq!((&ended["type"], &ended["code"]), (&json!("ended"), &json!("forbidden")));
    assert_eq!(other.next().await["leaves"][0]["key"], "ann", "who may not be seen is not");
    client.hears_nothing().await;
    let without = json!({"type": "subscribe", "topic": "a", "private": true});
    assert_eq!(client.ask(without).await["type"], "subscribed");
    assert_eq!(node.stats().subscriptions, 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_run_out_ends_the_session() {
    let node = node();
    let mut client = anonymous(&node);
    authenticate(&mut client, "run out").await;
    assert_eq!(client.end().await, Close::TokenExpired);
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_keeps_the_session() {
    let node = node();
    let mut client = anonymous(&node);
    authenticate(&mut client, "run out").await;
    let answer = authenticate(&mut client, "ann").await;
    assert_eq!(answer["expires_at"], json!(null));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_shows_no_token_ends_in_time() {
    let node = node();
    let mut client = anonymous(&node);
    let start = tokio::time::Instant::now();
    assert_eq!(client.end().await, Close::Unauthorized);
    let timeout = node.limits().authentication_timeout;
    assert!((timeout..timeout + Duration::from_secs(2)).contains(&start.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_shows_a_token_in_time_stays() {
    let node = node();
    let mut client = anonymous(&node);
    sleep(Duration::from_secs(8)).await;
    authenticate(&mut client, "ann").await;
    sleep(Duration::from_secs(8)).await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn where_anonymous_clients_are_let_in_they_stay() {
    let node = Node::builder().authenticator(Arc::new(Tokens)).anonymous(true).start();
    let mut client = anonymous(&node);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn without_authentication_a_token_is_refused_and_everything_allowed() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    assert_eq!(authenticate(&mut client, "ann").await["code"], "authentication_off");
    let private = json!({"type": "subscribe", "topic": "a", "private": true});
    assert_eq!(client.ask(private).await["type"], "subscribed");
}
