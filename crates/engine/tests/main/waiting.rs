//! Wishes that wait for their source: each request is answered once, whatever comes meanwhile.

use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tidewire::protocol::dialect::{Alle, Fluxbase};
use tidewire::protocol::{Code, Dialect, Interest, Payload, Refusal, Token, TopicKind, Wire};
use tidewire::{
    Action, Authenticator, Draft, Grant, Identity, Limits, Node, Opening, Prepared, Publisher,
    Topic, Upstream,
};
use tokio::sync::Semaphore;

use crate::support::{Client, until};

const TABLE: &str = "public.orders";

/// A source that answers each request when the test lets it, and knows no column *nope*.
struct Held(Semaphore);

impl Held {
    fn let_go(&self, count: usize) {
        self.0.add_permits(count);
    }

    /// What was let go and did not come is held again.
    fn hold(&self) {
        self.0.forget_permits(usize::MAX);
    }
}

#[async_trait]
impl Upstream for Held {
    async fn attach(&self, _: &Topic) -> Result<(), Refusal> {
        self.0.acquire().await.expect("it is never closed").forget();
        Ok(())
    }

    fn detach(&self, _: &Topic) {}

    async fn emit(&self, _: &Topic, _: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "nothing is said here"))
    }

    async fn prepare(&self, _: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        if interest.columns.iter().any(|column| &**column == "nope") {
            return Err(Refusal::new(Code::BadField, "there is no column nope"));
        }
        Ok(Prepared { operations: interest.operations.clone().into(), columns: None, rows: None })
    }
}

/// Knows one token, which allows nothing.
struct OneToken;

#[async_trait]
impl Authenticator for OneToken {
    async fn identify(&self, _: &Token) -> Result<Identity, Refusal> {
        let pattern = "other".parse().expect("a pattern");
        let grant = Grant { pattern, actions: vec![Action::Subscribe], rows: None };
        Ok(Identity { grants: Some(vec![grant].into()), ..Identity::default() })
    }
}

struct Place {
    node: Node,
    source: Arc<Held>,
    publisher: Publisher,
}

fn start(limits: Limits) -> Place {
    let source = Arc::new(Held(Semaphore::new(0)));
    let prepared = Node::builder().limits(limits).authenticator(Arc::new(OneToken)).prepare();
    let publisher = prepared.publisher().clone();
    let prepared = prepared.upstream(TopicKind::Table, Arc::clone(&source) as _);
    let node = prepared.upstream(TopicKind::Notify, Arc::clone(&source) as _).start();
    Place { node, source, publisher }
}

impl Place {
    fn open(&self, dialect: impl Dialect + 'static) -> Client {
        let opening = Opening::new(Arc::new(dialect), Wire::Lines, Identity::everything());
        Client::opening(&self.node, opening)
    }

    /// A NOTIFY comes from outside.
    async fn notify(&self, channel: &str) {
        let topic = Topic::notify(channel).expect("a channel's name");
        let draft = Draft::message(topic, Payload::Text("hi".into()));
        self.publisher.publish(vec![draft]).await;
    }
}

fn listen() -> Json {
    json!({"type": "subscribe", "table": TABLE})
}

fn wrong() -> Json {
    json!({"type": "subscribe", "table": TABLE, "columns": ["nope"]})
}

fn leave() -> Json {
    json!({"type": "unsubscribe", "table": TABLE})
}

/// Ids and what they were answered with, in order.
fn answers(frames: &[Json]) -> Vec<(u64, &str)> {
    let answer = |frame: &Json| frame["id"].as_u64().expect("an id");
    frames.iter().map(|frame| (answer(frame), frame["type"].as_str().expect("a type"))).collect()
}

async fn all_of(client: &mut Client, place: &Place, requests: &[Json]) -> Vec<Json> {
    for request in requests {
        client.tell(request.clone()).await;
    }
    place.source.let_go(requests.len());
    let frames = client.everything().await;
    place.source.hold();
    frames
}

