//! Tables: filters, columns, and rows before changes, over a database that is played.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tidewire::protocol::change::{Change, Column, Operation, Relation, Row, Snapshot, Transaction};
use tidewire::protocol::dialect::Movement;
use tidewire::protocol::filter::{Demand, Extent, Kind, Scale};
use tidewire::protocol::{Code, GapReason, Interest, Payload, Refusal, TopicKind};
use tidewire::{Draft, Node, Prepared, Publisher, RowFilter, TableRows, Topic, Upstream};
use tokio::sync::Notify;

use crate::support::Client;

mod bookmarks;
mod overlapping;

const TABLE: &str = "public.orders";

/// A database of one table, `id` and `state`, whose changes are published when it is told so.
struct Database {
    relation: Arc<Relation>,
    publisher: Publisher,
    inner: Mutex<Inner>,
    published: Notify,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<u64, String>,
    next_transaction: u64,
    /// Committed, in order; the first ones were published.
    log: Vec<Draft>,
    published: usize,
}

impl Database {
    fn new(publisher: Publisher) -> Arc<Self> {
        let column = |name: &str, key| Column {
            name: name.into(),
            type_oid: 0,
            type_name: "text".into(),
            key,
        };
        let columns = vec![column("id", true), column("state", false)];
        let relation = Relation::new(1, "public", "orders", columns);
        Arc::new(Self {
            relation: Arc::new(relation),
            publisher,
            inner: Mutex::new(Inner { next_transaction: 1, ..Inner::default() }),
            published: Notify::new(),
        })
    }

    fn row(id: u64, state: &str) -> Row {
        Row::of_json([json!(id).to_string(), json!(state).to_string()])
    }

    /// Commits one change in a transaction of its own; it is published later.
    fn commit(&self, id: u64, state: Option<&str>) {
        let mut inner = self.inner.lock();
        let before = inner.rows.get(&id).map(|state| Self::row(id, state));
        let record = state.map(|state| Self::row(id, state));
        let operation = match (&before, &record) {
            (None, Some(_)) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
            (None, None) => return,
        };
        match state {
            Some(state) => inner.rows.insert(id, state.to_owned()),
            None => inner.rows.remove(&id),
        };
        let transaction = inner.next_transaction;
        inner.next_transaction += 1;
        let change = Change {
            operation,
            relation: Arc::clone(&self.relation),
            record,
            old: before,
            transaction: Arc::new(Transaction { id: transaction, lsn: None, committed_at: 0 }),
            index: 0,
            last: true,
        };
        inner.log.push(Draft::change(table(), change));
    }

    /// Publishes some of what was committed.
    async fn publish(&self, count: usize) {
        let drafts = {
            let mut inner = self.inner.lock();
            let from = inner.published;
            let to = from.saturating_add(count).min(inner.log.len());
            inner.published = to;
            inner.log[from..to].to_vec()
        };
        if !drafts.is_empty() {
            self.publisher.publish(drafts).await;
        }
        self.published.notify_waiters();
    }

    async fn commit_and_publish(&self, id: u64, state: Option<&str>) {
        self.commit(id, state);
        self.publish(1).await;
    }

    fn rows(&self) -> BTreeMap<u64, String> {
        self.inner.lock().rows.clone()
    }
}

/// `state=eq.x`, found by the value or not.
struct StateIs {
    column: Arc<str>,
    value: Arc<str>,
    demand: Option<Demand>,
}

impl StateIs {
    fn new(column: &str, state: &str, is_found_by_value: bool) -> Self {
        let value: Arc<str> = json!(state).to_string().into();
        let scale = Scale::of(&Kind::Label { ordered: true }).expect("labels have a scale");
        let point = scale.read(&value).expect("any text is a label").into_owned();
        let extent = Extent::Values(vec![point]);
        let column: Arc<str> = column.into();
        let demand = Demand { column: Arc::clone(&column), type_oids: [0; 2], scale, extent };
        Self { column, value, demand: is_found_by_value.then_some(demand) }
    }

