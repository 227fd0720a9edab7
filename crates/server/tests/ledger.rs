//! The promise of row changes under a thousand changes a second, while the server, PostgreSQL and
//! the connection between them are killed at random moments: every committed change is told exactly
//! once and in the order of commits, or a gap is named at its place.
//!
//! Clients of all transports keep [accounts](account::Account) and resume with their positions. A
//! run is given by its seed, which is printed.

mod account;
mod clients;
mod mishaps;
mod writers;

use std::time::Duration;

use clients::Clients;
use mishaps::{Mishap, Scene};
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use writers::Writers;

use crate::support::{Dice, newer_cluster, own_cluster, seed};

/// How long the last changes may take to reach everybody.
const SETTLING: Duration = Duration::from_secs(20);

/// What is committed survives `kill -9`; who lock each other out find out soon.
fn lasting() -> Options {
    Options::default().setting("synchronous_commit", "on").setting("deadlock_timeout", "20ms")
}

/// What became of one run.
struct Outcome {
    /// The reasons that each client was told.
    gaps: Vec<Vec<String>>,
}

/// Writers write, clients listen, and these things go wrong in an order of the seed's.
async fn endure(
    cluster: PrivateCluster,
    keys: &[(&'static str, &str)],
    mishaps: &[Mishap],
) -> Outcome {
    let seed = seed();
    let mut dice = Dice::of(seed, 0);
    let mut scene = Scene::new(cluster, keys).await;
    let writers = Writers::start(&scene.url(), seed).await;
    let mut clients = Clients::start(&scene.address(), seed);
    let mut left = mishaps.to_vec();
    while !left.is_empty() {
        clients.hear(200).await;
        writers.commit(dice.roll(100)).await;
        let place = usize::try_from(dice.roll(left.len() as u64)).expect("few");
        scene.suffer(left.swap_remove(place)).await;
    }
    clients.hear(200).await;
    let truth = writers.finish().await;
    clients.have(&truth).await;
    let gaps = clients.gaps();
    println!("{} changes, {} resumed, gaps: {gaps:?}", clients.changes(), clients.resumed());
    assert!(clients.resumed() > 0, "nobody resumed");
    Outcome { gaps }
}

impl Outcome {
    /// Nobody was told of other reasons, nor more gaps than things went wrong; but who hangs up
    /// before the rows are complete is told again.
    fn has_at_most(&self, count: usize, reasons: &[&str]) {
        let (patient, _) = self.gaps.split_at(self.gaps.len() / 2);
        assert!(patient.iter().all(|gaps| gaps.len() <= count), "{patient:?}");
        let mut all = self.gaps.iter().flatten();
        assert!(all.all(|reason| reasons.contains(&&**reason)), "{:?}", self.gaps);
    }
}

const EVERYTHING: [Mishap; 6] = [
    Mishap::Server,
    Mishap::Postgres,
    Mishap::Connection,
    Mishap::Server,
    Mishap::Postgres,
    Mishap::Connection,
];

const CONNECTIONS: [Mishap; 6] = [
    Mishap::Postgres,
    Mishap::Connection,
    Mishap::Connection,
    Mishap::Postgres,
    Mishap::Connection,
    Mishap::Connection,
];

const LOG: (&str, &str) = ("TIDEWIRE_SOURCE", "wal");
const SLOT: (&str, &str) = ("TIDEWIRE_WAL_SLOT", "ledger");
const OUTBOX: (&str, &str) = ("TIDEWIRE_SOURCE", "outbox");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_temporary_slot_whatever_is_killed_is_a_gap_or_nothing() {
    let outcome = endure(own_cluster(lasting()).await, &[LOG], &EVERYTHING).await;
    outcome.has_at_most(6, &["connection_lost", "epoch_changed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_persistent_slot_a_killed_connection_or_postgresql_is_no_gap() {
    let outcome = endure(own_cluster(lasting()).await, &[LOG, SLOT], &CONNECTIONS).await;
    outcome.has_at_most(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_persistent_slot_of_a_newer_postgresql_only_a_killed_server_is_a_gap() {
    let Some(cluster) = newer_cluster(lasting()).await else { return };
    let outcome = endure(cluster, &[LOG, SLOT], &EVERYTHING).await;
    outcome.has_at_most(2, &["epoch_changed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_outbox_a_killed_connection_is_no_gap_and_a_killed_postgresql_or_server_is_one() {
    let outcome = endure(own_cluster(lasting()).await, &[OUTBOX], &EVERYTHING).await;
    outcome.has_at_most(4, &["epoch_changed"]);
}

/// A history that outlives the server, in this folder.
fn on_disk(folder: &str) -> [(&'static str, &str); 3] {
    [OUTBOX, ("TIDEWIRE_HISTORY_STORE", "disk"), ("TIDEWIRE_HISTORY_PATH", folder)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_outbox_and_a_history_on_disk_a_killed_server_is_no_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history").display().to_string();
    let servers = [Mishap::Server, Mishap::Connection, Mishap::Server, Mishap::Server];
    let outcome = endure(own_cluster(lasting()).await, &on_disk(&path), &servers).await;
    outcome.has_at_most(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_outbox_and_a_history_on_disk_a_killed_postgresql_is_a_gap_told_at_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history").display().to_string();
    let mishaps = [Mishap::Server, Mishap::Both, Mishap::Postgres, Mishap::Connection];
    let outcome = endure(own_cluster(lasting()).await, &on_disk(&path), &mishaps).await;
    outcome.has_at_most(2, &["epoch_changed"]);
    assert!(outcome.gaps.iter().all(|gaps| !gaps.is_empty()), "{:?}", outcome.gaps);
}