#[tokio::test(start_paused = true)]
async fn a_refused_wish_leaves_the_one_that_waits_before_it() {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    let frames = all_of(&mut client, &place, &[listen(), wrong()]).await;
    assert_eq!(answers(&frames), [(1, "subscribed"), (2, "error")]);
    assert_eq!(frames[1]["code"], "bad_field");
    assert_eq!(place.node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn wishes_for_the_same_are_carried_out_in_their_order() {
    for (requests, expected, held) in [
        ([listen(), listen()], ["subscribed", "subscribed"], 1),
        ([wrong(), listen()], ["error", "subscribed"], 1),
        ([wrong(), wrong()], ["error", "error"], 0),
    ] {
        let place = start(Limits::default());
        let mut client = Client::open(&place.node);
        let frames = all_of(&mut client, &place, &requests).await;
        assert_eq!(answers(&frames), [(1, expected[0]), (2, expected[1])]);
        assert_eq!(place.node.stats().subscriptions, held);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_waits_its_turn_even_where_the_source_is_quick_by_now() {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    client.tell(listen()).await;
    place.source.let_go(2);
    client.tell(wrong()).await;
    assert_eq!(answers(&client.everything().await), [(1, "subscribed"), (2, "error")]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_wish_leaves_what_is_in_force() {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    let listen = json!({"type": "subscribe", "notify": "a"});
    all_of(&mut client, &place, std::slice::from_ref(&listen)).await;
    client.tell(wrong()).await;
    client.tell(listen).await;
    place.notify("a").await;
    assert_eq!(client.event().await["data"], "hi", "what is in force goes on meanwhile");
    place.source.let_go(2);
    assert_eq!(answers(&client.everything().await), [(2, "error"), (3, "subscribed")]);
    assert_eq!(place.node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn wishes_that_are_taken_back_are_answered_so_at_once() {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    for request in [listen(), wrong(), leave(), listen()] {
        client.tell(request).await;
    }
    let taken_back = [(1, "unsubscribed"), (2, "unsubscribed"), (3, "unsubscribed")];
    assert_eq!(answers(&client.everything().await), taken_back);
    place.source.let_go(1);
    assert_eq!(answers(&client.everything().await), [(4, "subscribed")]);
    assert_eq!(place.node.stats().subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_waits_is_refused_when_a_newer_token_does_not_allow_it() {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    client.tell(listen()).await;
    client.tell(json!({"type": "authenticate", "token": "less"})).await;
    place.source.let_go(1);
    let frames = client.everything().await;
    assert_eq!(answers(&frames), [(2, "authenticated"), (1, "error")]);
    assert_eq!((&frames[1]["code"], &frames[1]["table"]), (&json!("forbidden"), &json!(TABLE)));
    assert_eq!(place.node.stats().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn each_wish_that_waits_counts_for_the_limit() {
    let place = start(Limits { subscriptions: 2, ..Limits::default() });
    let mut client = Client::open(&place.node);
    let frames = all_of(&mut client, &place, &[listen(), listen(), listen()]).await;
    assert_eq!(answers(&frames), [(3, "error"), (1, "subscribed"), (2, "subscribed")]);
    assert_eq!(frames[0]["code"], "too_many_subscriptions");
    // One that replaces what is in force needs no room, but the next behind it does.
    let other = json!({"type": "subscribe", "notify": "a"});
    let frames = all_of(&mut client, &place, &[other, listen(), listen()]).await;
    assert_eq!(answers(&frames), [(6, "error"), (4, "subscribed"), (5, "subscribed")]);
    assert_eq!(place.node.stats().subscriptions, 2);
}

/// Says requests, lets the source go on and gives what the client is told.
async fn told(place: &Place, client: &mut Client, requests: &[Json]) -> Vec<Json> {
    for request in requests {
        client.say(request).await.expect("the session goes on");
    }
    place.source.let_go(requests.len());
    client.everything().await
}

#[tokio::test(start_paused = true)]
async fn fluxbase_acknowledges_each_request_once() {
    let place = start(Limits::default());
    let channel = "table:public.orders";
    let [subscribe, unsubscribe] =
        ["subscribe", "unsubscribe"].map(|kind| json!({"type": kind, "channel": channel}));
    let ack = json!({"type": "ack", "channel": channel});
    let mut client = place.open(Fluxbase);
    let requests = [subscribe.clone(), subscribe.clone(), unsubscribe, subscribe];
    assert_eq!(told(&place, &mut client, &requests).await, vec![ack; 4]);
    assert_eq!(place.node.stats().subscriptions, 1);

    let id = "public.orders:INSERT";
    let subscribe = json!({"type": "subscribe", "event": "INSERT", "table": "orders"});
    let unsubscribe = json!({"type": "unsubscribe", "subscription_id": id});
    let requests = [subscribe.clone(), subscribe, unsubscribe];
    let frames = told(&place, &mut place.open(Fluxbase), &requests).await;
    let ids = frames.iter().map(|frame| (&frame["type"], &frame["payload"]["subscription_id"]));
    assert_eq!(ids.collect::<Vec<_>>(), [(&json!("ack"), &json!(id)); 3]);
}

#[tokio::test(start_paused = true)]
async fn alle_answers_each_request_once() {
    let place = start(Limits::default());
    let [subscribe, unsubscribe] =
        ["subscribe", "unsubscribe"].map(|kind| json!({"type": kind, "channel": "a"}));
    let requests = [subscribe.clone(), unsubscribe, subscribe.clone(), subscribe];
    let frames = told(&place, &mut place.open(Alle), &requests).await;
    let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str()).collect();
    let [left, joined] = ["unsubscribed", "subscribed"].map(Some);
    assert_eq!(kinds, [left, left, joined, joined]);
}

/// What a client does, on one of two tables.
#[derive(Clone, Copy, Debug)]
enum Step {
    Listen(u8),
    Wrong(u8),
    Leave(u8),
    /// The source answers so many, and the client reads all that comes of it.
    Wait(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2u8).prop_map(Step::Listen),
        (0..2u8).prop_map(Step::Wrong),
        (0..2u8).prop_map(Step::Leave),
        (0..3usize).prop_map(Step::Wait),
    ]
}

fn request(step: Step) -> Option<Json> {
    let (mut request, table) = match step {
        Step::Listen(table) => (listen(), table),
        Step::Wrong(table) => (wrong(), table),
        Step::Leave(table) => (leave(), table),
        Step::Wait(_) => return None,
    };
    request["table"] = format!("public.t{table}").into();
    Some(request)
}

/// Whether the table is listened to in the end: something right was asked for since it was left.
fn is_held(steps: &[Step], wanted: u8) -> bool {
    let since = steps.rsplit(|step| matches!(step, Step::Leave(table) if *table == wanted));
    let since = since.into_iter().next().unwrap_or_default();
    since.iter().any(|step| matches!(step, Step::Listen(table) if *table == wanted))
}

fn fits(step: Step, answer: &str) -> bool {
    match step {
        Step::Listen(_) => matches!(answer, "subscribed" | "unsubscribed"),
        Step::Wrong(_) => matches!(answer, "error" | "unsubscribed"),
        Step::Leave(_) => answer == "unsubscribed",
        Step::Wait(_) => false,
    }
}

async fn check(steps: Vec<Step>) {
    let place = start(Limits::default());
    let mut client = Client::open(&place.node);
    let (mut asked, mut frames) = (Vec::new(), Vec::new());
    for &step in &steps {
        match (step, request(step)) {
            (_, Some(request)) => asked.push((client.tell(request).await, step)),
            (Step::Wait(count), None) => {
                place.source.let_go(count);
                frames.extend(client.everything().await);
            }
            (_, None) => unreachable!("every other step is a request"),
        }
    }
    place.source.let_go(steps.len());
    frames.extend(client.everything().await);
    let mut answers = answers(&frames);
    answers.sort_unstable();
    assert_eq!(answers.len(), asked.len(), "{answers:?}");
    for ((id, step), (answered, answer)) in asked.into_iter().zip(answers) {
        assert!(id == answered && fits(step, answer), "{step:?} {id}: {answered} {answer}");
    }
    let held = (0..2u8).filter(|table| is_held(&steps, *table)).count();
    assert_eq!(place.node.stats().subscriptions, held);
    drop(client);
    until("nothing is left", || place.node.stats().subscriptions == 0).await;
}

proptest! {
    #[test]
    fn every_request_is_answered_once_in_any_interleaving(
        steps in proptest::collection::vec(step(), 1..24)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(check(steps));
    }
}
