//! Transactions that are sent while they run: what is told is the same as without.

use std::sync::Arc;
use std::time::Duration;

use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tidewire_postgres::{SlotKind, WalOptions};
use tidewire_protocol::change::Change;
use tidewire_protocol::{GapReason, Payload};
use tokio_postgres::Client;

use super::basics::changes;
use super::{Rig, quick};
use crate::support::changes::Seen;
use crate::support::{newer_cluster_with, sql, target};

const SETUP: &str = "
CREATE TABLE grand (id int PRIMARY KEY, filler text);
ALTER TABLE grand REPLICA IDENTITY FULL;
CREATE TABLE small (id int PRIMARY KEY, n int)";

/// A server that sends every transaction of more than some hundred rows while it runs.
fn impatient() -> Options {
    Options::default().setting("logical_decoding_work_mem", "64kB")
}

fn impatient_cluster() -> PrivateCluster {
    PrivateCluster::temporary(impatient()).expect("a private PostgreSQL")
}

fn streaming() -> WalOptions {
    WalOptions { streaming: true, spool_dir: std::env::temp_dir(), ..quick() }
}

fn persistent(name: &str) -> WalOptions {
    let slot = SlotKind::Persistent { name: name.to_owned(), failover: false };
    WalOptions { slot, ..streaming() }
}

/// So many rows of 100 bytes, far more than the server holds back.
fn rows(from: u32, count: u32) -> String {
    let to = from + count - 1;
    format!("INSERT INTO grand SELECT n, repeat('x', 100) FROM generate_series({from}, {to}) n;")
}

