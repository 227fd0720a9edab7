//! Requests that wait for something outside: they are finished whoever asked, and hold up nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidewire::budget::Principal;
use tidewire::protocol::{Code, Draft, Payload, Refusal, Token, TopicKind, Wire};
use tidewire::{Authenticator, Identity, Limits, Node, Publisher, Topic, Upstream};
use tokio::sync::Semaphore;

use crate::support::{Client, publish, until};

/// A source that carries out what is published there, and an authenticator that answers, when the
/// test lets them.
struct Slow {
    turns: Semaphore,
    asked: AtomicUsize,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self { turns: Semaphore::new(0), asked: AtomicUsize::new(0) })
    }

    async fn turn(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.turns.acquire().await.expect("it is never closed").forget();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Channels(Arc<Slow>, Publisher);

#[async_trait]
impl Upstream for Channels {
    async fn attach(&self, _: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _: &Topic) {}

    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
        self.0.turn().await;
        if topic.name() == "down" {
            return Err(Refusal::new(Code::Unavailable, "no connection"));
        }
        self.1.publish(vec![Draft::message(topic.clone(), payload.clone())]).await;
        Ok(())
    }
}

struct Tokens(Arc<Slow>);

#[async_trait]
impl Authenticator for Tokens {
    async fn identify(&self, token: &Token) -> Result<Identity, Refusal> {
        self.0.turn().await;
        match token.expose() {
            "good" => Ok(Identity::everything()),
            _ => Err(Refusal::new(Code::TokenInvalid, "not a token")),
        }
    }
}

fn start(limits: Limits) -> (Node, Arc<Slow>) {
    let slow = Slow::new();
    let tokens = Arc::new(Tokens(Arc::clone(&slow)));
    let prepared = Node::builder().limits(limits).authenticator(tokens).prepare();
    let channels = Channels(Arc::clone(&slow), prepared.publisher().clone());
    (prepared.upstream(TopicKind::Notify, Arc::new(channels)).start(), slow)
}

fn notify(channel: &str, data: &str) -> serde_json::Value {
    json!({"type": "publish", "notify": channel, "data": data})
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_holds_up_neither_deliveries_nor_pings_nor_the_end() {
    for request in [notify("b", "slow"), json!({"type": "authenticate", "token": "good"})] {
        let (node, slow) = start(Limits::default());
        let mut client = Client::open(&node);
        client.subscribe("a").await;
        let waits = client.tell(request).await;
        let ping = client.tell(json!({"type": "ping"})).await;
        publish(&node, "a", "meanwhile").await;
        assert_eq!(client.next().await["id"], ping);
        assert_eq!(client.event().await["data"], "meanwhile");
        client.hears_nothing().await;
        slow.turns.add_permits(1);
        assert_eq!(client.next().await["id"], waits);

        client.tell(notify("b", "slow")).await;
        let stop = node.clone();
        let (brief, second) = (Duration::from_millis(10), Duration::from_secs(1));
        tokio::spawn(async move { stop.shutdown(brief, second).await });
        assert_eq!(client.end().await.name(), "restart");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_behind_one_that_waits_are_carried_out_in_their_order() {
    let (node, slow) = start(Limits::default());
    let mut client = Client::open(&node);
    client.tell(json!({"type": "authenticate", "token": "bad"})).await;
    client.tell(notify("b", "1")).await;
    client.tell(json!({"type": "subscribe", "notify": "b"})).await;
    client.tell(notify("b", "2")).await;
    client.tell(json!({"type": "publish", "topic": "a", "data": 3})).await;
    client.hears_nothing().await;
    slow.turns.add_permits(3);
    let frames = client.everything().await;
    let answers: Vec<_> = frames.iter().filter_map(|frame| frame["id"].as_u64()).collect();
    assert_eq!(answers, [1, 2, 3, 4, 5]);
    let heard: Vec<_> = frames.iter().filter(|frame| frame["type"] == "event").collect();
    assert_eq!(heard.len(), 1, "what was published before the subscription is not heard");
    assert_eq!(heard[0]["data"], "2");
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_wait_than_the_burst_allows() {
    let (node, slow) = start(Limits { burst: 3, messages_per_second: 1_000, ..Limits::default() });
    let mut client = Client::open(&node);
    client.tell(notify("b", "0")).await;
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(1)).await;
        client.tell(json!({"type": "publish", "topic": "a", "data": 1})).await;
    }
    let refused = client.everything().await;
    let codes: Vec<_> = refused.iter().map(|frame| (&frame["id"], &frame["code"])).collect();
    assert_eq!(codes, [(&json!(5), &json!("rate_limited")), (&json!(6), &json!("rate_limited"))]);
    slow.turns.add_permits(1);
    assert_eq!(client.everything().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_published_once_although_its_client_hung_up() {
    let (node, slow) = start(Limits::default());
    let mut listener = Client::open(&node);
    listener.ask(json!({"type": "subscribe", "notify": "b"})).await;
    let mut request = notify("b", "paid");
    request["key"] = "order-1".into();
    let mut client = Client::open(&node);
    client.tell(request.clone()).await;
    until("the source was asked", || slow.asked() == 1).await;
    drop(client);
    let mut client = Client::with(&node, Wire::WebSocket, Identity::everything());
    let again = client.tell(request).await;
    slow.turns.add_permits(2);
    assert_eq!(client.next().await["id"], again);
    assert_eq!(listener.contents(1).await, ["paid"]);
    listener.hears_nothing().await;
    assert_eq!(slow.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_after_its_client_hung_up_frees_the_key() {
    let (node, slow) = start(Limits::default());
    let mut client = Client::open(&node);
    let mut request = notify("down", "wrong");
    request["key"] = "order-1".into();
    client.tell(request).await;
    drop(client);
    let mut client = Client::open(&node);
    let mut corrected = notify("b", "right");
    corrected["key"] = "order-1".into();
    client.tell(corrected).await;
    slow.turns.add_permits(2);
    assert_eq!(client.next().await["type"], "published");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_was_begun() {
    let (node, slow) = start(Limits::default());
    let mut client = Client::open(&node);
    client.tell(notify("b", "last")).await;
    until("the source was asked", || slow.asked() == 1).await;
    drop(client);
    let (stop, minute) = (node.clone(), Duration::from_secs(60));
    let stopping = tokio::spawn(async move { stop.shutdown(Duration::ZERO, minute).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!stopping.is_finished());
    slow.turns.add_permits(1);
    stopping.await.expect("the node stops");
    assert_eq!(node.stats().events, 1);
    let late = tidewire::protocol::Publication {
        topic: Topic::application("a").expect("a topic's name"),
        name: None,
        payload: Payload::Text("late".into()),
        echo: true,
        idempotency_key: None,
        confirm: true,
        reference: None,
    };
    let refused = node.publisher().submit(late, Principal::Local, None).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
}
