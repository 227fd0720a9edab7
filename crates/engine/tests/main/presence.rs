//! Who is here, as sessions see it.

mod everyone;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tidewire::{Limits, Node};

use crate::support::{Client, Troubled, keeping};

/// What a client knows of who is here, by reference.
#[derive(Default)]
struct Known(BTreeMap<String, Value>);

impl Known {
    /// From a `subscribed` or a `members` frame.
    fn told(frame: &Value) -> Self {
        let mut known = Self::default();
        known.add(&frame["members"]);
        known
    }

    fn apply(&mut self, frame: &Value) {
        if frame["type"] == "members" {
            *self = Self::told(frame);
            return;
        }
        assert_eq!(frame["type"], "presence", "{frame}");
        for member in frame["leaves"].as_array().expect("leaves") {
            self.0.remove(member["ref"].as_str().expect("a reference"));
        }
        self.add(&frame["joins"]);
    }

    fn add(&mut self, members: &Value) {
        for member in members.as_array().expect("a list of members") {
            let reference = member["ref"].as_str().expect("a reference").to_owned();
            self.0.insert(reference, member.clone());
        }
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<_> =
            self.0.values().map(|member| member["key"].as_str().expect("a key")).collect();
        keys.sort_unstable();
        keys
    }
}

async fn watch(client: &mut Client) -> Known {
    let request = json!({"type": "subscribe", "topic": "a", "presence": true});
    let answer = client.ask(request).await;
    assert_eq!(answer["type"], "subscribed", "{answer}");
    Known::told(&answer)
}

