//! One transaction of very many rows: the server's memory stays small, whoever listens to the table
//! hears all of it in order or a gap is named, and others are served as far as PostgreSQL's own
//! process allows.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tidewire_postgres::private_cluster::Options;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::account::Listener;
use super::{Heard, Scene};
use crate::support::{Database, client};

/// Rows where `TIDEWIRE_TEST_ROWS` gives no other number. It is enough to be told in some fifty
/// pieces; the million that the promise is about takes minutes without optimization.
const ROWS: u64 = 200_000;

/// Most that the memory of the server may grow by meanwhile, however many the rows are. The queue
/// of the stream has 16 MiB, histories and mailboxes one each, pieces of a transaction some, and
/// the rest is the allocator's.
const MOST: u64 = 48 << 20;

/// Between small things that are said meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

const TABLES: &str = "CREATE TABLE huge (id bigint PRIMARY KEY, note text); \
                      CREATE TABLE beside (id bigint PRIMARY KEY)";

fn rows() -> u64 {
    let given = std::env::var("TIDEWIRE_TEST_ROWS").ok();
    given.map_or(ROWS, |rows| rows.parse().expect("TIDEWIRE_TEST_ROWS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_very_many_rows_takes_little_memory_and_is_told_in_order() {
    endure(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_read_while_it_runs_is_kept_on_disk_and_told_at_its_commit() {
    endure(true).await;
}

async fn endure(streaming: bool) {
    let rows = rows();
    let options = Options::default().setting("logical_decoding_work_mem", "1MB");
    let streaming_is = streaming.to_string();
    let variables = [
        ("TIDEWIRE_WAL_STREAMING", &*streaming_is),
        ("TIDEWIRE_WAL_SPOOL_DIR", "FOLDER"),
        // Who reads nothing until the end is not sent away before.
        ("TIDEWIRE_LIMITS_WRITE_TIMEOUT", "1h"),
    ];
    let mut scene = Scene::with(options, TABLES, &variables).await;
    let listeners = [
        Listener::by_socket(scene.address, "public.huge").await,
        Listener::by_stream(scene.address, "public.huge").await,
    ];
    let mut lazy = Listener::by_socket(scene.address, "public.huge").await;
    let mut beside = Listener::by_socket(scene.address, "public.beside").await;
    scene.sql("INSERT INTO beside VALUES (1)").await;
    beside.hears(1).await;
    let before = scene.peak_bytes();

    // While it runs others are told at once.
    let mut large = Database::of(scene.cluster.clone());
    let insert =
        format!("INSERT INTO huge SELECT g, 'row ' || g FROM generate_series(1, {rows}) g");
    large.sql(&format!("BEGIN; {insert}")).await;
    scene.sql("INSERT INTO beside VALUES (2)").await;
    assert_eq!(beside.next().await, Heard::Row(2));
    assert_eq!(scene.metric("tidewire_wal_spool_bytes").await > 0, streaming);
    // What commits after it waits behind it.
    large.sql("COMMIT").await;
    scene.sql("INSERT INTO beside VALUES (3)").await;
    // Rows of transactions of their own come behind, until all have heard one: who was told of a
    // gap goes on behind it, wherever that is.
    let ends = Ends::start(&scene, rows);
    let listeners = listeners.map(|listener| tokio::spawn(listen(listener, rows + 1)));
    // Whoever wants nothing of it is served all the while.
    let served = tokio::spawn(serve_others(scene.address, listeners));
    let listeners = served.await.expect("all are served");
    assert_eq!(beside.next().await, Heard::Row(3));
    for listener in &listeners {
        let (told, gaps) = (listener.rows, &listener.gaps);
        println!("{rows} rows, streaming {streaming}: {told} told, {gaps:?}");
        assert!(gaps.iter().all(|reason| reason == "history_trimmed"));
        assert_eq!(told < listener.last(), !gaps.is_empty(), "a gap stands for what was not told");
    }
    lazy.hears_at_least(rows + 1).await;
    assert!(!lazy.gaps.is_empty(), "sockets do not hold so much");
    ends.stop().await;
    let grown = scene.peak_bytes().saturating_sub(before);
    println!("the memory of the server grew by {} KiB at most", grown >> 10);
    assert!(grown < MOST, "the memory of the server grew by {grown} bytes");
    assert!(scene.metric("tidewire_wal_changes_total").await > rows + 3);
    assert_eq!(scene.metric("tidewire_wal_streamed_total").await, u64::from(streaming));
    assert_eq!(scene.metric("tidewire_wal_spooled_bytes_total").await > 0, streaming);
    assert_eq!(scene.metric("tidewire_wal_spool_bytes").await, 0);
    assert_eq!(scene.metric("tidewire_wal_reconnects_total").await, 0);
    assert!(scene.metric("tidewire_gaps_total").await > 0);
}

async fn listen(mut listener: Listener, last: u64) -> Listener {
    listener.hears_at_least(last).await;
    listener
}

/// Inserts rows with rising numbers, one at a time.
struct Ends {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ends {
    fn start(scene: &Scene, rows: u64) -> Self {
        let mut database = Database::of(scene.cluster.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            for id in rows + 1.. {
                if stopped.is_cancelled() {
                    return;
                }
                database.sql(&format!("INSERT INTO huge VALUES ({id})")).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("all is written");
    }
}

/// Asks again and again until the others are done.
async fn serve_others(address: SocketAddr, others: [JoinHandle<Listener>; 2]) -> Vec<Listener> {
    let mut client = client(address).await;
    while others.iter().any(|other| !other.is_finished()) {
        let said = json!({ "type": "publish", "topic": "room", "data": 1 });
        assert_eq!(client.outcome(said).await, "published");
        tokio::time::sleep(PAUSE).await;
    }
    let mut done = Vec::new();
    for other in others {
        done.push(other.await.expect("it hears everything, or a gap"));
    }
    done
}