    fn holds(&self, row: Option<&Row>) -> bool {
        row.and_then(|row| row.json(1)).is_some_and(|state| *state == *self.value)
    }
}

impl RowFilter for StateIs {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        if change.relation.column(&self.column).is_none() {
            return Err(format!("the column {} is gone", self.column));
        }
        let is = self.holds(change.record.as_ref());
        let was = self.holds(change.old.as_ref());
        Ok(match (change.operation, was, is) {
            (Operation::Update, true, false) => Some(Movement::Leaves),
            (Operation::Update, false, true) => Some(Movement::Enters),
            (_, was, is) => (was || is).then_some(Movement::Within),
        })
    }

    fn demand(&self) -> Option<&Demand> {
        self.demand.as_ref()
    }
}

#[async_trait]
impl Upstream for Database {
    async fn attach(&self, _: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _: &Topic) {}

    async fn emit(&self, _: &Topic, _: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "tables are written in SQL"))
    }

    async fn prepare(&self, _: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        let filter = interest.filter.as_ref().map(|text| {
            let (column, value) = text.split_once("=eq.").expect("the test writes column=eq.value");
            let slow = column.strip_prefix("slow ");
            let filter = StateIs::new(slow.unwrap_or(column), value, slow.is_none());
            Arc::new(filter) as Arc<dyn RowFilter>
        });
        Ok(Prepared {
            operations: interest.operations.clone().into(),
            columns: (!interest.columns.is_empty()).then(|| interest.columns.clone().into()),
            rows: filter,
        })
    }

    async fn snapshot(&self, _: &Topic, _: &Interest) -> Result<TableRows, Refusal> {
        let (found, committed) = {
            let inner = self.inner.lock();
            let rows = inner.rows.iter().map(|(id, state)| Self::row(*id, state)).collect();
            let (xmin, xmax) = (inner.next_transaction, inner.next_transaction);
            let seen = Snapshot { xmin, xmax, running: Vec::new() };
            let found =
                TableRows { relation: Arc::clone(&self.relation), rows: Arc::new(rows), seen };
            (found, inner.log.len())
        };
        loop {
            let published = self.published.notified();
            if self.inner.lock().published >= committed {
                return Ok(found);
            }
            published.await;
        }
    }
}

fn table() -> Topic {
    Topic::table(TABLE).expect("a table's name")
}

fn start() -> (Node, Arc<Database>) {
    let prepared = Node::builder().prepare();
    let database = Database::new(prepared.publisher().clone());
    (prepared.upstream(TopicKind::Table, Arc::clone(&database) as _).start(), database)
}

async fn subscribe(client: &mut Client, more: Json) -> Json {
    let mut request = json!({"type": "subscribe", "table": TABLE});
    for (name, value) in more.as_object().expect("fields") {
        request[name] = value.clone();
    }
    client.ask(request).await
}

