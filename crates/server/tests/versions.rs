//! Both sources of row changes, and two versions of PostgreSQL: the same work is told in the same
//! frames, to the letter, apart from what can only be its own: positions, times, transaction
//! numbers and places in the log.
//!
//! Generated columns are told by neither. In tables whose old rows are logged whole PostgreSQL 18
//! does not allow them, so they are in one that is only inserted into.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};

use crate::support::{Client, Dice, Psql, Server, client, newer_cluster, own_cluster, seed};

/// Tables whose old rows are told whole by either source.
const TABLES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN age AS int;
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (
    id bigint PRIMARY KEY, n numeric, m numeric(10, 3), f float8, g float4, b bytea,
    t timestamptz, l timestamp, d date, c time, i interval, u uuid, j jsonb, k json, a int[],
    s text[], r tstzrange, m2 mood, e age, p pair, ps pair[], o bool, x text, v varchar(9),
    w char(5), h inet, "Odd name" text);
CREATE TABLE sums (id int PRIMARY KEY, n int, twice bigint GENERATED ALWAYS AS (n * 2) STORED);
CREATE TABLE notes (part int, number int, title text, body text, PRIMARY KEY (part, number));
CREATE TABLE measures (id int, at date, value float8, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE measures_old PARTITION OF measures FOR VALUES FROM ('2000-01-01') TO ('2025-01-01');
CREATE TABLE measures_new PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2100-01-01');
ALTER TABLE kinds REPLICA IDENTITY FULL;
ALTER TABLE notes REPLICA IDENTITY FULL;
ALTER TABLE measures REPLICA IDENTITY FULL;
ALTER TABLE measures_old REPLICA IDENTITY FULL;
ALTER TABLE measures_new REPLICA IDENTITY FULL
"#;

const NAMES: [&str; 4] = ["public.kinds", "public.notes", "public.measures", "public.sums"];

/// Values of all sorts, from a session that shows them in its own way.
const VALUES: &str = r#"
SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET bytea_output = 'escape';
SET intervalstyle = 'iso_8601'; SET extra_float_digits = 0;
INSERT INTO kinds VALUES (1, 12345678901234567890.12345678901234567890000, 1.5, 0.1::float8 + 0.2,
    'NaN', '\xdeadbeef', '2026-01-02 03:04:05.678+00', '2026-01-01 00:00', 'infinity', '23:59:60',
    '1 day 2 hours', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b": 1.50, "a": [1, null]}',
    '{ "z":1,"z" : 2 }', '{1,NULL,3}', '{"a b","\""}', '[2026-01-01,2026-02-01)', 'glad', 7,
    '(1,"x y")', '{"(1,a)","(2,)"}', true, E'\u00e9\n"\\', 'short', 'pad', '10.0.0.1', 'odd');
INSERT INTO kinds (id, n, f, g, d, t, a, x) VALUES
    (2, 'NaN', 'Infinity', '-Infinity', '0044-03-15 BC', '-infinity', '{{1,2},{3,4}}', ''),
    (-4611686018427387904, -0.000, '-0', 1e-40, '9999-12-31', '1883-11-18 12:03:57', '{}', '\N');
UPDATE kinds SET n = n + 1, x = NULL WHERE id > 0;
UPDATE kinds SET id = 3 WHERE id = 2;
DELETE FROM kinds WHERE id < 0
"#;

/// Transactions that are not plain, and large values that an update does not touch.
const SHAPES: &str = r#"
BEGIN;
INSERT INTO notes SELECT 1, i, 'title ' || i, NULL FROM generate_series(1, 50) i;
SAVEPOINT s; UPDATE notes SET title = 'lost'; ROLLBACK TO s;
SAVEPOINT t; UPDATE notes SET title = upper(title) WHERE number % 7 = 0; RELEASE t;
INSERT INTO measures VALUES (1, '2024-12-31', 0.5), (2, '2025-01-01', -1e300);
DELETE FROM notes WHERE number > 45;
COMMIT;
BEGIN; DELETE FROM notes; ROLLBACK;
INSERT INTO notes SELECT 2, 1, 'long', string_agg(md5(i::text), '') FROM generate_series(1, 2000) i;
UPDATE notes SET title = 'still long' WHERE part = 2;
UPDATE notes SET part = 3 WHERE part = 2;
UPDATE measures SET value = value * 2;
UPDATE measures SET at = '2025-06-01' WHERE id = 1;
DELETE FROM measures WHERE id = 2;
INSERT INTO sums SELECT i, i * 3 FROM generate_series(1, 3) i;
INSERT INTO measures VALUES (7, '2026-01-01', 'NaN');
TRUNCATE measures;
INSERT INTO notes VALUES (4, 1, 'same', 'same') ON CONFLICT DO NOTHING;
UPDATE notes SET title = 'same' WHERE part = 4;
BEGIN; UPDATE notes SET title = 'first' WHERE part = 4; UPDATE notes SET title = 'second' WHERE part = 4;
DELETE FROM notes WHERE part = 4; INSERT INTO notes VALUES (4, 1, 'third', NULL); COMMIT
"#;

/// The tables change while they are listened to.
const SCHEMAS: &str = r#"
ALTER TABLE notes ADD COLUMN stars int DEFAULT 5;
INSERT INTO notes VALUES (5, 1, 'with stars', NULL, 4);
UPDATE notes SET stars = 3 WHERE part = 1 AND number < 4;
ALTER TABLE notes RENAME COLUMN title TO headline;
UPDATE notes SET headline = 'renamed' WHERE part = 5;
ALTER TABLE notes DROP COLUMN body;
INSERT INTO notes VALUES (5, 2, 'without body', 1);
BEGIN; ALTER TABLE notes ADD COLUMN late bool; INSERT INTO notes VALUES (6, 1, 'late', 0, true); COMMIT;
DELETE FROM notes WHERE part = 1 AND number = 1
"#;

/// The last row of each table; nobody listens any longer.
const END: &str = "\
INSERT INTO kinds (id) VALUES (999999); INSERT INTO notes (part, number) VALUES (999999, 1); \
INSERT INTO measures VALUES (999999, '2025-01-01', 1); INSERT INTO sums VALUES (999999, 1)";

/// Many small transactions, the same for the same seed.
fn random_work(seed: u64) -> String {
    let mut dice = Dice::of(seed, 1);
    let mut sql = String::new();
    for _ in 0..150 {
        sql.push_str("BEGIN; ");
        for _ in 0..=dice.roll(3) {
            let (id, n) = (dice.roll(40) + 10, dice.roll(1_000));
            let written = match dice.roll(6) {
                0..2 => write!(
                    sql,
                    "INSERT INTO kinds (id, n, x) VALUES ({id}, {n}.50, 'x{n}') \
                     ON CONFLICT (id) DO UPDATE SET n = excluded.n; "
                ),
                2 => write!(sql, "DELETE FROM kinds WHERE id = {id}; "),
                3 => write!(
                    sql,
                    "UPDATE kinds SET a = array[{n}], m2 = 'sad' WHERE id BETWEEN {id} AND {id} + 3; "
                ),
                4 => write!(
                    sql,
                    "SAVEPOINT s; UPDATE notes SET headline = '{n}' WHERE number = {id}; {} s; ",
                    if n % 2 == 0 { "ROLLBACK TO" } else { "RELEASE" }
                ),
                _ => write!(sql, "UPDATE notes SET stars = {n} WHERE number = {id}; "),
            };
            written.expect("a string takes all");
        }
        sql.push_str(if dice.once_in(8) { "ROLLBACK; " } else { "COMMIT; " });
    }
    sql
}

/// What a server tells of each table, without what can only be its own.
async fn told(cluster: &PrivateCluster, source: &'static str, seed: u64) -> Vec<Vec<String>> {
    let url = cluster.socket_url().expect("a short path");
    Psql::open(&url).sql(&format!("CREATE DATABASE for_{source}")).await;
    let url = url.strip_suffix("/postgres").expect("the superuser's database");
    let url = format!("{url}/for_{source}");
    let mut psql = Psql::open(&url);
    psql.sql(TABLES).await;
    let keys = [("source", source), ("history.bytes", "64MiB"), ("limits.mailbox_bytes", "32MiB")];
    let server = Server::of(&url, &keys).await;
    let mut client = client(server.address).await;
    for name in NAMES {
        client.subscribe(json!({"table": name})).await;
    }
    for work in [VALUES, SHAPES, SCHEMAS, &random_work(seed), END] {
        // It is only psql that needs to be told of its end.
        psql.sql(work).await;
    }
    listen(&mut client).await
}

async fn listen(client: &mut Client) -> Vec<Vec<String>> {
    let mut tables: Vec<Table> = NAMES.iter().map(|_| Table::default()).collect();
    while !tables.iter().all(|table| table.is_over) {
        let text = client.try_hear().await.expect("the connection lives");
        let frame: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).expect("JSON");
        let name: String = serde_json::from_str(frame["table"].get()).expect("a name");
        let place = NAMES.iter().position(|known| **known == name).expect("one of them");
        tables[place].take(frame);
    }
    tables.into_iter().map(|table| table.frames).collect()
}

