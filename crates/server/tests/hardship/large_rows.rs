//! Values of up to 64 MiB and beyond: what is too large is a gap at its place, what is not is told
//! whole, and the memory that takes is bounded.

use tidewire_postgres::private_cluster::Options;

use super::account::Listener;
use super::{Heard, Scene};

const MIB: u64 = 1 << 20;

/// The largest row that is told, in bytes of the log.
const LIMIT: u64 = 64 * MIB;

/// Times of a row's size that the memory of the server may grow by, for one shape of listeners; see
/// `docs/row-changes.md`.
const TIMES: u64 = 4;

const TABLES: &str = "CREATE TABLE vast (id bigint PRIMARY KEY, body text, raw bytea); \
                      CREATE TABLE beside (id bigint PRIMARY KEY); \
                      ALTER TABLE vast ALTER body SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_64_mib_is_a_gap_at_its_place_and_everything_else_goes_on() {
    // In the log a byte is two digits.
    let bytes = format!("NULL, decode(repeat('ab', {LIMIT}), 'hex')");
    too_large(&[format!("repeat('x', {LIMIT})"), bytes], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn such_a_value_in_a_transaction_that_is_read_while_it_runs_is_the_same_gap() {
    too_large(&[format!("repeat('x', {LIMIT})")], true).await;
}

/// Each value in a transaction with small rows around it, and small ones in others behind.
async fn too_large(values: &[String], streaming: bool) {
    let options = Options::default().setting("logical_decoding_work_mem", "1MB");
    let streaming_is = streaming.to_string();
    let keys = [("TIDEWIRE_WAL_STREAMING", &*streaming_is), ("TIDEWIRE_WAL_SPOOL_DIR", "FOLDER")];
    let mut scene = Scene::with(options, TABLES, &keys).await;
    let mut listeners = [
        Listener::by_socket(scene.address, "public.vast").await,
        Listener::by_stream(scene.address, "public.vast").await,
    ];
    let mut beside = Listener::by_socket(scene.address, "public.beside").await;
    scene.sql("INSERT INTO vast VALUES (1)").await;
    hear(&mut listeners, &[Heard::Row(1)]).await;
    let before = scene.peak_bytes();
    let mut id = 1;
    for (value, small) in values.iter().zip(1..) {
        let (first, large, last, next) = (id + 1, id + 2, id + 3, id + 4);
        let insert = format!(
            "BEGIN; INSERT INTO vast VALUES ({first}); INSERT INTO vast VALUES ({large}, {value}); \
             INSERT INTO vast VALUES ({last}); COMMIT; INSERT INTO vast VALUES ({next}); \
             INSERT INTO beside VALUES ({small})"
        );
        scene.sql(&insert).await;
        let gap = Heard::gap("history_trimmed");
        let told = [Heard::Row(first), gap, Heard::Row(last), Heard::Row(next)];
        hear(&mut listeners, &told).await;
        assert_eq!(beside.next().await, Heard::Row(small));
        id = next;
    }
    assert_eq!(scene.metric("tidewire_wal_oversized_total").await, values.len() as u64);
    assert_eq!(scene.metric("tidewire_wal_streamed_total").await > 0, streaming);
    assert_eq!(scene.metric("tidewire_wal_reconnects_total").await, 0);
    let grown = scene.peak_bytes() - before;
    println!("streaming {streaming}: too large a value took {} KiB", grown >> 10);
    assert!(grown < 16 * MIB, "what is too large is not kept, but took {grown} bytes");
    let line = scene.program.logged("a row or message is larger than row_bytes allows").await;
    assert!(line.contains("table:public.vast"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_almost_64_mib_is_told_whole_in_a_few_times_its_size() {
    for store in ["memory", "disk"] {
        let path = if store == "disk" { "FOLDER/history" } else { "" };
        let keys = [("TIDEWIRE_HISTORY_STORE", store), ("TIDEWIRE_HISTORY_PATH", path)];
        let mut scene = Scene::with(Options::default(), TABLES, &keys).await;
        // The one has no use for the value; the other is sent all of it.
        let mut listeners = [
            Listener::by_socket(scene.address, "public.vast").await,
            Listener::by_stream(scene.address, "public.vast").await,
        ];
        scene.sql("INSERT INTO vast VALUES (1)").await;
        hear(&mut listeners, &[Heard::Row(1)]).await;
        let before = scene.peak_bytes();
        let most = LIMIT - 200;
        let value = match store {
            "memory" => format!("(2, repeat('x', {most}))"),
            // Two digits in the log for each byte.
            _ => format!("(2, NULL, decode(repeat('ab', {}), 'hex'))", most / 2),
        };
        scene.sql(&format!("INSERT INTO vast VALUES {value}")).await;
        scene.sql("INSERT INTO vast VALUES (3)").await;
        hear(&mut listeners, &[Heard::Row(2), Heard::Row(3)]).await;
        let grown = scene.peak_bytes() - before;
        println!("history in {store}: {} MiB", grown / MIB);
        assert_eq!(scene.metric("tidewire_wal_oversized_total").await, 0);
        assert!(grown < TIMES * LIMIT + 16 * MIB, "the memory of the server grew by {grown} bytes");
    }
}

async fn hear(listeners: &mut [Listener], expected: &[Heard]) {
    for listener in listeners {
        for expected in expected {
            assert_eq!(listener.next().await, *expected);
        }
    }
}
