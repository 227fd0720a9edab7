//! Topics that must be asked for, and how long they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tidewire::broker::LocalBroker;
use tidewire::protocol::{Code, Payload, Refusal, TopicKind};
use tidewire::{Broker, Error, Event, Inlet, Limits, Node, Publisher, Topic, Upstream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::support::{Client, count, numbers, publish, until};

/// How long a channel whose name begins with *slow* takes, to be refused then.
const SLOW: Duration = Duration::from_secs(10);

/// A world outside that writes down what it is asked and says what it is told.
#[derive(Default)]
struct Outside {
    asked: Mutex<Vec<String>>,
    down: AtomicBool,
    publisher: Mutex<Option<Publisher>>,
}

impl Outside {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }

    fn note(&self, what: &str, topic: &Topic) {
        self.asked.lock().push(format!("{what} {}", topic.name()));
    }
}

#[async_trait]
impl Upstream for Outside {
    async fn attach(&self, topic: &Topic) -> Result<(), Refusal> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Refusal::new(Code::Unavailable, "the database is down"));
        }
        if topic.name().starts_with("slow") {
            sleep(SLOW).await;
            return Err(Refusal::new(Code::Unavailable, "the database is down"));
        }
        // As a real one: it takes some time, and others go on meanwhile.
        sleep(Duration::from_millis(1)).await;
        self.note("attach", topic);
        Ok(())
    }

    fn detach(&self, topic: &Topic) {
        self.note("detach", topic);
    }

    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
        let publisher = self.publisher.lock().clone().expect("set by the test");
        let draft = tidewire::Draft::message(topic.clone(), payload.clone());
        publisher.publish(vec![draft]).await;
        Ok(())
    }
}

fn node() -> (Node, Arc<Outside>) {
    let outside = Arc::new(Outside::default());
    let prepared = Node::builder().prepare();
    *outside.publisher.lock() = Some(prepared.publisher().clone());
    let node = prepared.upstream(TopicKind::Notify, Arc::clone(&outside) as _).start();
    (node, outside)
}

async fn listen(client: &mut Client, channel: &str) -> serde_json::Value {
    client.ask(json!({"type": "subscribe", "notify": channel})).await
}

