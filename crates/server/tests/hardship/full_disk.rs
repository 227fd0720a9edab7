//! A disk that takes no more of the history while row changes flow. It is a limit on the size of
//! files that the server may write, which fails a write just as a full disk does.

use std::process::Command;

use tidewire_postgres::private_cluster::Options;

use super::account::Listener;
use super::{Heard, Scene};
use crate::support::until;

const TABLE: &str = "CREATE TABLE filled (id bigint PRIMARY KEY, note text)";

const DISK: [(&str, &str); 4] = [
    ("TIDEWIRE_HISTORY_STORE", "disk"),
    ("TIDEWIRE_HISTORY_PATH", "FOLDER/history"),
    // A listener that is not read meanwhile goes on from there.
    ("TIDEWIRE_HISTORY_EVENTS", "100000"),
    ("TIDEWIRE_HISTORY_BYTES", "64MiB"),
];

/// Lines that may be logged about a disk that is full for less than ten seconds.
const LINES: usize = 4;

/// Limits what files of the server may grow to.
fn limit(scene: &Scene, bytes: &str) {
    let pid = scene.program.pid().to_string();
    let limit = format!("--fsize={bytes}:");
    let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(done.expect("prlimit, which is part of util-linux").success());
}

/// The disk is full from here on, or nearly: the beginning of a record fits.
fn fill(scene: &Scene) {
    let folder = scene.folder.path().join("history");
    let files = std::fs::read_dir(folder).expect("the history").flatten();
    let longest = files.map(|file| file.metadata().map_or(0, |it| it.len())).max();
    limit(scene, &(longest.expect("a file") + 10).to_string());
}

fn empty(scene: &Scene) {
    limit(scene, "unlimited");
}

/// Waits until so many writes have failed.
async fn fails(scene: &Scene, times: u64) {
    let failures = || scene.metric("tidewire_history_disk_failures_total");
    until("writes that fail", async || failures().await >= times).await;
}

fn insert(from: u64, to: u64) -> String {
    format!("INSERT INTO filled SELECT g, repeat('x', 200) FROM generate_series({from}, {to}) g")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_slot_that_stays_what_a_full_disk_does_not_take_is_told_later() {
    let keys: Vec<_> = DISK.into_iter().chain([("TIDEWIRE_WAL_SLOT", "filled")]).collect();
    let mut scene = Scene::with(Options::default(), TABLE, &keys).await;
    let mut listeners = [
        Listener::by_socket(scene.address, "public.filled").await,
        Listener::by_stream(scene.address, "public.filled").await,
    ];
    scene.sql(&insert(1, 10)).await;
    for listener in &mut listeners {
        listener.hears(10).await;
    }
    fill(&scene);
    // One that is told in pieces, and small ones.
    scene.sql(&insert(11, 12_000)).await;
    for id in 12_001..12_020 {
        scene.sql(&insert(id, id)).await;
    }
    fails(&scene, 3).await;
    let told = scene.is_held_up_by("the history does not take").await;
    assert!(!told.contains("password"), "{told}");
    assert!(scene.metric("tidewire_wal_failures_total").await > 0);
    empty(&scene);
    scene.reads().await;
    scene.sql(&insert(12_020, 12_020)).await;
    for listener in &mut listeners {
        assert!(listener.hears(12_020).await.is_empty(), "nothing is missing");
    }

    // And once more, to be killed meanwhile.
    fill(&scene);
    scene.sql(&insert(12_021, 20_000)).await;
    let failed = scene.metric("tidewire_history_disk_failures_total").await;
    fails(&scene, failed + 1).await;
    scene.start_again().await;
    let [socket, _] = listeners;
    let mut socket = Listener::resumed(scene.address, "public.filled", socket).await;
    scene.sql(&insert(20_001, 20_001)).await;
    assert!(socket.hears(20_001).await.is_empty(), "nothing is missing");
    assert_eq!(socket.rows, 20_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_slot_that_passes_what_a_full_disk_does_not_take_is_a_gap() {
    let mut scene = Scene::with(Options::default(), TABLE, &DISK).await;
    let mut listener = Listener::by_socket(scene.address, "public.filled").await;
    scene.sql(&insert(1, 10)).await;
    listener.hears(10).await;
    fill(&scene);
    for id in 11..60 {
        scene.sql(&insert(id, id)).await;
    }
    // A gap is owed then, and telling it is tried each second.
    fails(&scene, 4).await;
    let line = scene.program.logged("the history on disk failed").await;
    assert!(line.contains("see that there is room on its disk"), "{line}");
    let lines = scene.program.count_logged("WARN");
    assert!(lines <= LINES, "{lines} warnings while the disk was full");
    empty(&scene);
    assert_eq!(listener.next().await, Heard::gap("connection_lost"));
    scene.sql(&insert(60, 60)).await;
    listener.hears(60).await;
    assert_eq!(listener.gaps, ["connection_lost"]);
    assert_eq!(scene.metric("tidewire_wal_reconnects_total").await, 0);
}
