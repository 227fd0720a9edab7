//! What becomes of slots: waited for, shared, lost, and let go of.

use std::time::Duration;

use tidewire_postgres::{SlotKind, WalErrorKind, WalOptions, WalSource};

use super::failures::{cluster_with, ids, lost};
use super::{Rig, quick};
use crate::support::{newer_cluster, own_cluster, sql, target};

fn persistent(name: &str) -> WalOptions {
    WalOptions { slot: SlotKind::Persistent { name: name.to_owned(), failover: false }, ..quick() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_without_a_free_slot_says_so() {
    let cluster = cluster_with(&[("max_replication_slots", "1")]);
    let taken = "SELECT pg_create_physical_replication_slot('taken')";
    let rig = Rig::new(&cluster, taken).await;
    rig.until("an error", |source| source.status().last_error.is_some()).await;
    let told = rig.source.status().last_error.unwrap();
    assert!(told.contains("max_replication_slots"), "{told}");
    let refused = WalSource::probe(&target(&cluster), &quick()).await.unwrap_err();
    assert_eq!(refused.kind(), WalErrorKind::NoneFree);
    rig.run("SELECT pg_drop_replication_slot('taken')").await;
    rig.until("a stream", |source| source.status().connected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slot_that_waits_for_a_transaction_names_its_process() {
    let cluster = own_cluster();
    let writer = sql(&cluster).await;
    writer.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let options = WalOptions { slot_timeout: Duration::from_millis(400), ..quick() };
    let rig = Rig::with(&cluster, target(&cluster), options, "").await;
    rig.until("an error", |source| source.status().last_error.is_some()).await;
    let told = rig.source.status().last_error.unwrap();
    assert!(told.contains(&format!("of process {pid}")), "{told}");
    writer.batch_execute("COMMIT").await.unwrap();
    rig.until("a stream", |source| source.status().connected).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%' \
                   AND wait_event = 'transactionid'";
    assert_eq!(rig.sql.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persistent_slot_tells_what_happened_while_nobody_ran() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE asleep (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), persistent("kept"), setup).await;
    rig.add("public.asleep").await;
    rig.run("INSERT INTO asleep VALUES (1)").await;
    assert_eq!(ids(rig.caught_up().await), ["not_listening", "1"]);
    rig.source.shutdown().await;
    rig.run("INSERT INTO asleep VALUES (2), (3)").await;
    let mut next = Rig::with(&cluster, target(&cluster), persistent("kept"), "").await;
    next.add("public.asleep").await;
    next.run("INSERT INTO asleep VALUES (4)").await;
    assert_eq!(ids(next.caught_up().await), ["2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_reader_of_a_slot_stands_by_and_takes_over() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE relay (id int PRIMARY KEY)";
    let mut first = Rig::with(&cluster, target(&cluster), persistent("baton"), setup).await;
    first.add("public.relay").await;
    let mut second = Rig::with(&cluster, target(&cluster), persistent("baton"), "").await;
    second
        .until("standing by", |source| {
            source.status().last_error.is_some_and(|told| told.contains("is active for PID"))
        })
        .await;
    first.run("INSERT INTO relay VALUES (1)").await;
    assert_eq!(ids(first.caught_up().await), ["not_listening", "1"]);
    first.source.shutdown().await;
    first.run("INSERT INTO relay VALUES (2)").await;
    second.until("the slot", |source| source.status().connected).await;
    second.add("public.relay").await;
    assert_eq!(ids(second.caught_up().await), ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slot_that_was_dropped_is_made_again_with_a_gap() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE slotless (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), persistent("fragile"), setup).await;
    rig.add("public.slotless").await;
    rig.caught_up().await;
    let admin = sql(&cluster).await;
    let drop_it = "DO $$ BEGIN
        PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'fragile';
        FOR n IN 1..1000 LOOP
            BEGIN PERFORM pg_drop_replication_slot('fragile'); RETURN;
            EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.002); END;
        END LOOP; END $$";
    admin.batch_execute(drop_it).await.unwrap();
    rig.run("INSERT INTO slotless VALUES (1)").await;
    assert_eq!(rig.witness.next().await, lost("public.slotless"));
    rig.add("public.slotless").await;
    rig.run("INSERT INTO slotless VALUES (2)").await;
    let told = ids(rig.caught_up().await);
    assert_eq!(told.last().unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slot_that_the_server_gave_up_is_made_again() {
    let cluster = cluster_with(&[
        ("max_slot_wal_keep_size", "1MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ]);
    let setup = "CREATE TABLE overrun (id int PRIMARY KEY); CREATE TABLE noise (t text)";
    let mut rig = Rig::with(&cluster, target(&cluster), persistent("slow"), setup).await;
    rig.add("public.overrun").await;
    rig.caught_up().await;
    rig.source.shutdown().await;
    for _ in 0..6 {
        rig.run("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 10000)").await;
        rig.run("SELECT pg_switch_wal(); CHECKPOINT").await;
    }
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'slow'";
    assert!(rig.sql.query_one(lost, &[]).await.unwrap().get::<_, bool>(0));
    let mut next = Rig::with(&cluster, target(&cluster), persistent("slow"), "").await;
    next.add("public.overrun").await;
    next.run("INSERT INTO overrun VALUES (1)").await;
    assert_eq!(ids(next.caught_up().await), ["not_listening", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slot_that_keeps_too_much_log_is_let_go_of() {
    let cluster = own_cluster();
    let options = WalOptions { max_lag_bytes: Some(256 << 10), ..persistent("greedy") };
    let setup = "CREATE TABLE laggard (id int PRIMARY KEY); CREATE TABLE noise (t text)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.laggard").await;
    rig.caught_up().await;
    // A transaction that stays open keeps the server from letting go of its log.
    let holder = sql(&cluster).await;
    holder.batch_execute("BEGIN; INSERT INTO noise VALUES ('held')").await.unwrap();
    rig.run("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)").await;
    rig.until("a slot in trouble", |source| {
        source.status().last_error.is_some_and(|told| told.contains("more than the 262144 allowed"))
    })
    .await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rig.witness.next().await, lost("public.laggard"));
    rig.add("public.laggard").await;
    assert!(rig.source.slot().name == "greedy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slot_for_failover_is_made_where_postgresql_knows_them() {
    let Some(cluster) = newer_cluster() else { return };
    let slot = SlotKind::Persistent { name: "moves".to_owned(), failover: true };
    let rig = Rig::with(&cluster, target(&cluster), WalOptions { slot, ..quick() }, "").await;
    rig.until("a stream", |source| source.status().connected).await;
    let failover = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'moves'";
    assert!(rig.sql.query_one(failover, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_log_that_waits_for_a_standby_that_is_gone_is_not_ready_and_says_for_which() {
    let Some(cluster) = newer_cluster() else { return };
    let slot = SlotKind::Persistent { name: "kept".to_owned(), failover: true };
    let options = WalOptions { slot, ..quick() };
    let setup = "CREATE TABLE waiting (id int PRIMARY KEY);
                 SELECT pg_create_physical_replication_slot('standby_of_before')";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.waiting").await;
    rig.run("ALTER SYSTEM SET synchronized_standby_slots = 'standby_of_before'").await;
    rig.run("SELECT pg_reload_conf(); INSERT INTO waiting VALUES (1)").await;
    rig.until("it stands still", |source| !source.status().connected).await;
    let told = rig.source.status().last_error.unwrap();
    assert!(told.contains("(standby_of_before)"), "{told}");
    rig.run("ALTER SYSTEM RESET synchronized_standby_slots").await;
    rig.run("SELECT pg_reload_conf()").await;
    rig.until("it goes on", |source| source.status().connected).await;
    assert_eq!(ids(rig.caught_up().await), ["not_listening", "1"]);
}
