//! A PostgreSQL in which everything that we need is in use: clients are told that changes cannot be
//! read, operators are told what to raise, and reading begins by itself once something is free.

use nix::sys::signal::Signal;
use serde_json::json;
use tidewire_postgres::private_cluster::Options;

use super::account::Listener;
use super::{Heard, Scene};
use crate::support::{Psql, client, until};

const TABLE: &str = "CREATE TABLE scarce (id bigint PRIMARY KEY)";

/// A connection for replication that does nothing: it takes a walsender for as long as it lives.
async fn idle_walsender(scene: &Scene) -> Psql {
    let mut idle = Psql::open(&format!("{}?replication=database", scene.database.url()));
    until("a walsender", async || idle.sql("IDENTIFY_SYSTEM").await.contains('|')).await;
    idle
}

/// Ends the server's stream while it cannot begin another, and gives its place to somebody else.
async fn replace(
    scene: &mut Scene,
    by: impl AsyncFnOnce(&mut Scene) -> Option<Psql>,
) -> Option<Psql> {
    const WALSENDERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                              WHERE backend_type = 'walsender'";
    scene.program.signal(Signal::SIGSTOP);
    until("no walsender", async || scene.sql(WALSENDERS).await == "0").await;
    let other = by(scene).await;
    scene.program.signal(Signal::SIGCONT);
    other
}

/// It is tried again, and said once.
async fn is_tried_again(scene: &Scene) {
    let tries = || scene.metric("tidewire_wal_setbacks_total");
    let before = tries().await;
    until("another try", async || tries().await > before).await;
}

/// What has nothing to do with the log goes on; who asks for a table is told in words.
async fn serves_others(scene: &Scene) {
    let mut client = client(scene.address).await;
    let said = json!({ "type": "publish", "topic": "room", "data": 1 });
    assert_eq!(client.outcome(said).await, "published");
    let wish = json!({ "type": "subscribe", "table": "public.scarce" });
    assert_eq!(client.outcome(wish).await, "unavailable");
    assert_eq!(client.outcome(json!({ "type": "ping" })).await, "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_walsender_it_says_so_waits_and_with_a_slot_misses_nothing() {
    let options = Options::default().setting("max_wal_senders", "1");
    let cluster = super::own_cluster(options).await;
    let url = cluster.socket_url().expect("a short path");
    let mut idle = Psql::open(&format!("{url}?replication=database"));
    assert!(idle.sql("IDENTIFY_SYSTEM").await.contains('|'), "it has the only walsender");
    let keys = [("TIDEWIRE_WAL_SLOT", "scarce")];
    let mut scene = Scene::over(cluster, TABLE, &keys).await;
    let told = scene.is_held_up_by("max_wal_senders").await;
    assert!(told.contains("raise max_wal_senders"), "{told}");
    tokio::join!(is_tried_again(&scene), serves_others(&scene));
    assert_eq!(scene.program.count_logged("max_wal_senders"), 1, "once is enough");
    drop(idle);
    scene.reads().await;

    let mut listener = Listener::by_socket(scene.address, "public.scarce").await;
    scene.sql("INSERT INTO scarce VALUES (1)").await;
    listener.hears(1).await;
    let idle = replace(&mut scene, async |scene| Some(idle_walsender(scene).await)).await;
    scene.is_held_up_by("max_wal_senders").await;
    scene.sql("INSERT INTO scarce VALUES (2)").await;
    is_tried_again(&scene).await;
    drop(idle);
    scene.reads().await;
    scene.sql("INSERT INTO scarce VALUES (3)").await;
    assert!(listener.hears(3).await.is_empty(), "nothing is missing");
    assert_eq!(scene.metric("tidewire_wal_reconnects_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_slot_it_says_so_waits_and_names_the_gap() {
    const TAKE: &str = "SELECT pg_create_physical_replication_slot('taken')";
    const FREE: &str = "SELECT pg_drop_replication_slot('taken')";
    let options = Options::default().setting("max_replication_slots", "1");
    let mut scene = Scene::with(options, &format!("{TABLE}; {TAKE}"), &[]).await;
    // Without a slot that stays, nothing is read before somebody listens.
    let told = scene.is_held_up_by("max_replication_slots");
    let (told, ()) = tokio::join!(told, serves_others(&scene));
    assert!(told.contains("raise max_replication_slots, or drop a slot"), "{told}");
    is_tried_again(&scene).await;
    scene.sql(FREE).await;
    scene.reads().await;

    let mut listener = Listener::by_socket(scene.address, "public.scarce").await;
    scene.sql("INSERT INTO scarce VALUES (1)").await;
    listener.hears(1).await;
    replace(&mut scene, async |scene| {
        scene.sql(TAKE).await;
        None
    })
    .await;
    scene.is_held_up_by("max_replication_slots").await;
    scene.sql("INSERT INTO scarce VALUES (2)").await;
    is_tried_again(&scene).await;
    scene.sql(FREE).await;
    assert_eq!(listener.next().await, Heard::gap("connection_lost"));
    scene.sql("INSERT INTO scarce VALUES (3)").await;
    listener.hears(3).await;
    assert_eq!(listener.gaps, ["connection_lost"]);
    assert_eq!(listener.rows, 2);
}
