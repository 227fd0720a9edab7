//! Row changes from triggers.

mod failures;
mod newer;
mod oracle;
mod renamed;
mod restarts;
mod right;
mod switched;

use std::sync::Arc;
use std::time::Duration;

use tidewire::Topic;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{OutboxOptions, OutboxSource, Target};
use tidewire_protocol::change::{Change, Operation};
use tidewire_protocol::{Code, GapReason, Payload};
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use crate::support::changes::{Seen, Witness, object};
use crate::support::{cluster, comes_true, connect, database, database_url};

/// A source, what it publishes, and a connection to its database.
struct Setup {
    source: OutboxSource,
    witness: Witness,
    client: Client,
    target: Target,
}

impl Setup {
    /// A source in a database of its own, in which `sql` was run.
    async fn new(name: &str, sql: &str) -> Self {
        Self::on(&cluster(), name, sql).await
    }

    /// The same in another cluster.
    async fn on(cluster: &PrivateCluster, name: &str, sql: &str) -> Self {
        Self::with(cluster, name, sql, OutboxOptions::default()).await
    }

    async fn with(cluster: &PrivateCluster, name: &str, sql: &str, options: OutboxOptions) -> Self {
        let (target, client) = database(cluster, name).await;
        client.batch_execute(sql).await.unwrap();
        let (publisher, witness) = Witness::new();
        let source = OutboxSource::start(target.clone(), publisher, options);
        Self { source, witness, client, target }
    }

