//! What a row costs that one of many listeners wants, through the whole engine, with sockets that
//! take everything: a write into a real one, of some microseconds, comes to each.
//!
//! ```sh
//! cargo test -p tidewire --release --test main -- --ignored --nocapture listeners_cost_a_row
//! ```

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tidewire::protocol::change::{Change, Column, Operation, Relation, Row, Snapshot, Transaction};
use tidewire::protocol::dialect::{Movement, Native};
use tidewire::protocol::filter::{ColumnType, Demand, Filter, Kind, Predicate};
use tidewire::protocol::{
    Code, Command, Interest, Payload, Refusal, Subscription, TopicKind, Wire,
};
use tidewire::{
    Draft, Identity, Limits, Node, Opening, Outlet, Prepared, RowFilter, Session, TableRows, Topic,
    Upstream,
};
use tokio::task::yield_now;
use tokio::time::Instant;

/// The oid of `int8`.
const INT8: u32 = 20;

/// Rows of one measurement; each is for one listener.
const ROWS: u64 = 20_000;

/// The filter of each listener.
type ByNumber = fn(u64) -> String;

/// Sockets that take everything and forget it.
#[derive(Clone, Default)]
struct Sockets(Arc<AtomicU64>);

impl Outlet for Sockets {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(buffers.iter().map(|buffer| buffer.len()).sum())
    }
}

/// A database that knows how its one table looks.
struct Orders;

#[async_trait]
impl Upstream for Orders {
    async fn attach(&self, _: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _: &Topic) {}

    async fn emit(&self, _: &Topic, _: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "tables are written in SQL"))
    }

    async fn prepare(&self, _: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        let types = |_: &str| ColumnType {
            kind: Kind::Integer,
            type_oids: [INT8; 2],
            type_name: "int8".into(),
        };
        let filter = Filter::parse(interest.filter.as_deref().expect("a filter")).expect("one");
        let rows = Rows(Predicate::new(&filter, types).expect("a filter for the table"));
        Ok(Prepared { operations: Arc::default(), columns: None, rows: Some(Arc::new(rows)) })
    }

    async fn snapshot(&self, _: &Topic, _: &Interest) -> Result<TableRows, Refusal> {
        let seen = Snapshot { xmin: 0, xmax: 0, running: Vec::new() };
        Ok(TableRows { relation: relation(), rows: Arc::default(), seen })
    }
}

/// A filter as the PostgreSQL crate applies it.
struct Rows(Predicate);

impl RowFilter for Rows {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        self.0.admits(change).map_err(|altered| altered.to_string())
    }

    fn demand(&self) -> Option<&Demand> {
        self.0.demand()
    }
}

fn table() -> Topic {
    Topic::table("public.orders").expect("a table's name")
}

fn relation() -> Arc<Relation> {
    let column = |name: &str| Column {
        name: name.into(),
        type_oid: INT8,
        type_name: "int8".into(),
        key: name == "id",
    };
    let columns = ["id", "customer", "total"].map(column).into();
    Arc::new(Relation::new(1, "public", "orders", columns))
}

/// An update of each of so many rows.
fn updates(rows: u64) -> Vec<Draft> {
    let (relation, row) = (relation(), |id: u64, total: u64| {
        Row::of_json([id, 7, total].map(|value| value.to_string()))
    });
    let update = |id| Change {
        operation: Operation::Update,
        relation: Arc::clone(&relation),
        record: Some(row(id, 150)),
        old: Some(row(id, 149)),
        transaction: Arc::new(Transaction { id: 7_000 + id, lsn: Some(id), committed_at: 0 }),
        index: 0,
        last: true,
    };
    (0..rows).map(|id| Draft::change(table(), update(id))).collect()
}

async fn listen(node: &Node, sockets: &Sockets, filter: String) -> Session {
    let opening = Opening::new(Arc::new(Native), Wire::WebSocket, Identity::everything());
    let mut session = node.open(opening.outlet(Box::new(sockets.clone()))).expect("there is room");
    let interest = Interest { filter: Some(filter.into()), ..Interest::default() };
    let wish = Subscription { interest, ..Subscription::to(table()) };
    session.perform(Command::Subscribe(wish)).await.expect("a wish that is granted");
    session.flush().expect("the socket is whole");
    session
}

/// Nanoseconds for a row that one of so many listeners wants, published in runs of so many; the
/// rows are those of so many listeners in turn.
async fn cost(listeners: u64, rows: u64, filter: ByNumber, run: usize) -> u64 {
    let limits = Limits { connections: 20_000, ..Limits::default() };
    let prepared = Node::builder().limits(limits).prepare();
    let node = prepared.upstream(TopicKind::Table, Arc::new(Orders)).start();
    let sockets = Sockets::default();
    let mut sessions = Vec::new();
    for number in 0..listeners {
        sessions.push(listen(&node, &sockets, filter(number)).await);
    }
    let updates = updates(rows);
    let mut drafts = updates.iter().cycle().cloned();
    let mut least = u64::MAX;
    // The first round warms up; the least disturbed one counts.
    for _ in 0..4 {
        let start = Instant::now();
        for _ in 0..ROWS / run as u64 {
            let told = node.metrics().deliveries.get() + run as u64;
            node.publisher().publish(drafts.by_ref().take(run).collect()).await;
            while node.metrics().deliveries.get() < told {
                yield_now().await;
            }
        }
        least = least.min(start.elapsed().as_nanos() as u64 / ROWS);
    }
    assert!(sockets.0.load(Ordering::Relaxed) >= 4 * ROWS / run as u64);
    least
}

#[test]
#[ignore = "prints what a row costs"]
fn ten_thousand_listeners_cost_a_row_what_one_does() {
    let filters: [(&str, ByNumber); 2] = [
        ("id=eq.N", |number| format!("id=eq.{number}")),
        ("id=gte.N,id=lt.N+1", |number| format!("id=gte.{number},id=lt.{}", number + 1)),
    ];
    for (name, filter) in filters {
        for run in [1, 100] {
            let [one, same, many] = [(1, 1), (10_000, 1), (10_000, 10_000)].map(|(of, rows)| {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_time().build().expect("a runtime");
                runtime.block_on(cost(of, rows, filter, run))
            });
            // What each of the last costs more is memory that no cache holds.
            println!(
                "{name}, {run} at a time: {one} ns for the only listener, {same} ns for always the \
                 same of 10,000, {many} ns for each of them in turn"
            );
        }
    }
}