async fn told(client: &mut Client) -> (String, Json, Json) {
    let frame = client.next().await;
    assert_eq!(frame["type"], "change", "{frame}");
    let kind = format!("{}{}", frame["op"].as_str().unwrap(), frame["move"].as_str().unwrap_or(""));
    (kind, frame["record"].clone(), frame["old"].clone())
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_filter_hears_every_change_with_both_rows() {
    let (node, database) = start();
    let mut client = Client::open(&node);
    subscribe(&mut client, json!({})).await;
    database.commit_and_publish(1, Some("new")).await;
    database.commit_and_publish(1, Some("paid")).await;
    database.commit_and_publish(1, None).await;
    let (new, paid) = (json!({"id": 1, "state": "new"}), json!({"id": 1, "state": "paid"}));
    assert_eq!(told(&mut client).await, ("INSERT".into(), new.clone(), Json::Null));
    assert_eq!(told(&mut client).await, ("UPDATE".into(), paid.clone(), new));
    assert_eq!(told(&mut client).await, ("DELETE".into(), Json::Null, paid));
}

#[tokio::test(start_paused = true)]
async fn a_filter_tells_what_enters_stays_and_leaves_however_it_is_found() {
    for filter in ["state=eq.paid", "slow state=eq.paid"] {
        let (node, database) = start();
        let mut client = Client::open(&node);
        subscribe(&mut client, json!({"filter": filter})).await;
        database.commit_and_publish(1, Some("new")).await;
        database.commit_and_publish(1, Some("paid")).await;
        database.commit_and_publish(1, Some("paid")).await;
        database.commit_and_publish(1, Some("sent")).await;
        database.commit_and_publish(1, None).await;
        database.commit_and_publish(2, Some("paid")).await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(told(&mut client).await.0);
        }
        assert_eq!(kinds, ["UPDATEenter", "UPDATE", "UPDATEleave", "INSERT"], "{filter}");
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_wanted_operations_and_columns_are_told_and_always_the_key() {
    let (node, database) = start();
    let mut client = Client::open(&node);
    subscribe(&mut client, json!({"events": ["DELETE", "INSERT"], "columns": ["id"]})).await;
    database.commit_and_publish(1, Some("new")).await;
    database.commit_and_publish(1, Some("paid")).await;
    database.commit_and_publish(1, None).await;
    assert_eq!(told(&mut client).await, ("INSERT".into(), json!({"id": 1}), Json::Null));
    assert_eq!(told(&mut client).await, ("DELETE".into(), Json::Null, json!({"id": 1})));
}

#[tokio::test(start_paused = true)]
async fn a_filter_on_a_column_that_is_gone_ends_the_subscription_with_a_word() {
    for filter in ["gone=eq.x", "slow gone=eq.x"] {
        let (node, database) = start();
        let mut client = Client::open(&node);
        subscribe(&mut client, json!({"filter": filter})).await;
        database.commit_and_publish(1, Some("new")).await;
        let frame = client.next().await;
        assert_eq!((&frame["type"], &frame["code"]), (&json!("ended"), &json!("bad_field")));
        database.commit_and_publish(2, Some("new")).await;
        client.hears_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_filtered_listener_that_resumes_hears_only_what_it_wants() {
    let (node, database) = start();
    let mut first = Client::open(&node);
    let start = subscribe(&mut first, json!({})).await["position"].clone();
    for id in 0..200 {
        let state = if id % 10 == 0 { "paid" } else { "new" };
        database.commit_and_publish(id, Some(state)).await;
    }
    drop(first);
    let before = node.stats().deliveries;
    let mut client = Client::open(&node);
    let filter = json!({"filter": "state=eq.paid", "since": start});
    let answer = subscribe(&mut client, filter).await;
    assert_eq!(answer["outcome"], "resumed");
    for id in (0..200).step_by(10) {
        assert_eq!(told(&mut client).await.1["id"], id);
    }
    assert_eq!(node.stats().deliveries - before, 20, "what it does not want is not delivered");
    database.commit_and_publish(500, Some("paid")).await;
    assert_eq!(told(&mut client).await.1["id"], 500);
}

/// What a client makes of rows and changes.
fn apply(known: &mut BTreeMap<u64, String>, frame: &Json) {
    let put = |known: &mut BTreeMap<u64, String>, row: &Json| {
        let state = row["state"].as_str().expect("a state").to_owned();
        known.insert(row["id"].as_u64().expect("an id"), state)
    };
    match frame["type"].as_str().expect("a type") {
        "rows" => {
            for row in frame["rows"].as_array().expect("rows") {
                assert!(put(known, row).is_none(), "a row told twice: {row}");
            }
        }
        "change" if frame["op"] == "INSERT" => {
            assert!(put(known, &frame["record"]).is_none(), "inserted twice: {frame}");
        }
        "change" if frame["op"] == "UPDATE" => {
            let before = known.get(&frame["old"]["id"].as_u64().expect("an id"));
            let old = frame["old"]["state"].as_str();
            assert_eq!(before.map(String::as_str), old, "not what it was: {frame}");
            put(known, &frame["record"]);
        }
        "change" => {
            let gone = known.remove(&frame["old"]["id"].as_u64().expect("an id"));
            assert!(gone.is_some(), "deleted twice: {frame}");
        }
        other => panic!("unexpected {other}: {frame}"),
    }
}

#[tokio::test(start_paused = true)]
async fn rows_and_then_changes_give_the_table_at_whatever_moment_one_joins() {
    let (node, database) = start();
    let mut random = 7_u64;
    let mut next = move |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % limit
    };
    let mut clients = Vec::new();
    for round in 0..400 {
        let id = next(40);
        match next(3) {
            0 => database.commit(id, None),
            _ => database.commit(id, Some(&format!("state {round}"))),
        }
        database.publish(next(3) as usize).await;
        if round % 10 == 0 {
            // The answer waits until all that the rows contain was published.
            let mut client = Client::open(&node);
            let join = subscribe(&mut client, json!({"snapshot": true}));
            let publish = async {
                tokio::task::yield_now().await;
                database.publish(usize::MAX).await;
            };
            let (answer, ()) = tokio::join!(join, publish);
            assert_eq!(answer["outcome"], "fresh", "{answer}");
            clients.push(client);
        }
    }
    database.publish(usize::MAX).await;
    for mut client in clients {
        let mut known = BTreeMap::new();
        let mut complete = false;
        for frame in client.everything().await {
            complete |= frame["last"] == true && frame["type"] == "rows";
            apply(&mut known, &frame);
        }
        assert!(complete, "the snapshot should say that it is complete");
        assert_eq!(known, database.rows());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_before_the_rows_is_not_told_and_one_after_them_is() {
    let (node, database) = start();
    database.commit_and_publish(1, Some("new")).await;
    node.publisher().interrupt(&table(), GapReason::NotListening).await.unwrap();
    let mut client = Client::open(&node);
    subscribe(&mut client, json!({"snapshot": true})).await;
    assert_eq!(client.next().await["type"], "rows");
    client.hears_nothing().await;
    node.publisher().interrupt(&table(), GapReason::ConnectionLost).await.unwrap();
    assert_eq!(client.next().await["reason"], "connection_lost");
}

#[tokio::test(start_paused = true)]
async fn rows_are_complete_only_with_what_was_committed_while_they_were_read() {
    rows_then_a_change_then_the_end(&[Some("in the rows")]).await;
}

#[tokio::test(start_paused = true)]
async fn that_there_are_no_rows_is_said_before_what_was_committed_meanwhile() {
    rows_then_a_change_then_the_end(&[Some("gone"), None]).await;
}

async fn rows_then_a_change_then_the_end(before: &[Option<&str>]) {
    let (node, database) = start();
    before.iter().for_each(|state| database.commit(1, *state));
    let mut client = Client::open(&node);
    let join = subscribe(&mut client, json!({"snapshot": true}));
    let meanwhile = async {
        tokio::task::yield_now().await;
        database.commit(2, Some("after them"));
        database.publish(usize::MAX).await;
    };
    let (answer, ()) = tokio::join!(join, meanwhile);
    let frames = client.everything().await;
    let words: Vec<_> = frames.iter().map(|frame| (&frame["type"], &frame["last"])).collect();
    let (rows, change) = (json!("rows"), json!("change"));
    let expected = [(&rows, &json!(false)), (&change, &json!(true)), (&rows, &json!(true))];
    assert_eq!(words, expected, "{frames:?}");
    // So whoever goes on from there is not told it again, and has not missed it.
    assert_eq!(frames[1]["position"], answer["position"]);
}