    /// Follows a table and takes the gap that following begins with.
    async fn add(&mut self, name: &str) {
        self.source.add(&table(name)).await.unwrap();
        assert_eq!(self.witness.next().await, Seen::Gap(name.to_owned(), GapReason::NotListening));
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn until(&self, what: &str, mut so: impl FnMut(&OutboxSource) -> bool) {
        until(&self.source, what, &mut so).await;
    }
}

async fn until(source: &OutboxSource, what: &str, mut so: impl FnMut(&OutboxSource) -> bool) {
    let came = comes_true(async || so(source)).await;
    assert!(came, "not in time: {what}; {:?}", source.status());
}

fn start(target: &Target) -> (OutboxSource, Witness) {
    let (publisher, witness) = Witness::new();
    (OutboxSource::start(target.clone(), publisher, OutboxOptions::default()), witness)
}

fn table(name: &str) -> Topic {
    Topic::table(name).unwrap()
}

fn new_row(change: &Change) -> Vec<(String, String)> {
    change.record.as_ref().map_or(Vec::new(), |row| object(change, row).into_iter().collect())
}

#[tokio::test]
async fn a_change_tells_what_happened_to_which_row() {
    let _cluster = cluster();
    let mut setup =
        Setup::new("ob_tells", "CREATE TABLE orders (id bigint PRIMARY KEY, note text)").await;
    setup.add("public.orders").await;
    setup.run("INSERT INTO orders VALUES (1, 'a')").await;
    let insert = setup.witness.change().await;
    assert_eq!((insert.operation, insert.index, insert.last), (Operation::Insert, 0, true));
    assert_eq!(&*insert.relation.table, "orders");
    let columns = insert.relation.columns();
    assert_eq!((&*columns[0].type_name, columns[0].key), ("bigint", true));
    assert_eq!((&*columns[1].type_name, columns[1].key), ("text", false));
    assert_eq!(object(&insert, insert.record.as_ref().unwrap())["note"], "\"a\"");
    assert!(insert.old.is_none() && insert.transaction.lsn.is_none());
    setup.run("UPDATE orders SET id = 2").await;
    let update = setup.witness.change().await;
    assert_eq!(update.operation, Operation::Update);
    assert_eq!(update.changed_columns(), Some(vec![0]));
    assert!(Arc::ptr_eq(&update.relation, &insert.relation));
    setup.run("DELETE FROM orders; TRUNCATE orders").await;
    let delete = setup.witness.change().await;
    assert_eq!(object(&delete, delete.old.as_ref().unwrap())["id"], "2");
    assert!(delete.record.is_none() && !delete.last);
    let truncate = setup.witness.change().await;
    assert_eq!((truncate.operation, truncate.index, truncate.last), (Operation::Truncate, 1, true));
    assert_eq!(truncate.transaction, delete.transaction);
    setup.source.shutdown().await;
}

#[tokio::test]
async fn values_are_those_of_to_jsonb_whatever_the_writer_has_set() {
    check_values(&cluster()).await;
}

async fn check_values(cluster: &PrivateCluster) {
    const TYPES: &str = "\
        CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN age AS int; \
        CREATE TYPE pair AS (a int, b text); \
        CREATE TABLE kinds (id bigint PRIMARY KEY, n numeric, f float8, g float4, b bytea, \
          t timestamptz, d date, i interval, u uuid, j jsonb, k json, a int[], s text[], \
          r tstzrange, m mood, e age, p pair, o bool, x text, l timestamp, h inet, \
          twice bigint GENERATED ALWAYS AS (id * 2) STORED)";
    let mut setup = Setup::on(cluster, "ob_values", TYPES).await;
    setup.add("public.kinds").await;
    setup
        .run(
            "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET bytea_output = 'escape'; \
             SET intervalstyle = 'iso_8601'; SET extra_float_digits = 0; \
             INSERT INTO kinds VALUES (1, 12345678901234567890.12345678901234567890000, 0.1::float8 \
             + 0.2, 'NaN', '\\xdeadbeef', '2026-01-02 03:04:05.678+00', 'infinity', '1 day 2 hours', \
             'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"b\": 1.50, \"a\": [1, null]}', \
             '{ \"z\":1,\"z\" : 2 }', '{1,NULL,3}', '{\"a b\",\"\\\"\"}', \
             '[2026-01-01,2026-02-01)', 'glad', 7, '(1,\"x y\")', true, E'\\u00e9\\n\"\\\\', \
             '2026-01-01 00:00', '10.0.0.1'); \
             INSERT INTO kinds (id, n) VALUES (2, 'NaN')",
        )
        .await;
    setup
        .run(
            "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET bytea_output = 'hex'; \
             SET intervalstyle = 'postgres'; SET extra_float_digits = 1",
        )
        .await;
    for id in [1, 2] {
        let change = setup.witness.change().await;
        let sql = format!(
            "SELECT key, value::text FROM kinds, jsonb_each(to_jsonb(kinds)) \
             WHERE id = {id} AND key <> 'twice'"
        );
        let expected = setup.client.query(&sql, &[]).await.unwrap();
        let mut expected: Vec<(String, String)> =
            expected.iter().map(|row| (row.get(0), row.get(1))).collect();
        expected.sort();
        assert_eq!(new_row(&change), expected);
    }
}

#[tokio::test]
async fn a_transaction_is_told_together_and_what_is_rolled_back_is_not() {
    let _cluster = cluster();
    let mut setup = Setup::new(
        "ob_together",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)",
    )
    .await;
    setup.add("public.a").await;
    setup.run("SELECT enable_realtime('b')").await;
    setup.add("public.b").await;
    setup
        .run(
            "BEGIN; INSERT INTO a VALUES (1); SAVEPOINT s; INSERT INTO a VALUES (2); \
             ROLLBACK TO s; INSERT INTO b VALUES (3); INSERT INTO a VALUES (4); COMMIT; \
             BEGIN; INSERT INTO a VALUES (5); ROLLBACK; INSERT INTO a VALUES (6)",
        )
        .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let change = setup.witness.change().await;
        let id = object(&change, change.record.as_ref().unwrap())["id"].clone();
        seen.push((change.relation.table.to_string(), id, change.index, change.last));
    }
    let row = |table: &str, id: &str, index, last| (table.to_owned(), id.to_owned(), index, last);
    let of = |table: &str| seen.iter().filter(|row| row.0 == table).cloned().collect::<Vec<_>>();
    assert_eq!(of("a"), [row("a", "1", 0, false), row("a", "4", 2, true), row("a", "6", 0, true)]);
    assert_eq!(of("b"), [row("b", "3", 1, true)]);
}