fn publish(text: &str) -> String {
    let message = format!(r#"{{"topic":"a","text":"{text}"}}"#);
    format!("SELECT pg_logical_emit_message(true, 'tidewire', '{message}');")
}

/// Statements of several connections, in the order in which they are carried out.
const CONNECTIONS: usize = 3;

fn workload() -> Vec<(usize, String)> {
    let say = |connection: usize, words: &str| (connection, words.to_owned());
    vec![
        // Two large ones and small ones, all between each other.
        (0, format!("BEGIN; {}", rows(1, 2_000))),
        (1, format!("BEGIN; {}", rows(10_001, 2_000))),
        say(2, "INSERT INTO small VALUES (1, 1)"),
        // Savepoints: one that stays, one that goes, one inside of each.
        (0, format!("SAVEPOINT a; {} SAVEPOINT b; {}", rows(3_001, 1_000), rows(4_001, 1_000))),
        (0, format!("ROLLBACK TO b; {} RELEASE a;", rows(5_001, 1_000))),
        (0, format!("SAVEPOINT c; {} SAVEPOINT d; {}", rows(6_001, 900), rows(7_001, 900))),
        (0, format!("RELEASE d; ROLLBACK TO c; {}", rows(8_001, 900))),
        say(2, "BEGIN; UPDATE small SET n = 2; INSERT INTO small VALUES (2, 2); COMMIT"),
        (
            1,
            "UPDATE grand SET filler = 'y' WHERE id > 10000; DELETE FROM grand WHERE id > 11900;"
                .to_owned(),
        ),
        say(0, "INSERT INTO small VALUES (3, 3); COMMIT"),
        // A large one that comes to nothing.
        (2, format!("BEGIN; {} ROLLBACK", rows(20_001, 3_000))),
        (1, format!("{} COMMIT", rows(12_001, 500))),
        // A table that is altered inside, once for nothing.
        (0, format!("BEGIN; {} ALTER TABLE grand ADD more int DEFAULT 7;", rows(30_001, 1_000))),
        (0, "INSERT INTO grand SELECT n, 'z', n FROM generate_series(31001, 32000) n;".to_owned()),
        say(0, "SAVEPOINT e; ALTER TABLE grand DROP filler;"),
        (0, "INSERT INTO grand SELECT n, n FROM generate_series(32001, 33000) n;".to_owned()),
        say(0, "ROLLBACK TO e; INSERT INTO small VALUES (4, 4);"),
        (0, "INSERT INTO grand SELECT n, 'w', n FROM generate_series(33001, 34000) n;".to_owned()),
        say(
            0,
            "ALTER TABLE grand RENAME more TO most; UPDATE grand SET most = 8 WHERE id > 33500;",
        ),
        say(0, "COMMIT"),
        say(1, "INSERT INTO grand VALUES (40000, 'last', 9)"),
        (2, format!("BEGIN; TRUNCATE small; {} COMMIT", "INSERT INTO small VALUES (5, 5);")),
        // What is published on a topic has its place between the rows.
        (
            0,
            format!(
                "BEGIN; DELETE FROM grand WHERE id < 2000; {} {} COMMIT",
                publish("kept"),
                "DELETE FROM grand WHERE id < 9000;"
            ),
        ),
    ]
}

async fn work(connections: &[Client]) {
    for (connection, words) in workload() {
        connections[connection].batch_execute(&words).await.unwrap();
    }
}

/// Everything but the gaps that tables begin with.
fn said(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter().filter(|seen| !matches!(seen, Seen::Gap(_, GapReason::NotListening))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_the_same_with_and_without_streaming() {
    compare(&impatient_cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_postgresql_tells_is_the_same_with_and_without_streaming() {
    if let Some(cluster) = newer_cluster_with(impatient()) {
        compare(&cluster).await;
    }
}

async fn compare(cluster: &PrivateCluster) {
    let mut plain = Rig::new(cluster, SETUP).await;
    let mut streamed = Rig::with(cluster, target(cluster), streaming(), "").await;
    for rig in [&plain, &streamed] {
        rig.add("public.grand").await;
        rig.add("public.small").await;
    }
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(sql(cluster).await);
    }
    work(&connections).await;
    let expected = said(plain.caught_up().await);
    let told = said(streamed.caught_up().await);
    for (at, (told, expected)) in told.iter().zip(&expected).enumerate() {
        assert_eq!(told, expected, "event {at}");
    }
    assert_eq!(told.len(), expected.len());
    assert!(told.len() > 15_000, "{} events are few", told.len());
    let metrics = streamed.source.metrics();
    // The one that was rolled back is not told, the others are.
    assert_eq!(metrics.streamed.get(), 4, "transactions sent while they ran");
    assert!(metrics.spooled.get() > 1_000_000);
    assert_eq!((metrics.spool_bytes.get(), metrics.reconnects.get()), (0, 0));
    assert_eq!(plain.source.metrics().streamed.get(), 0);
}

fn count(changes: &[Arc<Change>]) -> (usize, usize) {
    let lasts = changes.iter().filter(|change| change.last).count();
    (changes.len(), lasts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_the_middle_of_a_running_transaction_repeats_and_misses_nothing() {
    let cluster = impatient_cluster();
    let mut rig = Rig::with(&cluster, target(&cluster), persistent("midway"), SETUP).await;
    rig.add("public.grand").await;
    rig.caught_up().await;
    let writer = sql(&cluster).await;
    writer.batch_execute(&format!("BEGIN; {}", rows(1, 5_000))).await.unwrap();
    rig.until("a part on disk", |source| source.metrics().spool_bytes.get() > 0).await;
    rig.run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    rig.until("a new stream", |source| source.metrics().reconnects.get() == 1).await;
    writer.batch_execute(&format!("{} COMMIT", rows(6_001, 5_000))).await.unwrap();
    rig.add("public.grand").await;
    let told = changes(rig.caught_up().await);
    assert_eq!(count(&told), (10_000, 1));
    assert_eq!(rig.source.metrics().spool_bytes.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_be_kept_is_read_without_streaming() {
    let cluster = impatient_cluster();
    let options = WalOptions { spool_bytes: 100_000, ..persistent("narrow") };
    let mut rig = Rig::with(&cluster, target(&cluster), options, SETUP).await;
    rig.add("public.grand").await;
    rig.caught_up().await;
    let writer = sql(&cluster).await;
    writer.batch_execute(&format!("BEGIN; {}", rows(1, 5_000))).await.unwrap();
    rig.until("another stream", |source| {
        source.metrics().reconnects.get() == 1 && source.status().connected
    })
    .await;
    let why = rig.source.status().last_error.unwrap();
    assert!(why.contains("wal.spool_bytes"), "{why}");
    writer.batch_execute(&format!("{} COMMIT", rows(6_001, 5_000))).await.unwrap();
    rig.add("public.grand").await;
    let told = changes(rig.caught_up().await);
    assert_eq!(count(&told), (10_000, 1), "a persistent slot misses nothing by it");
    let metrics = rig.source.metrics();
    assert_eq!((metrics.spool_refusals.get(), metrics.streamed.get()), (1, 0));
    assert_eq!((metrics.spool_bytes.get(), metrics.reconnects.get()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_too_large_to_keep_is_a_gap_when_its_transaction_commits() {
    let cluster = impatient_cluster();
    let options = WalOptions { row_bytes: 1 << 20, ..streaming() };
    let mut rig = Rig::with(&cluster, target(&cluster), options, SETUP).await;
    rig.add("public.grand").await;
    rig.caught_up().await;
    let large = "INSERT INTO grand VALUES (1001, repeat('x', 2 << 20));";
    rig.run(&format!("BEGIN; {} {large} {} COMMIT", rows(1, 1_000), rows(2_001, 1_000))).await;
    let seen = rig.caught_up().await;
    let gap = Seen::Gap("public.grand".to_owned(), GapReason::HistoryTrimmed);
    assert_eq!(seen.iter().filter(|seen| **seen == gap).count(), 1);
    let told = changes(seen);
    assert_eq!(count(&told), (2_000, 1));
    assert_eq!(told[1_000].index, 1_001, "the one that is missing has its number");
    assert_eq!(rig.source.metrics().streamed.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_on_disk_of_a_source_that_is_gone() {
    let cluster = impatient_cluster();
    let directory = tempfile::tempdir().unwrap();
    let options = WalOptions { spool_dir: directory.path().to_owned(), ..streaming() };
    let rig = Rig::with(&cluster, target(&cluster), options, SETUP).await;
    rig.add("public.grand").await;
    let writer = sql(&cluster).await;
    writer.batch_execute(&format!("BEGIN; {}", rows(1, 5_000))).await.unwrap();
    rig.until("a part on disk", |source| source.metrics().spool_bytes.get() > 0).await;
    let files = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files(), 0, "not even while it is kept");
    drop(rig);
    assert_eq!(files(), 0);
}

/// A part that was read is worked on for longer than publishing may stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_that_is_told_is_no_stall() {
    let cluster = impatient_cluster();
    let options = WalOptions {
        stall_limit: Duration::from_millis(300),
        queue_bytes: 64 << 10,
        ..streaming()
    };
    let mut rig = Rig::with(&cluster, target(&cluster), options, SETUP).await;
    rig.add("public.grand").await;
    rig.caught_up().await;
    rig.run(&format!("{} {}", rows(1, 50_000), rows(50_001, 20_000))).await;
    let mut told = 0;
    while told < 70_000 {
        rig.witness.change().await;
        told += 1;
    }
    assert_eq!(rig.source.metrics().reconnects.get(), 0);
}

/// PostgreSQL does not say to which subtransaction a message belongs when it streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_in_a_savepoint_that_was_rolled_back_is_not_told() {
    let cluster = impatient_cluster();
    let mut rig = Rig::with(&cluster, target(&cluster), persistent("unsaid"), SETUP).await;
    rig.add("public.grand").await;
    rig.caught_up().await;
    rig.run(&format!(
        "BEGIN; {} {} SAVEPOINT s; {} {} ROLLBACK TO s; {} COMMIT",
        publish("before"),
        rows(1, 1_000),
        publish("within"),
        rows(2_001, 1_000),
        publish("after"),
    ))
    .await;
    rig.until("another stream", |source| {
        source.metrics().reconnects.get() == 1 && source.status().connected
    })
    .await;
    rig.add("public.grand").await;
    let word = |seen| match seen {
        Seen::Message(_, _, Payload::Text(text)) => Some(text.to_string()),
        Seen::Change(_) => None,
        other => panic!("{other:?}"),
    };
    let seen = rig.caught_up().await;
    assert_eq!(seen.len(), 1_002);
    let said: Vec<_> = seen.into_iter().filter_map(word).collect();
    assert_eq!(said, ["before", "after"]);
    assert_eq!(rig.source.metrics().spool_refusals.get(), 1);
}