#[derive(Default)]
struct Table {
    frames: Vec<String>,
    transactions: HashMap<String, usize>,
    is_over: bool,
}

impl Table {
    fn take(&mut self, mut frame: BTreeMap<String, Box<RawValue>>) {
        for own in ["position", "committed_at", "lsn"] {
            frame.remove(own);
        }
        let next = self.transactions.len();
        let xid = frame.remove("xid").expect("a change").get().to_owned();
        let ordinal = *self.transactions.entry(xid).or_insert(next);
        self.is_over |= frame["op"].get() == "\"INSERT\"" && frame["key"].get().contains("999999");
        let fields = frame.iter().map(|(name, value)| format!("{name}: {value}"));
        let fields: Vec<_> = fields.collect();
        self.frames.push(format!("transaction {ordinal}, {}", fields.join(", ")));
    }
}

fn compare(what: &str, one: &[Vec<String>], other: &[Vec<String>]) {
    for (name, (one, other)) in NAMES.iter().zip(one.iter().zip(other)) {
        for (place, (one, other)) in one.iter().zip(other).enumerate() {
            assert!(one == other, "{what}, {name}, change {place}:\n{one}\n{other}");
        }
        assert_eq!(one.len(), other.len(), "{what}, {name}: how many");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sources_and_both_versions_tell_the_same_work_in_the_same_frames() {
    let seed = seed();
    let mut clusters = vec![own_cluster(Options::default()).await];
    clusters.extend(newer_cluster(Options::default()).await);
    let mut first: Option<Arc<[Vec<String>]>> = None;
    for (place, cluster) in clusters.iter().enumerate() {
        for source in ["wal", "outbox"] {
            let told = told(cluster, source, seed).await;
            let first = first.get_or_insert_with(|| told.clone().into());
            let what = format!("the first cluster's log and {source} of cluster {place}");
            compare(&what, first, &told);
            println!("{what}: {:?} changes", told.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }
}