#[tokio::test]
async fn a_reader_that_sleeps_is_woken_at_once() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_wakes", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    let mut slowest = Duration::ZERO;
    for id in 0..5 {
        let sleeps = setup.source.metrics().sleeps.get();
        setup.until("the reader sleeps", |s| s.metrics().sleeps.get() > sleeps).await;
        let written = Instant::now();
        setup.run(&format!("INSERT INTO a VALUES ({id})")).await;
        setup.witness.change().await;
        slowest = slowest.max(written.elapsed());
    }
    // The safety net looks after a second.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[tokio::test]
async fn a_long_transaction_delays_nobody_but_itself() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_long", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    let long = connect(&database_url(&cluster(), "ob_long")).await;
    long.batch_execute("BEGIN; INSERT INTO a VALUES (-1)").await.unwrap();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut id = 0;
    while began.elapsed() < Duration::from_secs(4) {
        id += 1;
        let written = Instant::now();
        setup.run(&format!("INSERT INTO a VALUES ({id})")).await;
        assert_eq!(new_row(&*setup.witness.change().await)[0].1, id.to_string());
        slowest = slowest.max(written.elapsed());
    }
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    assert!(id > 40, "{id} changes in 4 s");
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "-1");
}

#[tokio::test]
async fn what_is_published_in_a_transaction_comes_when_it_commits() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_says", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    let large = "x".repeat(100_000);
    setup
        .run(&format!(
            "BEGIN; SELECT tidewire.publish('room:1', 'never'); ROLLBACK; \
             BEGIN; SELECT tidewire.publish('room:1', '{{\"a\":1.50}}'::jsonb, 'order.made'); \
             INSERT INTO a VALUES (1); SELECT tidewire.publish('room:1', '{large}'); COMMIT"
        ))
        .await;
    let (mut messages, mut changes) = (Vec::new(), 0);
    for _ in 0..3 {
        match setup.witness.next().await {
            Seen::Message(topic, name, payload) => messages.push((topic, name, payload)),
            Seen::Change(change) => {
                assert_eq!((change.index, change.last), (0, true));
                changes += 1;
            }
            Seen::Gap(..) => panic!("nothing was lost"),
        }
    }
    let topic = || "room:1".to_owned();
    assert_eq!(
        messages,
        [
            (topic(), Some("order.made".to_owned()), Payload::json(r#"{"a": 1.50}"#).unwrap()),
            (topic(), None, Payload::Text(large.as_str().into())),
        ]
    );
    assert_eq!(changes, 1);
}

#[tokio::test]
async fn a_table_that_is_altered_is_followed_on() {
    let _cluster = cluster();
    let mut setup =
        Setup::new("ob_alter", "CREATE TABLE a (id int PRIMARY KEY, b int, c text)").await;
    setup.add("public.a").await;
    setup.run("INSERT INTO a VALUES (1, 2, 'x')").await;
    setup.witness.change().await;
    let names = |change: &Change| {
        change.relation.columns().iter().map(|c| c.name.to_string()).collect::<Vec<_>>()
    };
    for (alter, expected) in [
        ("ALTER TABLE a ADD COLUMN d int DEFAULT 5", vec!["id", "b", "c", "d"]),
        ("ALTER TABLE a RENAME COLUMN c TO \"Ça \"\" va\"", vec!["id", "b", "Ça \" va", "d"]),
        ("ALTER TABLE a DROP COLUMN b", vec!["id", "Ça \" va", "d"]),
    ] {
        setup.run(alter).await;
        setup.run("UPDATE a SET id = id + 1").await;
        let change = setup.witness.change().await;
        assert_eq!(names(&change), expected);
        assert_eq!(new_row(&change).len(), expected.len());
    }
    setup.run("ALTER TABLE a ALTER COLUMN d TYPE text USING d::text").await;
    setup.until("the catalog was looked at", |s| s.metrics().polls.get() > 0).await;
    let renewed = timeout(Duration::from_secs(10), async {
        loop {
            setup.run("UPDATE a SET id = id + 1").await;
            let change = setup.witness.change().await;
            if &*change.relation.columns()[2].type_name == "text" {
                break;
            }
        }
    });
    renewed.await.expect("the new type is known within 10 s");
}

#[tokio::test]
async fn partitions_are_told_as_the_table_they_are_part_of() {
    let _cluster = cluster();
    let mut setup = Setup::new(
        "ob_parts",
        "CREATE TABLE m (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id); \
         CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)",
    )
    .await;
    setup.add("public.m").await;
    setup.run("CREATE TABLE m2 (n int, id int NOT NULL PRIMARY KEY)").await;
    setup.run("ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20)").await;
    setup.run("INSERT INTO m VALUES (1, 100)").await;
    setup.run("UPDATE m SET id = 15").await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let change = setup.witness.change().await;
        assert_eq!(&*change.relation.table, "m");
        let row = change.record.as_ref().or(change.old.as_ref()).unwrap();
        let row: Vec<_> = row.values().map(|value| value.json().unwrap().to_owned()).collect();
        seen.push((change.operation, row));
    }
    let row = |id: &str| vec![id.to_owned(), "100".to_owned()];
    assert_eq!(
        seen,
        [
            (Operation::Insert, row("1")),
            (Operation::Delete, row("1")),
            (Operation::Insert, row("15"))
        ]
    );
    let refused = setup.source.add(&table("public.m2")).await.unwrap_err();
    assert!(refused.message.contains("partition"), "{}", refused.message);
}

