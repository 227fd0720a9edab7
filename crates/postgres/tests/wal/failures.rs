//! Each row of the table of failures: what is seen, and what a listener is told.

use std::collections::HashSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tidewire_postgres::{Target, WalErrorKind, WalOptions, WalSource};
use tidewire_protocol::change::Operation;
use tidewire_protocol::{Code, GapReason};

use super::basics::changes;
use super::{Rig, quick, table};
use crate::support::changes::{Seen, object};
use crate::support::{cluster, newer_cluster, own_cluster, sql, target, until};

pub(super) fn lost(name: &str) -> Seen {
    Seen::Gap(name.to_owned(), GapReason::ConnectionLost)
}

pub(super) fn cluster_with(settings: &[(&str, &str)]) -> PrivateCluster {
    let options =
        settings.iter().fold(Options::default(), |o, (name, value)| o.setting(*name, *value));
    PrivateCluster::temporary(options).expect("a private PostgreSQL")
}

/// The ids that were inserted, and the gaps between, in order.
pub(super) fn ids(seen: Vec<Seen>) -> Vec<String> {
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

/// When PostgreSQL heard from the readers of this database's log.
const SIGNS_OF_LIFE: &str = "\
    SELECT r.reply_time::text FROM pg_stat_replication r JOIN pg_replication_slots s \
        ON s.active_pid = r.pid WHERE s.database = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_stream_stays_without_a_reconnect() {
    let cluster = cluster();
    let options = WalOptions {
        silence: Duration::from_millis(50),
        answer_timeout: Duration::from_secs(5),
        ..quick()
    };
    let setup = "CREATE TABLE idle (id int PRIMARY KEY)";
    let mut rig = Rig::with(&cluster, target(&cluster), options, setup).await;
    rig.add("public.idle").await;
    // Each silence is ended by a question, and PostgreSQL notes when it heard from whom.
    let mut heard = HashSet::new();
    let heard = async || {
        let rows = rig.sql.query(SIGNS_OF_LIFE, &[]).await.unwrap();
        heard.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        heard.len() >= 5
    };
    until("five signs of life", heard).await;
    rig.run("INSERT INTO idle VALUES (1)").await;
    assert_eq!(ids(rig.caught_up().await), ["not_listening", "1"]);
    assert_eq!(rig.source.metrics().reconnects.get(), 0);
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
    let count = async || rig.sql.query_one(members, &[]).await.unwrap().get::<_, i64>(0);
    until("the table is taken out of the publication", async || count().await == 0).await;
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
