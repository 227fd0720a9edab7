//! A change of a table among many filters; what is told is the cost of one change.

use std::sync::Arc;

use async_trait::async_trait;
use tidewire::protocol::change::{Change, Column, Operation, Relation, Row, Snapshot, Transaction};
use tidewire::protocol::dialect::Movement;
use tidewire::protocol::filter::{ColumnType, Demand, Filter, Kind, Predicate};
use tidewire::protocol::{Code, Interest, Payload, Refusal, Subscription, TopicKind};
use tidewire::{Draft, Prepared, RowFilter, TableRows, Topic, Upstream};
use tidewire_measure::Case;

use crate::crowd::{Crowd, builder};

/// The oid of `int8`.
const INT8: u32 = 20;

/// Customers; the changes go through all of them.
const CUSTOMERS: usize = 1_000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Each change is for ten listeners, who are found by the value.
        index("index/10-of-10000-by-eq", 10_000, 10, |at| format!("customer_id=eq.{}", of(at))),
        index("index/10-of-1000-by-in-of-10", 1_000, 10, |at| {
            let list: Vec<_> = (0..10).map(|more| of(at + more * 100).to_string()).collect();
            format!("customer_id=in.({})", list.join(","))
        }),
        // Nobody wants the change; of a range that is known without asking, of the other not.
        index("index/none-of-10000-by-range", 10_000, 0, |at| format!("total=lt.{}", at % 100)),
        index("index/none-of-1000-by-asking", 1_000, 0, |_| {
            "total=neq.150,total=neq.149".to_owned()
        }),
    ]
}

fn of(at: usize) -> usize {
    at % CUSTOMERS
}

fn index(name: &str, listeners: usize, wanted: u64, filter: fn(usize) -> String) -> Case {
    let case = Case::looping(name, move || {
        let mut crowd = Crowd::nobody(builder().upstream(TopicKind::Table, Arc::new(Orders)));
        (0..listeners).for_each(|at| crowd.join(wish(filter(at))));
        // Somebody wants every change, by which it is seen when one was handed over.
        crowd.join(Subscription::to(table()));
        let changes: Vec<Draft> = changes();
        let mut next = (0..changes.len()).cycle();
        move |rounds| {
            let one = || vec![changes[next.next().expect("a cycle")].clone()];
            crowd.say(rounds, wanted + 1, one);
        }
    });
    case.rounds(CUSTOMERS as u64)
}

fn table() -> Topic {
    Topic::table("public.orders").expect("a table")
}

fn wish(filter: String) -> Subscription {
    let interest = Interest { filter: Some(filter.into()), ..Interest::default() };
    Subscription { interest, ..Subscription::to(table()) }
}

/// An update of an order of each customer.
fn changes() -> Vec<Draft> {
    let column = |name: &str| Column {
        name: name.into(),
        type_oid: INT8,
        type_name: "bigint".into(),
        key: name == "id",
    };
    let columns = ["id", "customer_id", "total"].map(column).into();
    let relation = Arc::new(Relation::new(16_400, "public", "orders", columns));
    let transaction = Arc::new(Transaction { id: 7_654_321, lsn: None, committed_at: 0 });
    let row = |customer: usize, total: u32| {
        let values = [40_017, customer as u32, total];
        Row::of_json(values.map(|value| value.to_string()))
    };
    let update = |customer: usize| Change {
        operation: Operation::Update,
        relation: Arc::clone(&relation),
        record: Some(row(customer, 150)),
        old: Some(row(customer, 149)),
        transaction: Arc::clone(&transaction),
        index: 0,
        last: true,
    };
    (0..CUSTOMERS).map(|customer| Draft::change(table(), update(customer))).collect()
}

/// A database that knows how its one table looks.
struct Orders;

#[async_trait]
impl Upstream for Orders {
    async fn attach(&self, _: &Topic) -> Result<(), Refusal> {
        Ok(())
    }

    fn detach(&self, _: &Topic) {}

    async fn emit(&self, topic: &Topic, _: &Payload) -> Result<(), Refusal> {
        Err(Refusal::new(Code::BadField, "tables are written in SQL").about(topic))
    }

    async fn prepare(&self, _: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        let types = |_: &str| ColumnType {
            kind: Kind::Integer,
            type_oids: [INT8; 2],
            type_name: "bigint".into(),
        };
        let filter = Filter::parse(interest.filter.as_deref().expect("a filter")).expect("one");
        let predicate = Predicate::new(&filter, types).expect("a filter for the table");
        let rows = Arc::new(Rows(predicate)) as Arc<dyn RowFilter>;
        Ok(Prepared { operations: Arc::default(), columns: None, rows: Some(rows) })
    }

    async fn snapshot(&self, _: &Topic, _: &Interest) -> Result<TableRows, Refusal> {
        let relation = Relation::new(0, "", "", Vec::new());
        let seen = Snapshot { xmin: 0, xmax: 0, running: Vec::new() };
        Ok(TableRows { relation: Arc::new(relation), rows: Arc::default(), seen })
    }
}

/// As the PostgreSQL crate does it.
struct Rows(Predicate);

impl RowFilter for Rows {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        self.0.admits(change).map_err(|altered| altered.to_string())
    }

    fn demand(&self) -> Option<&Demand> {
        self.0.demand()
    }
}
