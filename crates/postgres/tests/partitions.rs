//! Partitioned tables, of which both sources tell the same.

mod brief;
mod outbox;

use std::time::Duration;

use tidewire::Publisher;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{OutboxOptions, OutboxSource, Target, WalOptions, WalSource};
use tidewire_protocol::change::{Change, Row};
use tidewire_protocol::{Refusal, Topic};
use tokio_postgres::Client;

use crate::support::changes::{Seen, Witness, object};
use crate::support::{cluster, database, newer_cluster};

/// One of the two.
enum Source {
    Wal(WalSource),
    Outbox(OutboxSource),
}

impl Source {
    fn start(word: &str, target: &Target, publisher: Publisher) -> Self {
        let target = target.clone();
        match word {
            "wal" => {
                let check_interval = Duration::from_millis(200);
                let options = WalOptions { check_interval, ..WalOptions::default() };
                Self::Wal(WalSource::start(target, publisher, options))
            }
            _ => Self::Outbox(OutboxSource::start(target, publisher, OutboxOptions::default())),
        }
    }

    async fn add(&self, name: &str) -> Result<(), Refusal> {
        let table = Topic::table(name).unwrap();
        match self {
            Self::Wal(source) => source.add(&table).await,
            Self::Outbox(source) => source.add(&table).await,
        }
    }

    async fn catch_up(&self) {
        let caught_up = match self {
            Self::Wal(source) => source.catch_up().await,
            Self::Outbox(source) => source.catch_up().await,
        };
        caught_up.unwrap();
    }
}

/// A source with a database of its own.
struct Rig {
    source: Source,
    witness: Witness,
    client: Client,
    target: Target,
}

