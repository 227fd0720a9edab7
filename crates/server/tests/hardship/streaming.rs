//! Large transactions that are read while they run, with a slot and a history that stay: the server
//! is killed while one of them is being kept, and while one is being told, and everybody hears each
//! row once, in the order of commits, and of no gap.

use tidewire_postgres::private_cluster::Options;

use super::Scene;
use super::account::Listener;
use crate::support::{Database, until};

/// Rows of a large transaction: several of the pieces in which one is told.
const LARGE: u64 = 12_000;

const TABLE: &str = "CREATE TABLE streamed (id bigint PRIMARY KEY, note text)";

fn insert(from: u64, count: u64) -> String {
    let to = from + count - 1;
    format!("INSERT INTO streamed SELECT g, repeat('x', 100) FROM generate_series({from}, {to}) g")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_transaction_that_is_read_while_it_runs_is_no_gap() {
    let options = Options::default().setting("logical_decoding_work_mem", "64kB");
    let keys = [
        ("TIDEWIRE_WAL_STREAMING", "true"),
        ("TIDEWIRE_WAL_SPOOL_DIR", "FOLDER"),
        ("TIDEWIRE_WAL_SLOT", "streamed"),
        ("TIDEWIRE_HISTORY_STORE", "disk"),
        ("TIDEWIRE_HISTORY_PATH", "FOLDER/history"),
        ("TIDEWIRE_HISTORY_EVENTS", "1000000"),
        ("TIDEWIRE_HISTORY_BYTES", "256MiB"),
    ];
    let mut scene = Scene::with(options, TABLE, &keys).await;
    let mut large = Database::of(scene.cluster.clone());
    let mut listener = Listener::by_socket(scene.address, "public.streamed").await;
    scene.sql(&insert(1, 1)).await;
    listener.hears(1).await;
    let mut next = 2;
    let mut streamed = 0;
    for told in [None, Some(1), Some(LARGE / 3), Some(LARGE - 1)] {
        // Small ones commit before the large one, though it began first; so their ids are lower.
        let first = next + 3;
        large.sql(&format!("BEGIN; {}", insert(first, LARGE / 2))).await;
        large
            .sql("SAVEPOINT s; INSERT INTO streamed SELECT -g FROM generate_series(1, 2000) g")
            .await;
        large.sql("ROLLBACK TO s").await;
        let spooled = || scene.metric("tidewire_wal_spool_bytes");
        until("a transaction that is kept", async || spooled().await > 0).await;
        if told.is_none() {
            scene.start_again().await;
            listener = Listener::resumed(scene.address, "public.streamed", listener).await;
        }
        for id in next..first {
            scene.sql(&insert(id, 1)).await;
        }
        large.sql(&insert(first + LARGE / 2, LARGE / 2)).await;
        next = first + LARGE;
        large.sql("COMMIT").await;
        if let Some(told) = told {
            listener.hears(first + told - 1).await;
            streamed += scene.metric("tidewire_wal_streamed_total").await;
            scene.start_again().await;
            // What was on its way is heard still.
            while listener.try_next().await.is_some() {}
            listener = Listener::resumed(scene.address, "public.streamed", listener).await;
        }
    }
    scene.sql(&insert(next, 1)).await;
    assert!(listener.hears(next).await.is_empty(), "no gap");
    assert_eq!(listener.rows, next, "each once");
    assert!(streamed > 0, "they were read while they ran");
}