#[tokio::test]
async fn who_comes_back_soon_misses_nothing() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_returns", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    setup.source.remove(&table("public.a"));
    assert_eq!(setup.source.status().tables, 0);
    setup.run("INSERT INTO a VALUES (1)").await;
    setup.source.add(&table("public.a")).await.unwrap();
    setup.run("INSERT INTO a VALUES (2)").await;
    for id in ["1", "2"] {
        assert_eq!(new_row(&*setup.witness.change().await)[0].1, id);
    }
}

#[tokio::test]
async fn a_table_nobody_listens_to_is_silent_and_coming_back_is_a_gap() {
    let _cluster = cluster();
    let options = OutboxOptions { linger: Duration::ZERO, ..OutboxOptions::default() };
    let sql = "CREATE TABLE a (id int PRIMARY KEY)";
    let mut setup = Setup::with(&cluster(), "ob_leaves", sql, options).await;
    setup.add("public.a").await;
    setup.source.remove(&table("public.a"));
    setup.run("INSERT INTO a VALUES (1)").await;
    setup.source.catch_up().await.unwrap();
    assert_eq!(setup.witness.taken(), []);
    setup.add("public.a").await;
    setup.run("INSERT INTO a VALUES (2)").await;
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "2");
}

#[tokio::test]
async fn catching_up_brings_everything_a_query_has_seen() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_catches", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    for id in 0..20 {
        setup.run(&format!("INSERT INTO a VALUES ({id})")).await;
        setup.source.catch_up().await.unwrap();
        assert_eq!(setup.witness.taken().len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_table_is_refused() {
    let _cluster = cluster();
    let setup = Setup::new("ob_refuses", "CREATE VIEW v AS SELECT 1").await;
    let code = async |name: &str| setup.source.add(&table(name)).await.unwrap_err().code;
    assert_eq!(code("public.nothing").await, Code::NotFound);
    assert_eq!(code("public.v").await, Code::BadTopic);
    assert_eq!(code("pg_catalog.pg_class").await, Code::NotConfigured);
}