async fn join(client: &mut Client, key: &str) {
    client.subscribe("a").await;
    let answer = client.ask(json!({"type": "track", "topic": "a", "key": key})).await;
    assert_eq!((&answer["type"], &answer["key"]), (&json!("tracked"), &json!(key)), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_and_goes_is_told() {
    let node = Node::builder().start();
    let (mut watcher, mut member) = (Client::open(&node), Client::open(&node));
    let mut known = watch(&mut watcher).await;
    assert!(known.keys().is_empty());
    join(&mut member, "ann").await;
    known.apply(&watcher.next().await);
    assert_eq!(known.keys(), ["ann"]);

    let again = json!({"type": "track", "topic": "a", "key": "ann", "meta": {"typing": true}});
    member.ask(again).await;
    known.apply(&watcher.next().await);
    assert_eq!(known.0.values().next().expect("ann")["meta"], json!({"typing": true}));

    let answer = member.ask(json!({"type": "untrack", "topic": "a"})).await;
    assert_eq!(answer["type"], "untracked");
    known.apply(&watcher.next().await);
    assert!(known.keys().is_empty());
    watcher.hears_nothing().await;
    member.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_told_who_is_there() {
    let node = Node::builder().start();
    let mut members = [Client::open(&node), Client::open(&node)];
    join(&mut members[0], "ann").await;
    join(&mut members[1], "bob").await;
    let mut watcher = Client::open(&node);
    let known = watch(&mut watcher).await;
    assert_eq!(known.keys(), ["ann", "bob"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_connection_breaks_is_gone_for_the_others() {
    let node = Node::builder().start();
    let (mut watcher, mut member) = (Client::open(&node), Client::open(&node));
    let mut known = watch(&mut watcher).await;
    join(&mut member, "ann").await;
    known.apply(&watcher.next().await);
    drop(member);
    known.apply(&watcher.next().await);
    assert!(known.keys().is_empty());
    assert_eq!(node.metrics().members.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_connections_may_share_a_key() {
    let node = Node::builder().start();
    let (mut watcher, mut phone) = (Client::open(&node), Client::open(&node));
    let mut laptop = Client::open(&node);
    let mut known = watch(&mut watcher).await;
    join(&mut phone, "ann").await;
    join(&mut laptop, "ann").await;
    while known.keys().len() < 2 {
        known.apply(&watcher.next().await);
    }
    assert_eq!(known.keys(), ["ann", "ann"]);
    drop(phone);
    known.apply(&watcher.next().await);
    assert_eq!(known.keys(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_subscribed_cannot_be_seen() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    let answer = client.ask(json!({"type": "track", "topic": "a"})).await;
    assert_eq!(answer["code"], "not_subscribed");
    let answer = client.ask(json!({"type": "untrack", "topic": "a"})).await;
    assert_eq!(answer["type"], "untracked", "to untrack where nothing was tracked is nothing");
}

#[tokio::test(start_paused = true)]
async fn a_topic_takes_only_so_many_members() {
    let limits = Limits { members: 2, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut members = [Client::open(&node), Client::open(&node), Client::open(&node)];
    join(&mut members[0], "ann").await;
    join(&mut members[1], "bob").await;
    members[2].subscribe("a").await;
    let track = json!({"type": "track", "topic": "a", "key": "cy"});
    let answer = members[2].ask(track.clone()).await;
    assert_eq!((&answer["code"], &answer["topic"]), (&json!("too_many_members"), &json!("a")));
    members[0].ask(json!({"type": "untrack", "topic": "a"})).await;
    assert_eq!(members[2].ask(track).await["type"], "tracked");
}

#[tokio::test(start_paused = true)]
async fn what_a_member_attaches_has_a_size() {
    let node = Node::builder().start();
    let mut client = Client::open(&node);
    client.subscribe("a").await;
    let meta = json!({"text": "x".repeat(3_000)});
    let answer = client.ask(json!({"type": "track", "topic": "a", "meta": meta})).await;
    assert_eq!(answer["code"], "too_large");
    assert_eq!(node.metrics().members.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_tracked_on_so_many_topics_only() {
    let limits = Limits { subscriptions: 3, ..Limits::default() };
    let node = Node::builder().limits(limits).start();
    let mut client = Client::open(&node);
    for number in 0..4 {
        let name = format!("topic {number}");
        client.subscribe(&name).await;
        let answer = client.ask(json!({"type": "track", "topic": name})).await;
        let expected = if number < 3 { "tracked" } else { "error" };
        assert_eq!(answer["type"], expected, "{answer}");
        client.ask(json!({"type": "unsubscribe", "topic": name})).await;
    }
    assert_eq!(node.metrics().members.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn many_who_come_at_once_are_told_together() {
    let node = Node::builder().start();
    let mut watcher = Client::open(&node);
    let mut known = watch(&mut watcher).await;
    let mut members: Vec<_> = (0..100).map(|_| Client::open(&node)).collect();
    for (number, member) in members.iter_mut().enumerate() {
        join(member, &format!("member {number:03}")).await;
    }
    let mut frames = 0;
    while known.keys().len() < 100 {
        known.apply(&watcher.next().await);
        frames += 1;
    }
    assert!(frames <= 5, "100 who came in a moment were told in {frames} frames");
    drop(members);
    let mut frames = 0;
    while !known.keys().is_empty() {
        known.apply(&watcher.next().await);
        frames += 1;
    }
    assert!(frames <= 5, "100 who went in a moment were told in {frames} frames");
}

#[tokio::test(start_paused = true)]
async fn who_lost_changes_is_told_everyone_anew() {
    let limits = Limits { mailbox_bytes: 300, ..Limits::default() };
    let node = Node::builder().limits(limits).history(Arc::new(keeping(2))).start();
    let (mut watcher, mut member) = (Client::open(&node), Client::open(&node));
    let mut known = watch(&mut watcher).await;
    member.subscribe("a").await;
    for number in 0..20 {
        // Each change is told alone, and the watcher reads none of them.
        let meta = json!({"number": number});
        member.ask(json!({"type": "track", "topic": "a", "key": "ann", "meta": meta})).await;
        tokio::time::sleep(2 * Limits::default().presence_interval).await;
    }
    let mut anew = false;
    while known.0.values().next().is_none_or(|member| member["meta"]["number"] != 19) {
        let frame = watcher.next().await;
        anew |= frame["type"] == "members";
        known.apply(&frame);
    }
    assert!(anew, "changes were lost");
    watcher.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_as_long_as_it_may_be_does_not_end_the_session() {
    let node = Node::builder().start();
    let limits = Limits { burst: 10_000, ..Limits::default() };
    node.set_limits(limits.clone());
    let meta = json!({"text": "x".repeat(2_000)});
    let mut members = Vec::new();
    for _ in 0..limits.members {
        let mut member = Client::open(&node);
        member.subscribe("a").await;
        let track = json!({"type": "track", "topic": "a", "key": "k", "meta": meta});
        assert_eq!(member.ask(track).await["type"], "tracked");
        members.push(member);
    }
    let mut watcher = Client::open(&node);
    assert_eq!(watch(&mut watcher).await.keys().len(), limits.members);
    assert_eq!(watcher.ask(json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_could_not_be_written_is_told_later() {
    let history = Troubled::keeping(100);
    let node = Node::builder().history(Arc::clone(&history) as _).start();
    let (mut watcher, mut member) = (Client::open(&node), Client::open(&node));
    let mut known = watch(&mut watcher).await;
    member.subscribe("a").await;
    history.fail(true);
    member.ask(json!({"type": "track", "topic": "a", "key": "ann"})).await;
    watcher.hears_nothing().await;
    history.fail(false);
    known.apply(&watcher.next().await);
    assert_eq!(known.keys(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn who_subscribes_anew_without_presence_is_told_no_more_of_it() {
    let node = Node::builder().start();
    let (mut watcher, mut member) = (Client::open(&node), Client::open(&node));
    watch(&mut watcher).await;
    watcher.subscribe("a").await;
    join(&mut member, "ann").await;
    watcher.hears_nothing().await;
    assert_eq!(node.stats().subscriptions, 2);
}
