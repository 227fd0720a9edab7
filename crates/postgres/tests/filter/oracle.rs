//! A table of odd values, of which both PostgreSQL and a filter are asked which rows they admit.

use std::sync::Arc;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{Preparer, SnapshotLimits, Snapshots};
use tidewire_protocol::change::{Change, Column as Told, Relation, Row, Transaction};
use tidewire_protocol::{Code, Interest, Operation, Topic};
use tokio_postgres::Client;

use super::types::{Column, SETUP, Test};
use super::wanting;
use crate::support::{sql, target};

pub(super) struct Oracle {
    sql: Client,
    preparer: Preparer,
    snapshots: Snapshots,
    topic: Topic,
    relation: Arc<Relation>,
    /// Rows as changes tell them, in the order of their ids.
    rows: Vec<Row>,
}

impl Oracle {
    /// Makes a table in a schema of its own, with a row for each value.
    pub(super) async fn new(cluster: &PrivateCluster, schema: &str, columns: &[Column]) -> Self {
        let sql = sql(cluster).await;
        let ddl: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.ddl)).collect();
        sql.batch_execute(&format!(
            "SET TimeZone = 'UTC'; SET extra_float_digits = 1; CREATE SCHEMA {schema}; \
             SET search_path = {schema}; {SETUP} \
             CREATE TABLE t (id int PRIMARY KEY, {})",
            ddl.join(", ")
        ))
        .await
        .unwrap();
        let most = columns.iter().map(|column| column.values.len()).max().unwrap() + 1;
        for id in 0..most {
            let values: Vec<String> = columns
                .iter()
                .map(|column| match id % (column.values.len() + 1) {
                    0 => "NULL".to_owned(),
                    place => literal(column.values[place - 1]),
                })
                .collect();
            let insert = format!("INSERT INTO t VALUES ({id}, {})", values.join(", "));
            sql.batch_execute(&insert).await.unwrap_or_else(|e| panic!("{insert}: {e:?}"));
        }
        let target = target(cluster);
        let preparer = Preparer::new(&target);
        let snapshots = Snapshots::new(&target, preparer.clone(), SnapshotLimits::default());
        let topic = Topic::table(&format!("{schema}.t")).unwrap();
        let (relation, rows) = told(&sql, columns).await;
        Self { sql, preparer, snapshots, topic, relation, rows }
    }

    pub(super) async fn check_one(&self, column: &Column, negated: &str, test: &Test) {
        let (filter, condition) = written(column, negated, test);
        self.check(&format!("{}={filter}", column.name), &condition).await;
    }

    /// The filter admits the rows for which the condition is true; or both are refused.
    pub(super) async fn check(&self, filter: &str, condition: &str) {
        let ours = self.ours(filter).await;
        let theirs = self.theirs(condition).await;
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{filter} and {condition}"),
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{filter}: {ours:?}\n{condition}: {theirs:?}"),
        }
    }

    /// Whether the pattern is accepted; then it must match what it matches in PostgreSQL.
    pub(super) async fn check_pattern(&self, column: &Column, word: &str, pattern: &str) -> bool {
        let filter = format!("{}={word}.{}", column.name, quoted(pattern));
        let Ok(ours) = self.ours(&filter).await else { return false };
        let (operator, pattern) = match word {
            "like" => ("LIKE", star(pattern)),
            "ilike" => ("ILIKE", star(pattern)),
            "match" => ("~", pattern.to_owned()),
            _ => ("~*", pattern.to_owned()),
        };
        let condition = format!("{} {operator} {}", column.name, literal(&pattern));
        let theirs = self.theirs(&condition).await;
        assert_eq!(Ok(ours), theirs, "{filter:?} and {condition:?}");
        self.check_snapshot(&filter, &condition).await;
        true
    }

    /// A snapshot has the rows for which the condition is true.
    pub(super) async fn check_snapshot(&self, filter: &str, condition: &str) {
        let interest = Interest { columns: vec!["id".into()], ..wanting(filter) };
        let ours = self.snapshots.snapshot(&self.topic, &interest).await;
        match (ours, self.theirs(condition).await) {
            (Ok(ours), Ok(theirs)) => {
                let id = |row: &Row| row.json(0).unwrap().parse::<i32>().unwrap();
                let ours: Vec<i32> = ours.rows.iter().map(id).collect();
                assert_eq!(ours, theirs, "a snapshot of {filter} and {condition}");
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{filter}: {:?}\n{condition}: {theirs:?}", ours.map(drop)),
        }
    }

    /// Rows that the filter admits as inserted; it must say the same of them as deleted.
    async fn ours(&self, filter: &str) -> Result<Vec<i32>, String> {
        let prepared = match self.preparer.prepare(&self.topic, &wanting(filter)).await {
            Ok(prepared) => prepared,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::BadField, "{filter}: {}", refusal.message);
                return Err(refusal.message);
            }
        };
        let rows = prepared.rows.expect("there is a filter");
        let mut admitted = Vec::new();
        for (id, row) in (0..).zip(&self.rows) {
            let inserted = self.change(Operation::Insert, Some(row), None);
            let deleted = self.change(Operation::Delete, None, Some(row));
            let is_admitted = rows.admits(&inserted)?.is_some();
            assert_eq!(rows.admits(&deleted)?.is_some(), is_admitted, "{filter} {id}");
            if is_admitted {
                admitted.push(id);
                self.found_by_demand(&*rows, row, filter);
            }
        }
        Ok(admitted)
    }

    fn found_by_demand(&self, rows: &dyn tidewire::RowFilter, row: &Row, filter: &str) {
        let Some(demand) = rows.demand() else { return };
        let place = self.relation.column(&demand.column).unwrap();
        let value = row.json(place).unwrap();
        assert!(demand.may_admit(value), "{filter} is not found by {value}");
    }

    /// Rows for which the condition is true.
    async fn theirs(&self, condition: &str) -> Result<Vec<i32>, String> {
        let query = format!("SELECT id FROM t WHERE {condition} ORDER BY id");
        let rows = self.sql.query(&query, &[]).await.map_err(|error| format!("{error:?}"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn change(&self, operation: Operation, record: Option<&Row>, old: Option<&Row>) -> Change {
        Change {
            operation,
            relation: Arc::clone(&self.relation),
            record: record.cloned(),
            old: old.cloned(),
            transaction: Arc::new(Transaction { id: 1, lsn: None, committed_at: 0 }),
            index: 0,
            last: true,
        }
    }
}

/// The table as changes tell it.
async fn told(sql: &Client, columns: &[Column]) -> (Arc<Relation>, Vec<Row>) {
    let types = "SELECT attname::text, atttypid FROM pg_attribute \
                 WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum";
    let types = sql.query(types, &[]).await.unwrap();
    let column = |row: &tokio_postgres::Row| Told {
        name: row.get::<_, &str>(0).into(),
        type_oid: row.get(1),
        type_name: "a type".into(),
        key: row.get::<_, &str>(0) == "id",
    };
    let relation = Relation::new(1, "s", "t", types.iter().map(column).collect());
    let values: Vec<String> =
        columns.iter().map(|c| format!("to_jsonb({})::text", c.name)).collect();
    let rows = format!("SELECT id::text, {} FROM t ORDER BY t.id", values.join(", "));
    let rows = sql.query(&rows, &[]).await.unwrap();
    let row = |row: &tokio_postgres::Row| {
        Row::of_json(
            (0..row.len()).map(|place| row.get::<_, Option<&str>>(place).unwrap_or("null")),
        )
    };
    (Arc::new(relation), rows.iter().map(row).collect())
}

/// A test as a filter has it after the column, and as SQL.
fn written(column: &Column, negated: &str, test: &Test) -> (String, String) {
    let name = column.name;
    let (filter, condition) = match test {
        Test::Is(word) => (format!("is.{word}"), format!("{name} IS {word}")),
        Test::In(list) => {
            let ours: Vec<String> = list.iter().map(|value| quoted(value)).collect();
            let theirs: Vec<String> = list.iter().map(|value| literal(value)).collect();
            (format!("in.({})", ours.join(",")), format!("{name} IN ({})", theirs.join(", ")))
        }
        Test::Compare(word, value) => {
            let operator = match *word {
                "eq" => "=",
                "neq" => "<>",
                "lt" => "<",
                "lte" => "<=",
                "gt" => ">",
                "gte" => ">=",
                _ => "IS DISTINCT FROM",
            };
            let condition = format!("{name} {operator} {}", literal(value));
            (format!("{word}.{}", quoted(value)), condition)
        }
    };
    let condition = if negated.is_empty() { condition } else { format!("NOT ({condition})") };
    (format!("{negated}{filter}"), condition)
}

/// Conditions joined at random, as a filter and as SQL.
pub(super) fn joined(dice: &mut Dice, columns: &[Column], depth: usize) -> (String, String) {
    let mut filters = Vec::new();
    let mut conditions = Vec::new();
    for _ in 0..1 + dice.roll(3) {
        let (filter, condition) = if depth > 0 && depth < 4 && dice.roll(3) == 0 {
            joined(dice, columns, depth + 1)
        } else if depth == 0 && dice.roll(2) == 0 {
            joined(dice, columns, 1)
        } else {
            let column = dice.pick(columns);
            let tests = column.tests();
            let negated = *dice.pick(&["", "", "not."]);
            let (filter, condition) = written(column, negated, dice.pick(&tests));
            let separator = if depth == 0 { "=" } else { "." };
            (format!("{}{separator}{filter}", column.name), format!("({condition})"))
        };
        filters.push(filter);
        conditions.push(condition);
    }
    if depth == 0 {
        return (filters.join(","), conditions.join(" AND "));
    }
    let (word, join) = *dice.pick(&[("or", " OR "), ("and", " AND ")]);
    let (not, negation) = *dice.pick(&[("", ""), ("not.", "NOT ")]);
    let filter = format!("{not}{word}({})", filters.join(","));
    (filter, format!("{negation}({})", conditions.join(join)))
}

/// A pattern for `like`.
pub(super) fn like(dice: &mut Dice) -> String {
    const PIECES: [&str; 20] = [
        "%", "*", "_", "a", "A", "b", "é", "É", "k", "K", "\\%", "\\*", "\\_", "\\\\", ".", "σ",
        "i", "I", "ß", "😀",
    ];
    (0..dice.roll(6)).map(|_| *dice.pick(&PIECES)).collect()
}

/// An expression for `match`, most of them well formed.
pub(super) fn expression(dice: &mut Dice) -> String {
    const PIECES: [&str; 44] = [
        "a", "b", "k", "K", "A", "é", ".", "^", "$", "|", "(", ")", "(a|b)", "(?:ab)", "(^)",
        "($)", "(^a|b$)", "*", "+", "?", "*?", "{2}", "{1,}", "{0,1}", "{0}", "[ab]", "[a-k]",
        "[^a]", "[^k-z]", "[A-Z]", "[a-]", "[-a]", "[\\]a]", "[.*]", "[é]", "\\.", "\\*", "\\\\",
        "\\[", "]", "}", "-", "(a.)+", "[+--]",
    ];
    (0..1 + dice.roll(5)).map(|_| *dice.pick(&PIECES)).collect()
}

/// `*` means `%`, unless a backslash stands before it.
fn star(pattern: &str) -> String {
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '*' => out.push('%'),
            '\\' => match characters.next() {
                Some('*') => out.push('*'),
                next => out.extend(['\\'].into_iter().chain(next)),
            },
            other => out.push(other),
        }
    }
    out
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Numbers that are the same in each run, unless `TIDEWIRE_SEED` says otherwise.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new() -> Self {
        let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(0x9E37_79B9_7F4A_7C15))
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}
