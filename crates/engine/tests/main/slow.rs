//! Clients that do not read as fast as events come, and stores that do not answer.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidewire::metrics::NameLabel;
use tidewire::protocol::dialect::Native;
use tidewire::protocol::{Close, GapReason, Wire};
use tidewire::{Identity, Limits, Node, Opening, Outlet};
use tokio::time::{sleep, timeout};

use crate::support::{Client, Troubled, count, frames, keeping, numbers, publish, topic, until};

fn tiny_mailbox() -> Limits {
    Limits { mailbox_bytes: 500, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_catches_up_from_history() {
    let node = Node::builder().limits(tiny_mailbox()).start();
    let (mut slow, mut fast) = (Client::open(&node), Client::open(&node));
    slow.subscribe("a").await;
    fast.subscribe("a").await;
    for start in (0..500).step_by(5) {
        count(&node, "a", start..start + 5).await;
        assert_eq!(fast.contents(5).await, numbers(start..start + 5));
    }
    assert_eq!(slow.contents(500).await, numbers(0..500));
    slow.hears_nothing().await;
    count(&node, "a", 500..503).await;
    assert_eq!(slow.contents(3).await, numbers(500..503));
    assert!(node.metrics().fell_behind.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_slower_than_the_history_is_told_a_gap_and_goes_on() {
    let node = Node::builder().limits(tiny_mailbox()).history(Arc::new(keeping(10))).start();
    let mut slow = Client::open(&node);
    slow.subscribe("a").await;
    for start in (0..300).step_by(5) {
        count(&node, "a", start..start + 5).await;
        tokio::task::yield_now().await;
    }
    let mut gaps = 0;
    let mut last = -1;
    while last < 299 {
        let frame = slow.next().await;
        if frame["type"] == "gap" {
            assert_eq!(frame["reason"], "history_trimmed");
            gaps += 1;
            break;
        }
        assert_eq!(number(&frame), last + 1, "there is no hole before the gap");
        last = number(&frame);
    }
    assert_eq!(gaps, 1);
    slow.hears_nothing().await;
    count(&node, "a", 300..305).await;
    assert_eq!(slow.contents(5).await, numbers(300..305));
}

fn number(frame: &Value) -> i64 {
    frame["data"].as_str().expect("a text").parse().expect("a number")
}

/// A socket that takes so many bytes and then no more until it may.
#[derive(Clone, Default)]
struct Pipe(Arc<(AtomicUsize, Mutex<Vec<u8>>)>);

impl Pipe {
    fn allow(&self, bytes: usize) {
        self.0.0.fetch_add(bytes, Ordering::SeqCst);
    }

    fn frames(&self) -> Vec<Value> {
        frames(Wire::WebSocket, &self.0.1.lock())
    }
}

impl Outlet for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.0.load(Ordering::SeqCst).min(bytes.len());
        self.0.0.fetch_sub(room, Ordering::SeqCst);
        self.0.1.lock().extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        self.try_write(&joined)
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_a_few_bytes_at_a_time_receives_everything() {
    let node = Node::builder().limits(tiny_mailbox()).start();
    let pipe = Pipe::default();
    let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
    let mut client = Client::opening(&node, opening.outlet(Box::new(pipe.clone())));
    client.say(&json!({"type": "subscribe", "topic": "a"})).await.unwrap();
    count(&node, "a", 0..400).await;
    let mut full = false;
    for turn in 0..20_000_usize {
        // As a transport does: the session's word, or a socket that takes bytes again.
        tokio::select! {
            biased;
            ready = client.session.ready() => ready.expect("the session goes on"),
            () = sleep(Duration::from_millis(1)), if full => pipe.allow(turn % 90),
            () = sleep(Duration::from_secs(5)) => break,
        }
        full = !client.session.flush().expect("the pipe is whole");
    }
    let frames = pipe.frames();
    assert_eq!(frames[0]["type"], "subscribed");
    let contents: Vec<_> = frames[1..].iter().map(|frame| frame["data"].clone()).collect();
    assert_eq!(contents, numbers(0..400));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_ends_after_the_write_timeout() {
    let node = Node::builder().start();
    let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
    let mut client = Client::opening(&node, opening.outlet(Box::new(Pipe::default())));
    client.say(&json!({"type": "subscribe", "topic": "a"})).await.unwrap();
    client.session.ready().await.expect("there is an answer to write");
    assert!(!client.session.flush().expect("the pipe is whole"), "the pipe takes nothing");
    let end = timeout(Duration::from_secs(40), client.session.ready()).await;
    assert_eq!(end.expect("the session should end"), Err(Close::SlowConsumer));
}

#[tokio::test(start_paused = true)]
async fn a_history_that_hangs_for_one_topic_holds_back_no_other() {
    let history = Troubled::keeping(1_000);
    let node = Node::builder().limits(tiny_mailbox()).history(Arc::clone(&history) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("stuck").await;
    client.subscribe("live").await;
    count(&node, "stuck", 0..100).await;
    tokio::task::yield_now().await;
    history.hang(Some(topic("stuck")));
    let mut stuck = Vec::new();
    for content in 0..20 {
        publish(&node, "live", &content.to_string()).await;
        loop {
            let event = client.event().await;
            if event["topic"] == "live" {
                assert_eq!(event["data"], content.to_string());
                break;
            }
            stuck.push(event["data"].clone());
        }
    }
    assert!(stuck.len() < 100, "the topic should be behind, or this shows nothing");
    history.hang(None);
    stuck.extend(client.contents(100 - stuck.len()).await);
    assert_eq!(stuck, numbers(0..100));
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waits_for_a_history_that_hangs_can_be_ended() {
    let history = Troubled::keeping(1_000);
    let node = Node::builder().limits(tiny_mailbox()).history(Arc::clone(&history) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    count(&node, "a", 0..100).await;
    tokio::task::yield_now().await;
    history.hang(Some(topic("a")));
    let down = tokio::spawn(async move {
        node.shutdown(Duration::ZERO, Duration::from_secs(5)).await;
    });
    assert_eq!(client.end().await, Close::Restart { after: 0 });
    drop(client);
    down.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_history_that_failed_for_a_while_is_read_when_it_works_again() {
    let history = Troubled::keeping(1_000);
    let node = Node::builder().limits(tiny_mailbox()).history(Arc::clone(&history) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    count(&node, "a", 0..100).await;
    tokio::task::yield_now().await;
    history.fail(true);
    let mut seen = 0;
    while let Ok(frame) = timeout(Duration::from_secs(3), client.event()).await {
        assert_eq!(number(&frame), seen);
        seen += 1;
    }
    assert!(seen < 100, "the reader should be behind, or this shows nothing");
    history.fail(false);
    for expected in seen..100 {
        assert_eq!(number(&client.event().await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_that_begins_again_is_told_and_not_asked_without_end() {
    let history = Troubled::keeping(1_000);
    let limits = Limits { ping_interval: Duration::from_secs(3_600), ..tiny_mailbox() };
    let node = Node::builder().limits(limits).history(Arc::clone(&history) as _).start();
    let (mut slow, mut live) = (Client::open(&node), Client::open(&node));
    slow.subscribe("a").await;
    live.subscribe("a").await;
    count(&node, "a", 0..50).await;
    assert_eq!(live.contents(50).await, numbers(0..50));
    history.begin_again(1_000);
    let reads = history.reads.load(Ordering::SeqCst);
    for client in [&mut slow, &mut live] {
        let gap = loop {
            let frame = client.next().await;
            if frame["type"] != "event" {
                break frame;
            }
        };
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("epoch_changed")));
        // The slow one is further than the relay now, and must let it come after.
        client.hears_nothing().await;
    }
    let reads = history.reads.load(Ordering::SeqCst) - reads;
    assert!(reads < 100, "the history was read {reads} times");
    publish(&node, "a", "next").await;
    for client in [&mut slow, &mut live] {
        assert_eq!(client.event().await["data"], "next");
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn live_listeners_are_told_what_the_relay_could_not_read_at_first() {
    let history = Troubled::keeping(1_000);
    let broker = Arc::new(Deaf::default());
    let node =
        Node::builder().history(Arc::clone(&history) as _).broker(Arc::clone(&broker) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    broker.lose(true);
    count(&node, "a", 0..10).await;
    broker.lose(false);
    history.hang(Some(topic("a")));
    count(&node, "a", 10..11).await;
    client.hears_nothing().await;
    history.fail(true);
    history.hang(None);
    client.hears_nothing().await;
    history.fail(false);
    // Within two seconds, without another announcement.
    let seen = timeout(Duration::from_secs(2), client.contents(11)).await;
    assert_eq!(seen.expect("the events should come"), numbers(0..11));
    until("the failure was counted", || node.metrics().failures.get() > 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_waits_for_the_history_holds_back_no_other_and_misses_nothing() {
    let history = Troubled::keeping(10_000);
    let broker = Arc::new(Deaf::default());
    let node =
        Node::builder().history(Arc::clone(&history) as _).broker(Arc::clone(&broker) as _).start();
    // More than are read at once.
    let names: Vec<_> = (0..40).map(|index| format!("stuck {index}")).collect();
    let (mut stuck, mut live) = (Vec::new(), Client::open(&node));
    for name in &names {
        let mut client = Client::open(&node);
        client.subscribe(name).await;
        stuck.push(client);
    }
    live.subscribe("live").await;
    broker.lose(true);
    for name in &names {
        publish(&node, name, "0").await;
    }
    broker.lose(false);
    history.hang(names.iter().map(|name| topic(name)));
    for name in &names {
        publish(&node, name, "1").await;
    }
    // One of them is told more than may wait.
    count(&node, &names[0], 2..1_500).await;
    for content in 0..20 {
        publish(&node, "live", &content.to_string()).await;
        assert_eq!(live.event().await["data"], content.to_string());
    }
    history.hang(None);
    for client in &mut stuck[1..] {
        assert_eq!(client.contents(2).await, numbers(0..2));
    }
    assert_eq!(stuck[0].contents(1_500).await, numbers(0..1_500));
    publish(&node, &names[0], "1500").await;
    assert_eq!(stuck[0].contents(1).await, numbers(1_500..1_501));
}

/// A broker that loses what it is told to.
#[derive(Default)]
struct Deaf {
    local: tidewire::broker::LocalBroker,
    losing: std::sync::atomic::AtomicBool,
}

impl Deaf {
    fn lose(&self, losing: bool) {
        self.losing.store(losing, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl tidewire::Broker for Deaf {
    fn attach(&self, inlet: tidewire::Inlet) {
        self.local.attach(inlet);
    }

    async fn announce(&self, events: &[Arc<tidewire::Event>]) -> Result<(), tidewire::Error> {
        if self.losing.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.local.announce(events).await
    }

    async fn follow(&self, _: &tidewire::Topic) -> Result<(), tidewire::Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &tidewire::Topic) -> Result<(), tidewire::Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_announcement_is_found_in_time() {
    let broker = Arc::new(Deaf::default());
    let node = Node::builder().broker(Arc::clone(&broker) as _).start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    broker.lose(true);
    publish(&node, "a", "lost").await;
    assert_eq!(client.event().await["data"], "lost");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_counted_once_somebody_is_told_of_it() {
    let prepared = Node::builder().prepare();
    let publisher = prepared.publisher().clone();
    let node = prepared.start();
    let reason = GapReason::ConnectionLost;
    let told = || node.metrics().gaps.get_or_create(&NameLabel { name: reason.word() }).get();
    publisher.interrupt(&topic("a"), reason).await.unwrap();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    assert_eq!(told(), 0, "nobody listened when it was appended");
    publisher.interrupt(&topic("a"), reason).await.unwrap();
    assert_eq!(client.next().await["type"], "gap");
    assert_eq!(told(), 1);
}
