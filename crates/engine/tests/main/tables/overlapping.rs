//! Several subscriptions of one client to parts of one table that overlap, in the dialect that
//! has them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidewire::protocol::dialect::Fluxbase;
use tidewire::protocol::{SessionId, Wire};
use tidewire::{Identity, Limits, Opening};

use super::*;

fn open(node: &Node) -> Client {
    let opening = Opening::new(Arc::new(Fluxbase), Wire::Lines, Identity::everything());
    Client::opening(node, opening)
}

/// Sends a request and gives the next frame.
async fn ask(client: &mut Client, frame: Json) -> Json {
    client.say(&frame).await.expect("the session goes on");
    client.next().await
}

/// Subscribes and gives the subscription's id.
async fn want(client: &mut Client, event: &str, filter: Option<&str>) -> Json {
    let config = json!({"event": event, "table": "orders", "filter": filter});
    let ack = ask(client, json!({"type": "subscribe", "channel": "any", "config": config})).await;
    assert_eq!(ack["payload"]["subscribed"], true, "{ack}");
    ack["payload"]["subscription_id"].clone()
}

async fn want_no_more(client: &mut Client, id: &Json) {
    let ack = ask(client, json!({"type": "unsubscribe", "subscription_id": id})).await;
    assert_eq!(ack["payload"], json!({"subscription_id": id, "unsubscribed": true}));
}

