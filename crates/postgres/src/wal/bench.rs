//! A door for the micro-benchmarks, there only with the feature `bench` and promised to nobody:
//! messages of the log as PostgreSQL sends them, and what becomes of them.

use std::sync::Arc;

use tidewire_protocol::Draft;
use tidewire_protocol::change::{Column, Relation};

use super::assembly::{Assembly, Flow, Known, Need, Trouble};
use super::pgoutput::encoder::encode;
use super::pgoutput::{
    self, Attribute, Begin, Commit, Datum, Identity, Insert, Lsn, Message, Moment, Old, Tuple,
    Update,
};
use crate::values::Shape;

const OID: u32 = 16_400;

/// A row of the table: name, how PostgreSQL's text becomes JSON, and the text.
const COLUMNS: [(&str, Shape, &str); 8] = [
    ("id", Shape::Number, "40017"),
    ("customer_id", Shape::Number, "1234"),
    ("status", Shape::Text, "paid"),
    ("total", Shape::Number, "149.90"),
    ("urgent", Shape::Bool, "f"),
    ("note", Shape::Text, "leave it at the door, please; the bell does not work"),
    ("created_at", Shape::Time, "2026-01-01 09:30:00.123456+00"),
    ("details", Shape::Json, r#"{"items": [{"sku": "A-1", "count": 2}], "gift": false}"#),
];

/// A reader of the log that knows one table of eight columns, and transactions for it.
pub struct Log {
    assembly: Assembly,
    rows: Vec<Vec<u8>>,
    /// The end of the newest transaction.
    lsn: u64,
}

impl Log {
    /// Transactions of so many inserts.
    pub fn of_inserts(count: usize) -> Self {
        let insert = Message::Insert(Insert { relation: OID, new: tuple() });
        Self::of(vec![encode(&insert); count])
    }

    /// Transactions of so many updates of which the whole old row is told.
    pub fn of_updates(count: usize) -> Self {
        let old = Some(Old::Whole(tuple()));
        let update = Message::Update(Update { relation: OID, old, new: tuple() });
        Self::of(vec![encode(&update); count])
    }

    fn of(rows: Vec<Vec<u8>>) -> Self {
        let mut assembly = Assembly::default();
        assembly.begin(Lsn(10), false);
        learn(&mut assembly);
        Self { assembly, rows, lsn: 100 }
    }

    /// Reads the next transaction, as the task that reads the log does.
    pub fn read(&mut self) -> Vec<Draft> {
        self.lsn += 100;
        let (commit_lsn, committed_at) = (Lsn(self.lsn), Moment(820_575_060_500_000));
        let begin = Begin { commit_lsn, committed_at, xid: 7_654_321 };
        let commit = Commit { commit_lsn, end_lsn: Lsn(self.lsn + 8), committed_at };
        take(&mut self.assembly, &encode(&Message::Begin(begin)));
        self.rows.iter().for_each(|row| take(&mut self.assembly, row));
        take(&mut self.assembly, &encode(&Message::Commit(commit)));
        self.assembly.harvest()
    }
}

fn take(assembly: &mut Assembly, message: &[u8]) {
    assembly.take(message, false).expect("the message is of the table that is known");
}

fn tuple() -> Tuple<'static> {
    COLUMNS.iter().map(|(_, _, text)| Datum::Text(text.as_bytes())).collect()
}

/// Tells the assembly how the table looks.
fn learn(assembly: &mut Assembly) {
    let attribute = |(name, ..): &(&'static str, Shape, &str)| Attribute {
        identity: *name == "id",
        name: name.as_bytes(),
        type_oid: 25,
        modifier: -1,
    };
    let wire = pgoutput::Relation {
        oid: OID,
        schema: b"public",
        table: b"orders",
        identity: Identity::Full,
        columns: COLUMNS.iter().map(attribute).collect(),
    };
    let taken = assembly.take(&encode(&Message::Relation(wire)), false);
    let Err(Trouble::Need(need)) = taken else { unreachable!("a table is asked about") };
    let Need::Relation(description) = *need else { unreachable!("only the table is new") };
    let column = |(name, ..): &(&str, Shape, &str)| Column {
        name: (*name).into(),
        type_oid: 25,
        type_name: "any".into(),
        key: *name == "id",
    };
    let columns = COLUMNS.iter().map(column).collect();
    let relation = Relation::new(OID, "public", "orders", columns);
    let shapes = COLUMNS.iter().map(|(_, shape, _)| Arc::new(shape.clone())).collect();
    let flow = Flow::default();
    flow.begin(Lsn(0));
    assembly.know(Known::new(description, relation, flow, shapes));
}
