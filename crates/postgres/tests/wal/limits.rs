//! What happens at the limits: of the history, of PostgreSQL, of a row and of a transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewire::{Broker, Error, Event, Inlet, Node, Topic};
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tidewire_postgres::{SlotKind, WalErrorKind, WalOptions, WalSource};
use tidewire_protocol::{Body, GapReason, Payload};
use tokio::sync::{mpsc, watch};

use super::basics::changes;
use super::{Rig, quick, table};
use crate::support::changes::{Seen, Witness};
use crate::support::moody::{Mood, Moody};
use crate::support::{cluster, own_cluster, sql, target, until};

fn lost(name: &str) -> Seen {
    Seen::Gap(name.to_owned(), GapReason::ConnectionLost)
}

async fn moody_rig(
    cluster: &PrivateCluster,
    options: WalOptions,
    setup: &str,
) -> (Rig, watch::Sender<Mood>) {
    let (mood, history) = Moody::new();
    let sql = sql(cluster).await;
    sql.batch_execute(setup).await.unwrap();
    let (publisher, witness) = Witness::with(history);
    let source = WalSource::start(target(cluster), publisher, options);
    (Rig { source, witness, sql }, mood)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_history_does_not_take_is_a_gap_before_anything_newer() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE refused (id int PRIMARY KEY)";
    let (mut rig, mood) = moody_rig(&cluster, quick(), setup).await;
    rig.add("public.refused").await;
    rig.run("INSERT INTO refused VALUES (1)").await;
    assert_eq!(changes(rig.caught_up().await).len(), 1);
    mood.send_replace(Mood::Failing);
    rig.run("INSERT INTO refused VALUES (2)").await;
    rig.until("a failure", |source| source.metrics().failures.get() >= 1).await;
    mood.send_replace(Mood::Well);
    assert_eq!(rig.witness.next().await, lost("public.refused"));
    rig.run("INSERT INTO refused VALUES (3)").await;
    let change = rig.witness.change().await;
    assert_eq!(change.record.as_ref().unwrap().json(0), Some("3"));
    assert_eq!(rig.source.metrics().reconnects.get(), 0, "the stream itself is well");
}

/// Rows of a transaction that is told in several pieces.
const PIECES: u32 = 12_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_disk_does_not_take_is_read_again_although_a_mark_would_still_fit() {
    for streaming in [false, true] {
        what_a_full_disk_does_not_take_is_read_again(streaming).await;
    }
}