impl Rig {
    async fn new(cluster: &PrivateCluster, word: &str, name: &str, setup: &str) -> Self {
        let (target, client) = database(cluster, &format!("{name}_{word}")).await;
        client.batch_execute(setup).await.unwrap();
        let (publisher, witness) = Witness::new();
        let source = Source::start(word, &target, publisher);
        Self { source, witness, client, target }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Everything that was told up to now.
    async fn told(&mut self) -> Vec<String> {
        self.source.catch_up().await;
        self.witness.taken().iter().map(words).collect()
    }

    /// Waits for what is told next.
    async fn next(&mut self) -> String {
        words(&self.witness.next().await)
    }
}

/// An event as far as both sources tell the same.
fn words(seen: &Seen) -> String {
    let change = match seen {
        Seen::Change(change) => change,
        Seen::Gap(topic, reason) => return format!("gap of {topic}: {reason}"),
        other => panic!("{other:?}"),
    };
    let Change { operation, relation, record, old, index, last, .. } = &**change;
    let rows = [record, old].map(|row: &Option<Row>| row.as_ref().map(|row| object(change, row)));
    let column = |column: &tidewire_protocol::change::Column| {
        format!("{}{} {}", column.name, if column.key { "!" } else { "" }, column.type_name)
    };
    let columns: Vec<String> = relation.columns().iter().map(column).collect();
    format!(
        "{} {}.{} {columns:?} {index}{}: {rows:?}",
        operation.word(),
        relation.schema,
        relation.table,
        if *last { " last" } else { "" }
    )
}

/// Two levels, a default partition, and one that was a table with its columns in another order.
const SETUP: &str = "
CREATE TABLE p (id int, kind text NOT NULL, n numeric, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a') PARTITION BY RANGE (id);
CREATE TABLE p_a1 PARTITION OF p_a FOR VALUES FROM (0) TO (100);
CREATE TABLE p_a2 PARTITION OF p_a FOR VALUES FROM (100) TO (200);
CREATE TABLE p_b (n numeric, gone text, kind text NOT NULL, id int, PRIMARY KEY (id, kind));
ALTER TABLE p_b DROP gone;
ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b');
CREATE TABLE p_rest PARTITION OF p DEFAULT;
ALTER TABLE p_a1 REPLICA IDENTITY FULL; ALTER TABLE p_a2 REPLICA IDENTITY FULL;
ALTER TABLE p_b REPLICA IDENTITY FULL; ALTER TABLE p_rest REPLICA IDENTITY FULL";

/// What partitioned tables are used for.
const WORK: &[&str] = &[
    "INSERT INTO p VALUES (1, 'a', 1.50), (2, 'b', 2.0), (3, 'c', NULL), (101, 'a', 'NaN')",
    "UPDATE p SET n = n + 1",
    // Within a level, to another level, into the default partition, and back from it.
    "UPDATE p SET id = 102 WHERE id = 1",
    "UPDATE p SET kind = 'b' WHERE id = 102",
    "UPDATE p SET kind = 'x' WHERE kind = 'b'",
    "UPDATE p SET kind = 'a', id = 50 WHERE id = 3",
    "INSERT INTO p_a2 VALUES (103, 'a', 3); UPDATE p_b SET n = 0; DELETE FROM p_a WHERE id = 50",
    "INSERT INTO p_b (id, kind, n) VALUES (7, 'b', 7) ON CONFLICT (id, kind) DO UPDATE SET n = 8",
    "INSERT INTO p VALUES (7, 'b', 9) ON CONFLICT (id, kind) DO UPDATE SET n = excluded.n",
    // A new one, with rows at once.
    "CREATE TABLE p_d PARTITION OF p FOR VALUES IN ('d'); ALTER TABLE p_d REPLICA IDENTITY FULL; \
     INSERT INTO p VALUES (4, 'd', 4); DELETE FROM p WHERE id = 4",
    "ALTER TABLE p ADD later text DEFAULT 'l'",
    "INSERT INTO p VALUES (5, 'b', 5, 'm'); UPDATE p SET later = NULL WHERE id = 5",
    "BEGIN; DELETE FROM p WHERE kind = 'b'; ROLLBACK",
    "BEGIN; SAVEPOINT s; TRUNCATE p_b; ROLLBACK TO s; INSERT INTO p VALUES (6, 'b', 6); COMMIT",
    "BEGIN; DELETE FROM p; INSERT INTO p VALUES (8, 'e', 8); COMMIT",
    "TRUNCATE p",
    "INSERT INTO p VALUES (9, 'b', 9), (110, 'a', 10)",
    "BEGIN; INSERT INTO p VALUES (10, 'a', 10); TRUNCATE p; INSERT INTO p VALUES (11, 'a', 11); COMMIT",
    // Alone: a gap at its place, of a level with one partition or several.
    "INSERT INTO p VALUES (12, 'b', 12)",
    "TRUNCATE p_b",
    "BEGIN; INSERT INTO p VALUES (13, 'b', 13); TRUNCATE p_a; INSERT INTO p VALUES (14, 'a', 14); COMMIT",
    "INSERT INTO p VALUES (15, 'a', 15)",
];

/// What a source tells of that.
async fn of_work(cluster: &PrivateCluster, word: &str) -> Vec<String> {
    let mut rig = Rig::new(cluster, word, "parted", SETUP).await;
    rig.source.add("public.p").await.unwrap();
    for work in WORK {
        for statement in work.split_inclusive("; ") {
            // One after the other, but whole transactions.
            if !work.starts_with("BEGIN") {
                rig.run(statement).await;
            }
        }
        if work.starts_with("BEGIN") {
            rig.run(work).await;
        }
    }
    let mut told = rig.told().await;
    // What comes and goes with its rows is told after the keeper has looked.
    rig.run("ALTER TABLE p DETACH PARTITION p_b").await;
    told.push(rig.next().await);
    rig.run("INSERT INTO p_b (id, kind, n) VALUES (20, 'b', 20)").await;
    rig.run("ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b')").await;
    told.push(rig.next().await);
    rig.run("INSERT INTO p VALUES (21, 'b', 21)").await;
    told.push(rig.next().await);
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sources_and_versions_tell_the_same_of_partitions() {
    let own = cluster();
    let first = of_work(&own, "wal").await;
    let starts = |word: &str| first.iter().filter(|told| told.starts_with(word)).count();
    assert_eq!((starts("gap"), starts("TRUNCATE")), (5, 2), "{first:#?}");
    let compare = |what: &str, told: Vec<String>| {
        for (place, (one, other)) in first.iter().zip(&told).enumerate() {
            assert_eq!(one, other, "{what}, place {place}");
        }
        assert_eq!(first.len(), told.len(), "{what}");
    };
    compare("outbox", of_work(&own, "outbox").await);
    if let Some(newer) = newer_cluster() {
        compare("wal of the newer", of_work(&newer, "wal").await);
        compare("outbox of the newer", of_work(&newer, "outbox").await);
    }
}

/// Tables that inherit are tables of their own: what happens to a child is not told as its parent's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_inherits_is_told_by_itself() {
    let own = cluster();
    for word in ["wal", "outbox"] {
        let setup = "CREATE TABLE parent (id int PRIMARY KEY); \
                     CREATE TABLE child (PRIMARY KEY (id), n int) INHERITS (parent)";
        let mut rig = Rig::new(&own, word, "inherits", setup).await;
        rig.source.add("public.parent").await.unwrap();
        rig.run("INSERT INTO child VALUES (1); INSERT INTO parent VALUES (2)").await;
        rig.run("UPDATE parent SET id = id + 10; TRUNCATE child").await;
        let told = rig.told().await;
        assert_eq!(told.len(), 3, "{word}: {told:?}");
        assert!(told[1].contains("\"2\"") && told[2].contains("\"12\""), "{word}: {told:?}");
        rig.source.add("public.child").await.unwrap();
        rig.run("INSERT INTO child VALUES (3, 4); TRUNCATE parent").await;
        let told = rig.told().await;
        assert_eq!(told.len(), 4, "{word}: {told:?}");
        assert!(told[1].starts_with("INSERT public.child"), "{word}: {told:?}");
        let mut both = [&told[2][..17], &told[3][..17]];
        both.sort_unstable();
        assert_eq!(both, ["TRUNCATE public.c", "TRUNCATE public.p"], "{word}");
    }
}
