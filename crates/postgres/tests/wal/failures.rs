//! Each row of the table of failures: what is seen, and what a listener is told.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tidewire_postgres::{SlotKind, Target, WalErrorKind, WalOptions, WalSource};
use tidewire_protocol::change::Operation;
use tidewire_protocol::{Code, GapReason};

use super::basics::changes;
use super::{Rig, quick, table};
use crate::support::changes::{Seen, Witness, object};
use crate::support::{cluster, newer_cluster, own_cluster, sql, target};

fn lost(name: &str) -> Seen {
    Seen::Gap(name.to_owned(), GapReason::ConnectionLost)
}

fn cluster_with(settings: &[(&str, &str)]) -> PrivateCluster {
    let options =
        settings.iter().fold(Options::default(), |o, (name, value)| o.setting(*name, *value));
    PrivateCluster::temporary(options).expect("a private PostgreSQL")
}

fn persistent(name: &str) -> WalOptions {
    WalOptions { slot: SlotKind::Persistent { name: name.to_owned(), failover: false }, ..quick() }
}

/// The ids that were inserted, and the gaps between, in order.
fn ids(seen: Vec<Seen>) -> Vec<String> {
    let word = |seen| match seen {
        Seen::Change(change) => object(&change, change.record.as_ref().unwrap())["id"].clone(),
        Seen::Gap(_, reason) => reason.word().to_owned(),
        other => panic!("{other:?}"),
    };
    seen.into_iter().map(word).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_database_is_a_gap_and_goes_on() {
    let mut cluster = own_cluster();
    let mut rig = Rig::new(&cluster, "CREATE TABLE steady (id int PRIMARY KEY)").await;
    rig.add("public.steady").await;
    rig.run("INSERT INTO steady VALUES (1)").await;
    rig.caught_up().await;
    let started = tokio::time::Instant::now();
    cluster.stop();
    assert!(started.elapsed() < Duration::from_secs(8), "a reader must not hold up the shutdown");
    rig.until("the loss", |source| !source.status().connected).await;
    assert!(rig.source.catch_up().await.is_err());
    cluster.resume().unwrap();
    let sql = sql(&cluster).await;
    rig.add("public.steady").await;
    sql.batch_execute("INSERT INTO steady VALUES (2)").await.unwrap();
    assert_eq!(ids(rig.caught_up().await), ["connection_lost", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dropped_publication_is_noticed_made_again_and_told_as_a_gap() {
    drop_publications(&own_cluster()).await;
}

/// Where the stream goes silent without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publication_dropped_in_a_newer_postgresql_is_noticed_too() {
    if let Some(cluster) = newer_cluster() {
        drop_publications(&cluster).await;
    }
}

async fn drop_publications(cluster: &PrivateCluster) {
    let options = WalOptions { publication: Some("mine".to_owned()), ..quick() };
    let setup = "CREATE TABLE noticed (id int PRIMARY KEY)";
    let mut rig = Rig::with(cluster, target(cluster), options, setup).await;
    rig.add("public.noticed").await;
    rig.run("INSERT INTO noticed VALUES (1)").await;
    rig.caught_up().await;
    rig.run("DROP PUBLICATION mine").await;
    rig.until("a new stream", |source| source.metrics().reconnects.get() >= 1).await;
    assert_eq!(rig.witness.next().await, lost("public.noticed"));
    rig.add("public.noticed").await;
    rig.run("INSERT INTO noticed VALUES (2)").await;
    assert_eq!(ids(rig.caught_up().await), ["2"]);
    // With a change before anybody looks, up to 17 the stream itself fails.
    rig.run("DROP PUBLICATION mine; INSERT INTO noticed VALUES (3)").await;
    assert_eq!(rig.witness.next().await, lost("public.noticed"));
    rig.add("public.noticed").await;
    rig.run("INSERT INTO noticed VALUES (4)").await;
    assert_eq!(ids(rig.caught_up().await), ["4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_taken_out_of_the_publication_is_put_back_after_a_gap() {
    let cluster = own_cluster();
    let options = WalOptions { publication: Some("shared".to_owned()), ..quick() };
    let setup = "CREATE TABLE taken (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.taken").await;
    rig.caught_up().await;
    rig.run("ALTER PUBLICATION shared DROP TABLE taken; INSERT INTO taken VALUES (1)").await;
    assert_eq!(rig.witness.next().await, lost("public.taken"));
    rig.add("public.taken").await;
    rig.run("INSERT INTO taken VALUES (2)").await;
    let seen = ids(rig.caught_up().await);
    assert_eq!(seen.last().unwrap(), "2");
    assert!(!seen.contains(&"1".to_owned()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_dropped_and_made_again_is_followed_again() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE phoenix (id int PRIMARY KEY)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.phoenix").await;
    rig.caught_up().await;
    rig.run("DROP TABLE phoenix").await;
    assert_eq!(rig.witness.next().await, lost("public.phoenix"));
    rig.run("CREATE TABLE phoenix (id int PRIMARY KEY, more text)").await;
    rig.add("public.phoenix").await;
    rig.run("INSERT INTO phoenix VALUES (7, 'x')").await;
    let seen = rig.caught_up().await;
    assert_eq!(ids(seen).last().unwrap(), "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn alterations_of_a_table_are_followed_while_it_is_read() {
    let cluster = cluster();
    let setup = "CREATE TABLE fluid (id int PRIMARY KEY, a int)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.fluid").await;
    for statement in [
        "INSERT INTO fluid VALUES (1, 10)",
        "ALTER TABLE fluid RENAME a TO b",
        "INSERT INTO fluid VALUES (2, 20)",
        "ALTER TABLE fluid ADD c text DEFAULT 'new'",
        "UPDATE fluid SET b = 11 WHERE id = 1",
        "ALTER TABLE fluid ALTER b TYPE text USING 'n' || b",
        "INSERT INTO fluid VALUES (3, 'n3', NULL)",
        "ALTER TABLE fluid DROP c",
        "INSERT INTO fluid VALUES (4, 'n4')",
        "CREATE TYPE hue AS ENUM ('red'); ALTER TABLE fluid ADD d hue DEFAULT 'red'",
        "BEGIN; INSERT INTO fluid VALUES (5, 'n5'); ALTER TABLE fluid RENAME d TO e; \
         INSERT INTO fluid VALUES (6, 'n6'); COMMIT",
    ] {
        rig.run(statement).await;
    }
    let changes = changes(rig.caught_up().await);
    let told: Vec<_> = changes
        .iter()
        .filter(|change| change.operation != Operation::Delete)
        .map(|change| {
            let row = object(change, change.record.as_ref().unwrap());
            format!("{row:?}").replace("\\\"", "'").replace('"', "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "{a: 10, id: 1}",
            "{b: 20, id: 2}",
            "{b: 11, c: 'new', id: 1}",
            "{b: 'n3', c: null, id: 3}",
            "{b: 'n4', id: 4}",
            "{b: 'n5', d: 'red', id: 5}",
            "{b: 'n6', e: 'red', id: 6}",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_many_rows_is_told_in_pieces_with_one_end() {
    let cluster = cluster();
    let setup = "CREATE TABLE heap (id int PRIMARY KEY, filler text); \
                 CREATE TABLE beside (id int PRIMARY KEY)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.heap").await;
    rig.add("public.beside").await;
    rig.caught_up().await;
    let rows = 100_000;
    rig.run(&format!(
        "BEGIN; INSERT INTO beside VALUES (1); \
         INSERT INTO heap SELECT n, repeat('x', 100) FROM generate_series(1, {rows}) n; COMMIT"
    ))
    .await;
    let mut heap = 0;
    loop {
        let change = rig.witness.change().await;
        if &*change.relation.table == "beside" {
            assert!(change.last);
            continue;
        }
        heap += 1;
        assert_eq!(change.index, heap);
        assert_eq!(change.last, heap == rows, "row {heap}");
        if change.last {
            break;
        }
    }
    assert!(changes(rig.caught_up().await).len() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_row_goes_through_and_one_that_is_too_large_is_a_gap() {
    let cluster = cluster();
    let options = WalOptions { row_bytes: 20 << 20, ..quick() };
    let setup = "CREATE TABLE weighty (id int PRIMARY KEY, body text)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.weighty").await;
    rig.caught_up().await;
    rig.run("INSERT INTO weighty VALUES (1, repeat('x', 16 << 20))").await;
    let change = rig.witness.change().await;
    assert_eq!(change.record.as_ref().unwrap().json(1).unwrap().len(), (16 << 20) + 2);
    rig.run("INSERT INTO weighty VALUES (2, repeat('x', 21 << 20)), (3, 'small')").await;
    let gap = Seen::Gap("public.weighty".to_owned(), GapReason::HistoryTrimmed);
    assert_eq!(rig.witness.next().await, gap);
    let change = rig.witness.change().await;
    assert_eq!((change.index, change.last), (1, true));
    assert_eq!(rig.source.metrics().oversized.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_logs_too_little_is_found_out_with_the_fix() {
    let cluster = cluster_with(&[("wal_level", "replica")]);
    let refused = WalSource::probe(&target(&cluster), &quick()).await.unwrap_err();
    assert_eq!(refused.kind(), WalErrorKind::WalLevel);
    assert!(refused.is_unsupported());
    assert!(refused.to_string().contains("ALTER SYSTEM SET wal_level = logical"), "{refused}");
    let rig = Rig::new(&cluster, "").await;
    rig.until("an error", |source| source.status().last_error.is_some()).await;
    assert!(rig.source.status().last_error.unwrap().contains("wal_level"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_role_without_rights_is_told_which_it_lacks() {
    let cluster = own_cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute(
        "CREATE ROLE plain LOGIN; CREATE ROLE copier LOGIN REPLICATION;
         CREATE TABLE theirs (id int PRIMARY KEY)",
    )
    .await
    .unwrap();
    let socket = cluster.socket_dir().unwrap();
    let target_of = |user: &str| -> Target {
        let (host, port) = (socket.display(), cluster.port());
        format!("host={host} port={port} dbname=postgres user={user}").parse().unwrap()
    };
    let plain = WalSource::probe(&target_of("plain"), &quick()).await.unwrap_err();
    assert_eq!(plain.kind(), WalErrorKind::Privilege);
    assert!(plain.to_string().contains("ALTER ROLE … REPLICATION"), "{plain}");
    let copier = WalSource::probe(&target_of("copier"), &quick()).await.unwrap_err();
    assert_eq!(copier.kind(), WalErrorKind::Privilege);
    assert!(copier.to_string().contains("GRANT CREATE ON DATABASE postgres"), "{copier}");
    sql.batch_execute("GRANT CREATE ON DATABASE postgres TO copier").await.unwrap();
    WalSource::probe(&target_of("copier"), &quick()).await.unwrap();
    // It may publish its own tables, and is told who may publish others.
    let options = WalOptions { publication: Some("granted".to_owned()), ..quick() };
    let mut rig = Rig::with(&cluster, target_of("copier"), options, "").await;
    let refused = rig.source.add(&table("public.theirs")).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    let fix = "ALTER PUBLICATION granted ADD TABLE public.theirs";
    assert!(refused.message.contains(fix), "{}", refused.message);
    // A superuser puts it in; then it flows, without any right to read the table.
    rig.run(fix).await;
    rig.add("public.theirs").await;
    rig.run("INSERT INTO theirs VALUES (1)").await;
    assert_eq!(ids(rig.caught_up().await), ["not_listening", "1"]);
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

fn walsender(log: &tokio_postgres::Row) -> Pid {
    Pid::from_raw(log.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_process_that_stands_still_is_given_up_and_told_as_a_gap() {
    let cluster = own_cluster();
    let options = WalOptions {
        silence: Duration::from_millis(300),
        answer_timeout: Duration::from_millis(500),
        ..quick()
    };
    let setup = "CREATE TABLE frozen (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.frozen").await;
    rig.caught_up().await;
    let pid = "SELECT pid FROM pg_stat_replication";
    let stopped = walsender(&rig.sql.query_one(pid, &[]).await.unwrap());
    kill(stopped, Signal::SIGSTOP).unwrap();
    rig.until("a new stream", |source| source.metrics().reconnects.get() == 1).await;
    assert_eq!(rig.witness.next().await, lost("public.frozen"));
    rig.add("public.frozen").await;
    rig.run("INSERT INTO frozen VALUES (1)").await;
    assert_eq!(ids(rig.caught_up().await), ["1"]);
    kill(stopped, Signal::SIGCONT).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_stream_stays_without_a_reconnect() {
    let cluster = cluster();
    let options = WalOptions {
        silence: Duration::from_millis(50),
        answer_timeout: Duration::from_secs(5),
        ..quick()
    };
    let mut rig =
        Rig::with(&cluster, target(&cluster), options, "CREATE TABLE idle (id int PRIMARY KEY)")
            .await;
    rig.add("public.idle").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.run("INSERT INTO idle VALUES (1)").await;
    assert_eq!(ids(rig.caught_up().await), ["not_listening", "1"]);
    assert_eq!(rig.source.metrics().reconnects.get(), 0);
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
async fn a_table_that_nobody_listens_to_leaves_the_publication_after_a_while() {
    let cluster = own_cluster();
    let options = WalOptions { linger: Duration::from_millis(300), ..quick() };
    let setup = "CREATE TABLE passing (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.passing").await;
    rig.source.remove(&table("public.passing"));
    rig.add("public.passing").await;
    rig.run("INSERT INTO passing VALUES (1)").await;
    rig.source.remove(&table("public.passing"));
    assert_eq!(rig.source.status().tables, 0);
    let members = "SELECT count(*) FROM pg_publication_rel";
    for _ in 0..2_000 {
        if rig.sql.query_one(members, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.run("INSERT INTO passing VALUES (2)").await;
    rig.add("public.passing").await;
    rig.run("INSERT INTO passing VALUES (3)").await;
    let told = ids(rig.caught_up().await);
    assert_eq!(told, ["not_listening", "1", "not_listening", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tables_are_added_at_once() {
    let cluster = own_cluster();
    let names: Vec<String> = (0..100).map(|n| format!("public.crowd_{n}")).collect();
    let setup: String =
        names.iter().map(|n| format!("CREATE TABLE {n} (id int PRIMARY KEY);")).collect();
    let mut rig = Rig::new(&cluster, &setup).await;
    let topics: Vec<_> = names.iter().map(|name| table(name)).collect();
    let added = futures_util::future::join_all(topics.iter().map(|t| rig.source.add(t))).await;
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    let insert: String = names.iter().map(|n| format!("INSERT INTO {n} VALUES (1);")).collect();
    rig.run(&insert).await;
    assert_eq!(changes(rig.caught_up().await).len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_log_in_is_known() {
    let cluster = own_cluster();
    let sql = sql(&cluster).await;
    let hba = "local all all trust\nhost all scram 127.0.0.1/32 scram-sha-256\n\
               host all hashed 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\n";
    cluster.write_file("pg_hba.conf", hba).unwrap();
    sql.batch_execute(
        "CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'se''cret';
         SET password_encryption = 'md5'; CREATE ROLE hashed SUPERUSER LOGIN PASSWORD 'se''cret';
         CREATE ROLE clear SUPERUSER LOGIN PASSWORD 'se''cret'",
    )
    .await
    .unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let target_of = |user: &str, password: &str| -> Target {
        // A host that is down comes first.
        let ports = format!("port=1,{}", cluster.port());
        format!("host=127.0.0.1,127.0.0.1 {ports} dbname=postgres user={user} password={password}")
            .parse()
            .unwrap()
    };
    for user in ["scram", "hashed", "clear"] {
        let mut outcome = Ok(());
        // A reload is carried out some moments after it was asked for.
        for _ in 0..500 {
            outcome = WalSource::probe(&target_of(user, "se\\'cret"), &quick()).await;
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        outcome.unwrap_or_else(|error| panic!("{user}: {error}"));
        let wrong = WalSource::probe(&target_of(user, "wrong"), &quick()).await.unwrap_err();
        assert!(wrong.to_string().contains("check user and password"), "{wrong}");
        assert!(!wrong.is_unsupported());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_as_the_connection_string_says() {
    let cluster = own_cluster();
    let sql = sql(&cluster).await;
    let (ca, port) = certify(&cluster);
    sql.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let words = |extra: &str| {
        format!(
            "host=localhost port={port} dbname=postgres user=postgres password={} {extra}",
            cluster.password()
        )
    };
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    let probe = |extra: String| {
        let target: Target = words(&extra).parse().unwrap();
        async move { WalSource::probe(&target, &quick()).await }
    };
    let bound = format!("{verified} channel_binding=require");
    for _ in 0..500 {
        if probe(verified.clone()).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    probe(bound).await.unwrap();
    let wrong_name = format!("{verified} hostaddr=127.0.0.1 host=other.example");
    let refused =
        WalSource::probe(&wrong_name_target(&cluster, &wrong_name), &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("TLS handshake"), "{refused}");
    let plain = probe("sslmode=disable channel_binding=require".to_owned()).await.unwrap_err();
    assert!(plain.to_string().contains("channel_binding=require"), "{plain}");
    for mode in ["disable", "allow", "prefer", "require"] {
        probe(format!("sslmode={mode}")).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
    // A whole stream over TLS.
    let (publisher, mut witness) = Witness::new();
    let source = WalSource::start(words(&verified).parse().unwrap(), publisher, quick());
    sql.batch_execute("CREATE TABLE sealed (id int PRIMARY KEY)").await.unwrap();
    source.add(&table("public.sealed")).await.unwrap();
    sql.batch_execute("INSERT INTO sealed SELECT generate_series(1, 20000)").await.unwrap();
    source.catch_up().await.unwrap();
    assert_eq!(changes(witness.taken()).len(), 20_000);
}

fn wrong_name_target(cluster: &PrivateCluster, words: &str) -> Target {
    let (port, password) = (cluster.port(), cluster.password());
    format!("port={port} dbname=postgres user=postgres password={password} {words}")
        .parse()
        .unwrap()
}

/// Gives the cluster a certificate for localhost; gives its authority's and the port.
fn certify(cluster: &PrivateCluster) -> (std::path::PathBuf, u16) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = params.signed_by(&key, &ca).unwrap();
    for (name, contents) in
        [("server.crt", server.pem()), ("server.key", key.serialize_pem()), ("ca.pem", ca.pem())]
    {
        cluster.write_file(name, contents).unwrap();
    }
    (Path::new(&cluster.data_dir()).join("ca.pem"), cluster.port())
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

/// PostgreSQL 18 refuses to update a published table whose identity has generated columns.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_write_fails_because_a_newer_postgresql_publishes_no_generated_columns() {
    let Some(cluster) = newer_cluster() else { return };
    let setup = "\
        CREATE TABLE whole (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); \
        ALTER TABLE whole REPLICA IDENTITY FULL; \
        CREATE TABLE keyless (id int, twice int GENERATED ALWAYS AS (id * 2) STORED); \
        ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO whole VALUES (1)";
    let rig = Rig::new(&cluster, setup).await;
    let refused = rig.source.add(&table("public.whole")).await.unwrap_err();
    let fix = "ALTER TABLE public.whole REPLICA IDENTITY DEFAULT";
    assert!(refused.message.ends_with(fix), "{}", refused.message);
    rig.run("UPDATE whole SET id = 2").await;
    let refused = rig.source.add(&table("public.keyless")).await.unwrap_err();
    assert!(refused.message.ends_with("or use the source outbox"), "{}", refused.message);
    rig.run(fix).await;
    rig.add("public.whole").await;
    rig.run("UPDATE whole SET id = 3; DELETE FROM whole").await;
}

/// What an application alters while it is listened to must not break its writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_that_loses_its_identity_is_let_go_of_with_a_gap_and_written_again() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE altered (id int PRIMARY KEY); INSERT INTO altered VALUES (1)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.altered").await;
    rig.caught_up().await;
    rig.run("ALTER TABLE altered REPLICA IDENTITY NOTHING").await;
    assert_eq!(rig.witness.next().await, lost("public.altered"));
    rig.run("UPDATE altered SET id = 2").await;
    let refused = rig.source.add(&table("public.altered")).await.unwrap_err();
    assert!(refused.message.contains("has no replica identity"), "{}", refused.message);
    rig.run("ALTER TABLE altered REPLICA IDENTITY DEFAULT").await;
    rig.add("public.altered").await;
    rig.run("UPDATE altered SET id = 3").await;
    assert_eq!(ids(rig.caught_up().await).last().unwrap(), "3");
}