async fn what_a_full_disk_does_not_take_is_read_again(streaming: bool) {
    let settings = Options::default().setting("logical_decoding_work_mem", "64kB");
    let cluster = PrivateCluster::temporary(settings).expect("a private PostgreSQL");
    let slot = SlotKind::Persistent { name: "full".to_owned(), failover: false };
    // A mark alone is due at once, so it is kept unless what came before is in doubt.
    let options = WalOptions { slot, streaming, mark_interval: Duration::ZERO, ..quick() };
    let setup = "CREATE TABLE pieces (id int PRIMARY KEY, filler text)";
    let (mut rig, mood) = moody_rig(&cluster, options, setup).await;
    rig.add("public.pieces").await;
    rig.caught_up().await;
    mood.send_replace(Mood::Full);
    let rows = format!("SELECT n, repeat('x', 500) FROM generate_series(1, {PIECES}) n");
    rig.run(&format!("INSERT INTO pieces {rows}")).await;
    rig.until("two attempts", |source| source.metrics().failures.get() >= 2).await;
    mood.send_replace(Mood::Well);
    let told = rig.caught_up().await;
    assert!(told.iter().all(|seen| matches!(seen, Seen::Change(_))), "a gap is not needed");
    let told = changes(told);
    let ids: Vec<&str> = told.iter().filter_map(|change| change.record.as_ref()?.json(0)).collect();
    let written: Vec<String> = (1..=PIECES).map(|id| id.to_string()).collect();
    assert_eq!(ids.len(), written.len(), "streaming {streaming}");
    assert!(ids == written, "each once and in order");
    assert_eq!(rig.source.metrics().streamed.get() > 0, streaming);
    rig.source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_history_does_not_take_is_a_gap_on_its_topic() {
    let cluster = own_cluster();
    let (mut rig, mood) = moody_rig(&cluster, quick(), "").await;
    rig.until("a stream", |source| source.status().connected).await;
    let say = |topic: &str, text: &str| {
        let content = format!(r#"{{"topic":"{topic}","text":"{text}"}}"#);
        format!("SELECT pg_logical_emit_message(true, 'tidewire', '{content}')")
    };
    rig.run(&say("room", "one")).await;
    let mut seen = rig.caught_up().await;
    mood.send_replace(Mood::Failing);
    rig.run(&say("room", "two")).await;
    rig.run(&say("hall", "one")).await;
    assert_eq!(rig.caught_up().await, []);
    mood.send_replace(Mood::Well);
    rig.run(&say("room", "three")).await;
    rig.run(&say("hall", "two")).await;
    seen.extend(rig.caught_up().await);
    assert_eq!(told_on("room", &seen), [said("room", "one"), lost("room"), said("room", "three")]);
    assert_eq!(told_on("hall", &seen), [lost("hall"), said("hall", "two")]);
}

fn said(topic: &str, text: &str) -> Seen {
    Seen::Message(topic.to_owned(), None, Payload::Text(text.into()))
}

fn told_on(topic: &str, seen: &[Seen]) -> Vec<Seen> {
    let is_there = |seen: &&Seen| match seen {
        Seen::Gap(name, _) | Seen::Message(name, ..) => name == topic,
        Seen::Change(_) => false,
    };
    seen.iter().filter(is_there).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_stands_still_does_not_hold_up_the_database() {
    let cluster = own_cluster();
    let options =
        WalOptions { queue_bytes: 64 << 10, stall_limit: Duration::from_millis(300), ..quick() };
    let setup = "CREATE TABLE held (id int PRIMARY KEY, filler text)";
    let (mut rig, mood) = moody_rig(&cluster, options, setup).await;
    rig.add("public.held").await;
    rig.caught_up().await;
    mood.send_replace(Mood::Still);
    rig.run("INSERT INTO held SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n").await;
    // The server's process is let go of although nothing can be published.
    let readers = "SELECT count(*) FROM pg_stat_replication";
    let count = async || rig.sql.query_one(readers, &[]).await.unwrap().get::<_, i64>(0);
    until("the server's process is free", async || count().await == 0).await;
    mood.send_replace(Mood::Well);
    rig.until("a new stream", |source| source.metrics().reconnects.get() == 1).await;
    rig.add("public.held").await;
    rig.run("INSERT INTO held VALUES (30000, 'new')").await;
    let seen = rig.caught_up().await;
    let gaps = seen.iter().filter(|seen| **seen == lost("public.held")).count();
    assert_eq!(gaps, 1);
    let newest = changes(seen).pop().unwrap();
    assert_eq!(newest.record.as_ref().unwrap().json(0), Some("30000"));
}

/// Each transaction is sent, read and queued by itself, so there are many in the queue though they
/// are small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_transactions_wait_for_a_history_that_stands_still() {
    const COUNT: usize = 1_500;
    let cluster = own_cluster();
    let setup = "CREATE TABLE crumbs (id int PRIMARY KEY)";
    let (mut rig, mood) = moody_rig(&cluster, quick(), setup).await;
    rig.add("public.crumbs").await;
    rig.caught_up().await;
    mood.send_replace(Mood::Still);
    for id in 0..COUNT {
        rig.run(&format!("INSERT INTO crumbs VALUES ({id})")).await;
        sent(&rig).await;
    }
    mood.send_replace(Mood::Well);
    assert_eq!(changes(rig.caught_up().await).len(), COUNT);
    assert_eq!(rig.source.metrics().reconnects.get(), 0);
}

/// Waits until all of the log was sent, or nobody reads it any more.
async fn sent(rig: &Rig) {
    const SENT: &str = "SELECT coalesce(bool_and(sent_lsn >= pg_current_wal_flush_lsn()), true) \
                        FROM pg_stat_replication";
    let looked = async {
        while !rig.sql.query_one(SENT, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), looked).await;
    waited.expect("everything is sent within 30 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_without_a_free_walsender_says_so_and_is_tried_again() {
    let options = Options::default().setting("max_wal_senders", "1");
    let cluster = PrivateCluster::temporary(options).expect("a private PostgreSQL");
    let first = Rig::new(&cluster, "CREATE TABLE single (id int PRIMARY KEY)").await;
    first.until("a stream", |source| source.status().connected).await;
    let mut second = Rig::with(&cluster, target(&cluster), quick(), "").await;
    second.until("an error", |source| source.status().last_error.is_some()).await;
    let told = second.source.status().last_error.unwrap();
    assert!(told.contains("raise max_wal_senders"), "{told}");
    let refused = WalSource::probe(&target(&cluster), &quick()).await.unwrap_err();
    assert_eq!(refused.kind(), WalErrorKind::NoneFree);
    assert!(refused.is_unsupported(), "`source = auto` takes the outbox then");
    first.source.shutdown().await;
    second.until("a stream", |source| source.status().connected).await;
    second.add("public.single").await;
    second.run("INSERT INTO single VALUES (1)").await;
    assert_eq!(changes(second.caught_up().await).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_almost_64_mib_goes_through_and_one_of_64_mib_is_a_gap() {
    let cluster = cluster();
    let setup = "CREATE TABLE vast (id int PRIMARY KEY, body text)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.vast").await;
    rig.caught_up().await;
    let limit = quick().row_bytes;
    assert_eq!(limit, 64 << 20, "as documented");
    let insert =
        |id: u32, bytes: usize| format!("INSERT INTO vast VALUES ({id}, repeat('x', {bytes}))");
    rig.run(&insert(1, limit - 100)).await;
    let change = rig.witness.change().await;
    let body = change.record.as_ref().unwrap().json(1).unwrap();
    assert_eq!(body.len(), limit - 100 + 2);
    rig.run(&format!("{}; INSERT INTO vast VALUES (3, 'small')", insert(2, limit))).await;
    let gap = Seen::Gap("public.vast".to_owned(), GapReason::HistoryTrimmed);
    assert_eq!(rig.witness.next().await, gap);
    let change = rig.witness.change().await;
    assert_eq!(change.record.as_ref().unwrap().json(0), Some("3"));
    assert_eq!(rig.source.metrics().oversized.get(), 1);
    assert_eq!(rig.source.metrics().reconnects.get(), 0);
}

/// Counts changes and keeps none.
struct Counter(mpsc::Sender<(u32, bool)>);

#[async_trait]
impl Broker for Counter {
    fn attach(&self, _: Inlet) {}

    async fn announce(&self, events: &[Arc<Event>]) -> Result<(), Error> {
        for event in events {
            if let Body::Change(change) = &event.body {
                // The test that does not count any more has ended.
                let _ = self.0.send((change.index, change.last)).await;
            }
        }
        Ok(())
    }

    async fn follow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }
}

/// Most memory that this process ever had, in bytes.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

const MILLION: u32 = 1_000_000;

/// The queue holds 16 MiB, the history 1 MiB of a topic, a batch some more; a million rows as
/// events are 500 MB.
const ROOM: usize = 96 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_transaction_of_a_million_rows_is_bounded() {
    million(quick(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_streamed_transaction_of_a_million_rows_is_bounded() {
    million(WalOptions { streaming: true, spool_dir: std::env::temp_dir(), ..quick() }, 1).await;
}

async fn million(options: WalOptions, streamed: u64) {
    let server = Options::default().setting("logical_decoding_work_mem", "4MB");
    let cluster = PrivateCluster::temporary(server).expect("a private PostgreSQL");
    let sql = sql(&cluster).await;
    sql.batch_execute("CREATE TABLE million (id int PRIMARY KEY, n int)").await.unwrap();
    let (sender, mut changes) = mpsc::channel(1_000);
    let prepared = Node::builder().broker(Arc::new(Counter(sender))).prepare();
    let source = WalSource::start(target(&cluster), prepared.publisher().clone(), options);
    source.add(&table("public.million")).await.unwrap();
    let before = most_memory();
    let write = format!("INSERT INTO million SELECT n, n FROM generate_series(1, {MILLION}) n");
    sql.batch_execute(&write).await.unwrap();
    for expected in 0..MILLION {
        let told = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
        let told = told.unwrap_or_else(|_| panic!("{expected} changes, {:?}", source.status()));
        let told = told.expect("the source lives");
        assert_eq!(told, (expected, expected == MILLION - 1));
    }
    let grown = most_memory() - before;
    assert!(grown < ROOM, "{} MiB more than before", grown >> 20);
    assert_eq!(source.metrics().streamed.get(), streamed);
    source.shutdown().await;
}
