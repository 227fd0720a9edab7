//! Everyone who is there, for a language that tells it with each change.

use tidewire::protocol::Wire;
use tidewire::protocol::dialect::Fluxbase;
use tidewire::{Identity, Opening};

use super::*;

/// A client that believes what it was told last, as that language's SDK does.
struct Believer {
    client: Client,
    state: Value,
    /// Frames of presence heard, and how many of them told everyone.
    heard: usize,
    lists: usize,
}

impl Believer {
    async fn open(node: &Node) -> Self {
        let opening = Opening::new(Arc::new(Fluxbase), Wire::Lines, Identity::everything());
        let mut client = Client::opening(node, opening);
        client.say(&json!({"type": "subscribe", "channel": "a"})).await.expect("it goes on");
        assert_eq!(client.next().await["type"], "ack");
        Self { client, state: json!({}), heard: 0, lists: 0 }
    }

    async fn track(&mut self, key: &str, state: Value) {
        let payload = json!({"key": key, "state": state});
        let track =
            json!({"type": "presence", "channel": "a", "event": "track", "payload": payload});
        self.client.say(&track).await.expect("it goes on");
    }

    /// Takes in all that comes.
    async fn listen(&mut self) -> &Value {
        for frame in self.client.everything().await {
            assert_eq!(frame["type"], "presence", "{frame}");
            self.heard += 1;
            let state = &frame["presence"]["currentPresences"];
            if state.is_object() {
                self.lists += 1;
                self.state = state.clone();
            }
        }
        &self.state
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_tells_everyone_who_is_there() {
    let node = Node::builder().start();
    let mut watcher = Believer::open(&node).await;
    let (mut ann, mut bob) = (Believer::open(&node).await, Believer::open(&node).await);
    ann.track("ann", json!({"at": 1})).await;
    assert_eq!(*watcher.listen().await, json!({"ann": [{"at": 1}]}));
    bob.track("bob", json!({})).await;
    assert_eq!(*watcher.listen().await, json!({"ann": [{"at": 1}], "bob": [{}]}));
    ann.track("ann", json!({"at": 2})).await;
    assert_eq!(*watcher.listen().await, json!({"ann": [{"at": 2}], "bob": [{}]}));
    drop(bob);
    assert_eq!(*watcher.listen().await, json!({"ann": [{"at": 2}]}));
    assert_eq!((watcher.heard, watcher.lists), (4, 4));
    assert_eq!(ann.listen().await, &watcher.state);
}

#[tokio::test(start_paused = true)]
async fn everyone_is_told_once_for_all_who_come_together() {
    let node = Node::builder().start();
    let mut watcher = Believer::open(&node).await;
    let mut members = Vec::new();
    for number in 0..100 {
        let mut member = Believer::open(&node).await;
        member.track(&number.to_string(), json!({})).await;
        members.push(member);
    }
    assert_eq!(watcher.listen().await.as_object().map(serde_json::Map::len), Some(100));
    assert!(watcher.heard >= 100 && watcher.lists <= 5, "{} lists", watcher.lists);
    drop(members);
    assert_eq!(*watcher.listen().await, json!({}));
    assert!(watcher.lists <= 10, "{} lists", watcher.lists);
}

#[tokio::test(start_paused = true)]
async fn who_fell_behind_ends_up_with_everyone() {
    let limits = Limits { mailbox_bytes: 600, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut watcher = Believer::open(&node).await;
    let mut members = Vec::new();
    for number in 0..50 {
        let mut member = Believer::open(&node).await;
        member.track(&number.to_string(), json!({})).await;
        // Each change is told alone, and the watcher reads none of them.
        tokio::time::sleep(2 * Limits::default().presence_interval).await;
        members.push(member);
    }
    assert_eq!(watcher.listen().await.as_object().map(serde_json::Map::len), Some(50));
}

#[tokio::test(start_paused = true)]
async fn a_very_long_list_is_not_told_with_each_change() {
    let node = Node::builder().start();
    let mut watcher = Believer::open(&node).await;
    let mut members = Vec::new();
    for number in 0..100 {
        let mut member = Believer::open(&node).await;
        member.track(&number.to_string(), json!({"text": "x".repeat(1_500)})).await;
        members.push(member);
    }
    watcher.listen().await;
    let lists = watcher.lists;
    members[0].track("0", json!({"text": ""})).await;
    watcher.listen().await;
    assert_eq!((watcher.heard, watcher.lists), (101, lists), "whose state changed is told alone");
}