async fn unlisten(client: &mut Client, channel: &str) {
    client.ask(json!({"type": "unsubscribe", "notify": channel})).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_asked_for_before_its_listener_is_answered() {
    let (node, outside) = node();
    let mut client = Client::open(&node);
    assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
    assert_eq!(outside.asked(), ["attach orders"]);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_asks_again_has_its_source_asked_again_and_misses_nothing() {
    let (node, outside) = node();
    let mut client = Client::open(&node);
    listen(&mut client, "orders").await;
    let request = json!({"type": "publish", "notify": "orders", "data": "hi", "echo": true});
    client.ask(request.clone()).await;
    // The source may have lost the topic meanwhile, so that a yes unasked would be a lie.
    assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
    assert_eq!(outside.asked(), ["attach orders", "attach orders"]);
    client.ask(request).await;
    assert_eq!(client.contents(2).await, ["hi", "hi"]);
    client.hears_nothing().await;

    outside.down.store(true, Ordering::SeqCst);
    let refused = listen(&mut client, "orders").await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("unavailable")));
    assert_eq!(node.stats().subscriptions, 1, "what was there before is as it was");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_a_channel_comes_back_through_it() {
    let (node, _outside) = node();
    let mut client = Client::open(&node);
    listen(&mut client, "orders").await;
    let request = json!({"type": "publish", "notify": "orders", "data": "hi", "echo": false});
    let answer = client.ask(request).await;
    assert_eq!((&answer["type"], &answer["position"]), (&json!("published"), &json!(null)));
    assert_eq!(client.event().await["data"], "hi");
}

#[tokio::test(start_paused = true)]
async fn a_topic_lingers_and_is_then_let_go_of() {
    let (node, outside) = node();
    let mut client = Client::open(&node);
    listen(&mut client, "orders").await;
    unlisten(&mut client, "orders").await;
    let start = Instant::now();
    until("the topic is gone", || node.stats().topics == 0).await;
    let linger = node.limits().linger;
    let lingered = start.elapsed();
    assert!((linger..linger + Duration::from_secs(3)).contains(&lingered), "{lingered:?}");
    assert_eq!(outside.asked(), ["attach orders", "detach orders"]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_within_the_linger_keeps_the_topic() {
    let (node, outside) = node();
    for _ in 0..10 {
        let mut client = Client::open(&node);
        listen(&mut client, "orders").await;
        drop(client);
        sleep(node.limits().linger / 2).await;
    }
    assert!(!outside.asked().contains(&"detach orders".to_owned()));
    assert_eq!(node.stats().topics, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_listeners_is_never_detached_after_they_attached() {
    let (node, outside) = node();
    // Topics end as soon as the ticker looks, while others come.
    node.set_limits(Limits { linger: Duration::ZERO, burst: 1_000_000, ..Limits::default() });
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let node = node.clone();
        tasks.spawn(async move {
            let mut client = Client::open(&node);
            let mut turn = task;
            while Instant::now() < deadline {
                turn += 1;
                assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
                if turn % 5 == 0 {
                    sleep(Duration::from_millis(turn % 40)).await;
                }
                unlisten(&mut client, "orders").await;
            }
            assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
            client
        });
    }
    let clients = tasks.join_all().await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(outside.asked().last().expect("something"), "attach orders");
    drop(clients);
    until("the topic is gone", || node.stats().topics == 0).await;
    assert_eq!(outside.asked(), ["detach orders"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_is_a_refusal_and_leaves_nothing_behind() {
    let (node, outside) = node();
    let mut client = Client::open(&node);
    outside.down.store(true, Ordering::SeqCst);
    for channel in 0..10 {
        let answer = listen(&mut client, &format!("channel {channel}")).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("unavailable")));
    }
    assert_eq!(node.stats().subscriptions, 0);
    until("the topics are gone", || node.stats().topics == 0).await;
    outside.down.store(false, Ordering::SeqCst);
    assert_eq!(listen(&mut client, "channel 1").await["type"], "subscribed");
    assert_eq!(node.stats().topics, 1);
}

/// A broker whose `unfollow` takes its time, and that forgets what nobody follows.
#[derive(Default)]
struct Sluggish {
    local: LocalBroker,
    followed: Mutex<Vec<Topic>>,
    unfollowing: AtomicBool,
    go_on: Notify,
}

#[async_trait]
impl Broker for Sluggish {
    fn attach(&self, inlet: Inlet) {
        self.local.attach(inlet);
    }

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        let followed = self.followed.lock().clone();
        let wanted = events.iter().filter(|event| followed.contains(&event.topic));
        self.local.announce(&wanted.cloned().collect::<Vec<_>>()).await
    }

    async fn follow(&self, topic: &Topic) -> Result<(), Error> {
        self.followed.lock().push(topic.clone());
        Ok(())
    }

    async fn unfollow(&self, topic: &Topic) -> Result<(), Error> {
        self.unfollowing.store(true, Ordering::SeqCst);
        self.go_on.notified().await;
        self.followed.lock().retain(|followed| followed != topic);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_broker_lets_go_of_the_topic_still_hears_it() {
    let broker = Arc::new(Sluggish::default());
    let node = Node::builder().broker(Arc::clone(&broker) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    client.ask(json!({"type": "unsubscribe", "topic": "a"})).await;
    until("the broker is told", || broker.unfollowing.load(Ordering::SeqCst)).await;
    client.subscribe("a").await;
    broker.go_on.notify_one();
    sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    count(&node, "a", 0..3).await;
    assert_eq!(client.contents(3).await, numbers(0..3));
    assert!(start.elapsed() < Duration::from_millis(100), "no check was needed to find them");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_does_not_stop_the_clock() {
    let broker = Arc::new(Sluggish::default());
    let node = Node::builder().broker(Arc::clone(&broker) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    client.ask(json!({"type": "unsubscribe", "topic": "a"})).await;
    until("the broker hangs", || broker.unfollowing.load(Ordering::SeqCst)).await;
    client.subscribe("b").await;
    // Left unread for longer than a client may.
    publish(&node, "b", "x").await;
    sleep(node.limits().write_timeout + Duration::from_secs(2)).await;
    assert_eq!(client.end().await, tidewire::protocol::Close::SlowConsumer);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_takes_long_holds_up_no_other_request() {
    let (node, _outside) = node();
    let mut client = Client::open(&node);
    let begun = Instant::now();
    for channel in ["slow 1", "slow 2", "slow 3"] {
        client.tell(json!({"type": "subscribe", "notify": channel})).await;
    }
    assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    assert!(begun.elapsed() < SLOW, "nothing should have waited for the slow ones");
    for id in 1..=3 {
        let refused = client.next().await;
        assert_eq!((&refused["code"], &refused["id"]), (&json!("unavailable"), &json!(id)));
    }
    assert_eq!(begun.elapsed().as_secs(), SLOW.as_secs(), "they should wait side by side");
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_waits_can_be_taken_back_and_counts_as_a_subscription() {
    let outside = Arc::new(Outside::default());
    let limits = Limits { subscriptions: 2, ..Limits::default() };
    let prepared = Node::builder().limits(limits).prepare();
    *outside.publisher.lock() = Some(prepared.publisher().clone());
    let node = prepared.upstream(TopicKind::Notify, Arc::clone(&outside) as _).start();
    let mut client = Client::open(&node);
    for channel in ["slow 1", "slow 2"] {
        client.tell(json!({"type": "subscribe", "notify": channel})).await;
    }
    assert_eq!(listen(&mut client, "orders").await["code"], "too_many_subscriptions");
    unlisten(&mut client, "slow 1").await;
    let taken_back = client.next().await;
    assert_eq!((&taken_back["type"], &taken_back["id"]), (&json!("unsubscribed"), &json!(1)));
    assert_eq!(listen(&mut client, "orders").await["type"], "subscribed");
    sleep(SLOW).await;
    assert_eq!(client.next().await["notify"], "slow 2");
    client.hears_nothing().await;
}