/// The sort of the next change, which must come as the newer frames tell it.
async fn heard(client: &mut Client) -> Json {
    let frame = client.next().await;
    assert_eq!(frame["type"], "postgres_changes", "{frame}");
    frame["payload"]["type"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_change_that_several_subscriptions_want_is_told_once() {
    for filter in ["state=eq.paid", "slow state=eq.paid"] {
        let (node, database) = start();
        let mut client = open(&node);
        want(&mut client, "*", Some(filter)).await;
        want(&mut client, "INSERT", None).await;
        want(&mut client, "INSERT", Some(filter)).await;
        database.commit_and_publish(1, Some("paid")).await;
        assert_eq!(heard(&mut client).await, "INSERT");
        database.commit_and_publish(2, Some("new")).await;
        assert_eq!(heard(&mut client).await, "INSERT");
        database.commit_and_publish(1, None).await;
        assert_eq!(heard(&mut client).await, "DELETE");
        database.commit_and_publish(2, None).await;
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_goes_from_one_filter_to_another_stays_with_the_client() {
    for slow in ["", "slow "] {
        let (node, database) = start();
        let mut client = open(&node);
        want(&mut client, "*", Some(&format!("{slow}state=eq.new"))).await;
        want(&mut client, "*", Some(&format!("{slow}state=eq.paid"))).await;
        database.commit_and_publish(1, Some("new")).await;
        database.commit_and_publish(1, Some("paid")).await;
        assert_eq!(heard(&mut client).await, "INSERT");
        assert_eq!(heard(&mut client).await, "UPDATE");
        // Of a row that leaves the last of them the language says nothing.
        database.commit_and_publish(1, Some("sent")).await;
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_subscription_ends_alone() {
    let (node, database) = start();
    let mut client = open(&node);
    let inserts = want(&mut client, "INSERT", None).await;
    let deletes = want(&mut client, "DELETE", None).await;
    assert_eq!(node.stats().subscriptions, 2);
    want_no_more(&mut client, &inserts).await;
    database.commit_and_publish(1, Some("new")).await;
    database.commit_and_publish(1, None).await;
    assert_eq!(heard(&mut client).await, "DELETE");
    want_no_more(&mut client, &deletes).await;
    database.commit_and_publish(2, Some("new")).await;
    client.hears_nothing().await;
    assert_eq!(node.stats().subscriptions, 0);
    want_no_more(&mut client, &deletes).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_channel_of_a_table_hears_no_more_of_it_however_it_asked() {
    let (node, database) = start();
    let mut client = open(&node);
    let leave = json!({"type": "unsubscribe", "channel": "table:public.orders"});
    for documented in [false, true] {
        want(&mut client, "INSERT", None).await;
        if documented {
            let request = json!({"type": "subscribe", "channel": "table:public.orders"});
            assert_eq!(ask(&mut client, request).await["type"], "ack");
        }
        want(&mut client, "*", Some("state=eq.new")).await;
        let ack = ask(&mut client, leave.clone()).await;
        assert_eq!(ack, json!({"type": "ack", "channel": "table:public.orders"}));
        assert_eq!(node.stats().subscriptions, 0);
        database.commit_and_publish(u64::from(documented), Some("new")).await;
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again_is_acknowledged_and_changes_nothing() {
    let (node, database) = start();
    let mut client = open(&node);
    let id = want(&mut client, "*", None).await;
    want(&mut client, "INSERT", None).await;
    assert_eq!(want(&mut client, "*", None).await, id);
    assert_eq!(node.stats().subscriptions, 2);
    database.commit_and_publish(1, Some("new")).await;
    assert_eq!(heard(&mut client).await, "INSERT");
    client.hears_nothing().await;
    drop(client);
    assert_eq!(node.stats().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn each_of_them_counts_for_the_limit() {
    let limits = Limits { subscriptions: 2, ..Limits::default() };
    let prepared = Node::builder().limits(limits).prepare();
    let database = Database::new(prepared.publisher().clone());
    let node = prepared.upstream(TopicKind::Table, database).start();
    let mut client = open(&node);
    want(&mut client, "INSERT", None).await;
    want(&mut client, "UPDATE", None).await;
    let third = json!({"type": "subscribe", "table": "orders", "event": "DELETE"});
    let refused = ask(&mut client, third).await;
    let message = "table:public.orders: a connection has at most 2 subscriptions";
    assert_eq!(refused, json!({"type": "error", "error": message}));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_cannot_be_applied_any_more_ends_alone() {
    for filter in ["gone=eq.x", "slow gone=eq.x"] {
        let (node, database) = start();
        let mut client = open(&node);
        want(&mut client, "DELETE", None).await;
        want(&mut client, "*", Some(filter)).await;
        database.commit_and_publish(1, Some("new")).await;
        let ended = json!({
            "type": "error", "error": "table:public.orders ended: the column gone is gone",
        });
        assert_eq!(client.next().await, ended);
        assert_eq!(node.stats().subscriptions, 1);
        database.commit_and_publish(1, None).await;
        assert_eq!(heard(&mut client).await, "DELETE");
    }
}

#[tokio::test(start_paused = true)]
async fn both_sorts_of_subscription_are_told_in_their_own_frames() {
    let (node, database) = start();
    let mut client = open(&node);
    let channel = "table:public.orders";
    let ack = ask(&mut client, json!({"type": "subscribe", "channel": channel})).await;
    assert_eq!(ack, json!({"type": "ack", "channel": channel}));
    want(&mut client, "*", None).await;
    want(&mut client, "INSERT", None).await;
    database.commit_and_publish(1, Some("new")).await;
    let mut kinds = BTreeSet::new();
    for _ in 0..2 {
        kinds.insert(client.next().await["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(kinds, ["broadcast", "postgres_changes"].map(String::from).into());
    client.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_fell_behind_may_ask_for_more_and_for_less() {
    let limits = Limits { mailbox_bytes: 2_000, ..Limits::default() };
    let prepared = Node::builder().limits(limits).prepare();
    let database = Database::new(prepared.publisher().clone());
    let node = prepared.upstream(TopicKind::Table, Arc::clone(&database) as _).start();
    let mut client = open(&node);
    let inserts = want(&mut client, "INSERT", None).await;
    for id in 0..100 {
        database.commit_and_publish(id, Some("new")).await;
    }
    let deletes = json!({"type": "subscribe", "table": "orders", "event": "DELETE"});
    client.say(&deletes).await.expect("the session goes on");
    let again = json!({"type": "unsubscribe", "subscription_id": "public.orders:DELETE"});
    client.say(&again).await.expect("the session goes on");
    client.say(&deletes).await.expect("the session goes on");
    database.commit_and_publish(0, None).await;
    let mut told = Vec::new();
    for frame in client.everything().await {
        if frame["type"] == "postgres_changes" {
            let payload = &frame["payload"];
            let row = if payload["type"] == "INSERT" { "record" } else { "old_record" };
            told.push((payload["type"].as_str().unwrap().to_owned(), payload[row]["id"].clone()));
        }
    }
    let mut expected: Vec<_> = (0..100).map(|id| ("INSERT".to_owned(), json!(id))).collect();
    expected.push(("DELETE".to_owned(), json!(0)));
    assert_eq!(told, expected);
    want_no_more(&mut client, &inserts).await;
}

#[tokio::test(start_paused = true)]
async fn history_from_before_a_filter_s_column_ends_the_subscription_with_a_word() {
    let (node, database) = start();
    database.commit_and_publish(1, Some("new")).await;
    let mut client = Client::open(&node);
    let answer = subscribe(&mut client, json!({"filter": "gone=eq.x", "since": "earliest"})).await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(client.next().await["type"], "ended");
    assert_ne!(client.session.id(), SessionId(0), "the session goes on");
}

/// What a client of the property does, or a database.
#[derive(Clone, Copy, Debug)]
enum Step {
    Want(usize),
    WantNoMore(usize),
    Commit(u64, usize),
}

/// Subscriptions that overlap: which change, and the state that the row must have.
const WISHES: [(&str, Option<&str>); 5] = [
    ("*", Some("new")),
    ("*", Some("paid")),
    ("INSERT", None),
    ("DELETE", None),
    ("UPDATE", Some("new")),
];

const STATES: [Option<&str>; 4] = [None, Some("new"), Some("paid"), Some("sent")];

/// Whether the change is to be told to someone with these subscriptions.
fn is_wanted(wishes: &BTreeSet<usize>, was: Option<&str>, is: Option<&str>) -> bool {
    let event = match (was, is) {
        (None, _) => "INSERT",
        (_, None) => "DELETE",
        _ => "UPDATE",
    };
    let fits = |state: Option<&str>, row: Option<&str>| {
        row.is_some() && state.is_none_or(|state| row == Some(state))
    };
    wishes.iter().map(|wish| WISHES[*wish]).any(|(wanted, state)| {
        // Nothing is told of an update that moves the row out.
        let row = if event == "DELETE" { was } else { is };
        (wanted == "*" || wanted == event) && fits(state, row)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_any_subscription_wants_is_told_once_however_they_come_and_go(
        steps in prop::collection::vec(prop_oneof![
            (0..WISHES.len()).prop_map(Step::Want),
            (0..WISHES.len()).prop_map(Step::WantNoMore),
            (0u64..3, 0..STATES.len()).prop_map(|(id, state)| Step::Commit(id, state)),
            (0u64..3, 0..STATES.len()).prop_map(|(id, state)| Step::Commit(id, state)),
        ], 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(play(steps))?;
    }
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (node, database) = start();
    let mut client = open(&node);
    let mut wishes = BTreeSet::new();
    let mut expected = Vec::new();
    for step in steps {
        match step {
            Step::Want(wish) => {
                let (event, state) = WISHES[wish];
                let filter = state.map(|state| format!("state=eq.{state}"));
                let config = json!({"event": event, "table": "orders", "filter": filter});
                let request = json!({"type": "subscribe", "config": config});
                client.say(&request).await.expect("the session goes on");
                wishes.insert(wish);
            }
            Step::WantNoMore(wish) => {
                let (event, state) = WISHES[wish];
                let filter = state.map(|state| format!(":state=eq.{state}")).unwrap_or_default();
                let id = format!("public.orders:{event}{filter}");
                let request = json!({"type": "unsubscribe", "subscription_id": id});
                client.say(&request).await.expect("the session goes on");
                wishes.remove(&wish);
            }
            Step::Commit(id, state) => {
                let (was, is) = (database.rows().get(&id).cloned(), STATES[state]);
                if was.is_none() && is.is_none() {
                    continue;
                }
                if is_wanted(&wishes, was.as_deref(), is) {
                    expected.push((json!(id), json!(is)));
                }
                database.commit_and_publish(id, is).await;
            }
        }
    }
    let mut told = Vec::new();
    for frame in client.everything().await {
        if frame["type"] == "postgres_changes" {
            let payload = &frame["payload"];
            let id = payload["record"]["id"].clone();
            let id = if id.is_null() { payload["old_record"]["id"].clone() } else { id };
            told.push((id, payload["record"]["state"].clone()));
        }
    }
    prop_assert_eq!(told, expected);
    Ok(())
}
