//! A topic with so many listeners that they are in several lanes.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};
use serde_json::json;
use tidewire::protocol::Wire;
use tidewire::protocol::dialect::Native;
use tidewire::{Identity, Limits, Node, Opening, Outlet};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::support::{Client, SOON, count, numbers, publish, until};

/// Enough for three lanes.
const CROWD: usize = 1_200;

const EVENTS: usize = 30;

async fn crowd(node: &Node, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::open(node);
        client.subscribe("a").await;
        clients.push(client);
    }
    clients
}

/// A crowd with sockets that are written to directly.
async fn crowd_on(node: &Node, outlet: &(impl Outlet + Clone)) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CROWD {
        let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
        let mut client = Client::opening(node, opening.outlet(Box::new(outlet.clone())));
        client.say(&json!({"type": "subscribe", "topic": "a"})).await.expect("the session goes on");
        client.session.flush().expect("the socket is whole");
        clients.push(client);
    }
    clients
}

fn joined(buffers: &[IoSlice<'_>]) -> Vec<u8> {
    buffers.iter().flat_map(|buffer| buffer.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_hears_everything_in_order_while_others_come_and_go() {
    let limits = Limits { mailbox_bytes: 2_000, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let start = Client::open(&node).subscribe("a").await["position"].take();
    let crowd = crowd(&node, CROWD).await;
    let mut readers = JoinSet::new();
    for mut client in crowd {
        readers.spawn(async move {
            assert_eq!(client.contents(EVENTS).await, numbers(0..EVENTS));
        });
    }
    for number in 0..EVENTS {
        publish(&node, "a", &number.to_string()).await;
        let (node, start) = (node.clone(), start.clone());
        readers.spawn(async move {
            let mut client = Client::open(&node);
            let answer = client.resume("a", &start).await;
            assert_eq!(answer["type"], "subscribed", "{answer}");
            assert_eq!(client.contents(number).await, numbers(0..number));
        });
    }
    while let Some(read) = readers.join_next().await {
        read.expect("every reader is content");
    }
    assert_eq!(node.metrics().announcements_dropped.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_thins_out_goes_on_hearing() {
    let node = Node::builder().start();
    let mut crowd = crowd(&node, CROWD).await;
    crowd.drain(..CROWD - 10);
    let mut late = Client::open(&node);
    late.subscribe("a").await;
    crowd.push(late);
    count(&node, "a", 0..EVENTS).await;
    for client in &mut crowd {
        assert_eq!(client.contents(EVENTS).await, numbers(0..EVENTS));
        client.hears_nothing().await;
    }
}

/// A socket in which the first thread waits for a second, once it matters.
#[derive(Clone, Default)]
struct Meeting {
    begun: Arc<AtomicBool>,
    threads: Arc<(Mutex<HashSet<ThreadId>>, Condvar)>,
}

impl Outlet for Meeting {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.load(Ordering::SeqCst) {
            let (threads, changed) = &*self.threads;
            let mut threads = threads.lock();
            threads.insert(thread::current().id());
            changed.notify_all();
            changed.wait_while_for(&mut threads, |threads| threads.len() < 2, SOON);
        }
        Ok(bytes.len())
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write(&joined(buffers))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_is_written_to_by_several_threads_at_once() {
    let node = Node::builder().start();
    let meeting = Meeting::default();
    let _clients = crowd_on(&node, &meeting).await;
    meeting.begun.store(true, Ordering::SeqCst);
    publish(&node, "a", "x").await;
    let threads = || meeting.threads.0.lock().len();
    until("two threads write", || threads() == 2).await;
}

/// A socket that notes which turn of another task it is written to in.
#[derive(Clone, Default)]
struct Witness {
    turn: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
    seen: Arc<Mutex<HashSet<usize>>>,
}

impl Outlet for Witness {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.seen.lock().insert(self.turn.load(Ordering::SeqCst));
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write(&joined(buffers))
    }
}

#[tokio::test]
async fn writing_to_a_crowd_leaves_other_tasks_their_turn() {
    let node = Node::builder().start();
    let witness = Witness::default();
    let _clients = crowd_on(&node, &witness).await;
    witness.writes.store(0, Ordering::SeqCst);
    witness.seen.lock().clear();
    publish(&node, "a", "x").await;
    // Another task of the one thread there is.
    let other = async {
        while witness.writes.load(Ordering::SeqCst) < CROWD {
            witness.turn.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
        }
    };
    timeout(SOON, other).await.expect("everyone should be written to soon");
    let turns = witness.seen.lock().len();
    assert!(turns >= 3, "{CROWD} writes were done in {turns} turns");
}
