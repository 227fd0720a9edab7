//! What happens to a database, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{OutboxOptions, OutboxSource};
use tidewire_protocol::{GapReason, Payload};
use tokio::sync::watch;

use super::{Setup, new_row, start, table, until};
use crate::support::changes::{Seen, Witness};
use crate::support::moody::{Mood, Moody};
use crate::support::{cluster, database, own_cluster, sql, target};

#[tokio::test]
async fn a_restart_loses_nothing() {
    let mut cluster = own_cluster();
    let client = sql(&cluster).await;
    client.batch_execute("CREATE TABLE a (id int PRIMARY KEY)").await.unwrap();
    let (source, mut witness) = start(&target(&cluster));
    source.add(&table("public.a")).await.unwrap();
    witness.next().await;
    client.batch_execute("INSERT INTO a VALUES (1)").await.unwrap();
    cluster.stop();
    cluster.resume().unwrap();
    let client = sql(&cluster).await;
    client.batch_execute("INSERT INTO a VALUES (2)").await.unwrap();
    for id in ["1", "2"] {
        assert_eq!(new_row(&*witness.change().await)[0].1, id);
    }
    source.shutdown().await;
}

#[tokio::test]
async fn a_crash_that_empties_the_outbox_is_a_gap_of_every_table() {
    let mut cluster = own_cluster();
    let client = sql(&cluster).await;
    let tables =
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CHECKPOINT";
    client.batch_execute(tables).await.unwrap();
    let (source, mut witness) = start(&target(&cluster));
    for name in ["public.a", "public.b"] {
        source.add(&table(name)).await.unwrap();
        witness.next().await;
    }
    client.batch_execute("SELECT tidewire.publish('room', 'hi')").await.unwrap();
    assert!(matches!(witness.next().await, Seen::Message(..)));
    client
        .batch_execute("CHECKPOINT; SET synchronous_commit = on; SELECT txid_current()")
        .await
        .unwrap();
    end(&mut cluster, Signal::SIGQUIT);
    cluster.resume().unwrap();
    let client = sql(&cluster).await;
    // Whatever is committed before the reader is back is part of the gap.
    let mut owed = vec!["public.a", "public.b", "room"];
    while !owed.is_empty() {
        match witness.next().await {
            Seen::Gap(name, GapReason::EpochChanged) => owed.retain(|other| *other != name),
            other => panic!("{other:?}"),
        }
    }
    source.catch_up().await.unwrap();
    client.batch_execute("INSERT INTO a VALUES (2)").await.unwrap();
    assert_eq!(new_row(&*witness.change().await)[0].1, "2");
    source.shutdown().await;
}

/// Ends the server at once; with SIGQUIT as `kill -9` of a backend does.
pub(super) fn end(cluster: &mut PrivateCluster, signal: Signal) {
    let file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    let pid: i32 = file.lines().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
    while cluster.is_running() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_second_reader_stands_by_and_takes_over_with_a_gap() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_two", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    let (second, mut hears) = start(&setup.target);
    let says = |s: &tidewire_postgres::OutboxSource| s.status().last_error.unwrap_or_default();
    until(&second, "the second stands by", |s| says(s).contains("another Tidewire")).await;
    assert!(!second.status().connected);
    setup.run("INSERT INTO a VALUES (1)").await;
    setup.witness.change().await;
    setup.source.shutdown().await;
    second.add(&table("public.a")).await.unwrap();
    assert_eq!(hears.next().await, Seen::Gap("public.a".to_owned(), GapReason::NotListening));
    setup.run("INSERT INTO a VALUES (2)").await;
    assert_eq!(new_row(&*hears.change().await)[0].1, "2");
    second.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_others_replaced_meanwhile_tells_a_gap() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_replaced", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    // What a reader that took over leaves behind, then the first one's connection breaks.
    setup.run("UPDATE tidewire.outbox_epoch SET reader = gen_random_uuid()").await;
    setup
        .run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             AND datname = current_database()",
        )
        .await;
    let gap = Seen::Gap("public.a".to_owned(), GapReason::ConnectionLost);
    assert_eq!(setup.witness.next().await, gap);
    setup.run("INSERT INTO a VALUES (2)").await;
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "2");
}

#[tokio::test]
async fn triggers_that_are_dropped_are_a_gap_and_come_back_with_a_subscription() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_dropped", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    setup.run("SELECT disable_realtime('a')").await;
    let gap = || Seen::Gap("public.a".to_owned(), GapReason::NotListening);
    assert_eq!(setup.witness.next().await, gap());
    setup.source.add(&table("public.a")).await.unwrap();
    assert_eq!(setup.witness.next().await, gap());
    setup.run("INSERT INTO a VALUES (2)").await;
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "2");
    setup.run("DROP TABLE a").await;
    assert_eq!(setup.witness.next().await, gap());
    setup.run("CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.source.add(&table("public.a")).await.unwrap();
    assert_eq!(setup.witness.next().await, gap());
    setup.run("INSERT INTO a VALUES (3)").await;
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "3");
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_a_gap_at_its_place() {
    let _cluster = cluster();
    let mut setup =
        Setup::new("ob_unrecorded", "CREATE TABLE a (id int PRIMARY KEY, b json)").await;
    setup.add("public.a").await;
    setup.run("INSERT INTO a VALUES (1, '1'), (2, '\"\\u0000\"'), (3, '3')").await;
    assert_eq!(new_row(&*setup.witness.change().await)[1].1, "1");
    let gap = Seen::Gap("public.a".to_owned(), GapReason::ConnectionLost);
    assert_eq!(setup.witness.next().await, gap);
    assert_eq!(new_row(&*setup.witness.change().await)[1].1, "3");
    assert_eq!(setup.source.metrics().unrecorded.get(), 1);
}

#[tokio::test]
async fn changes_that_nobody_read_in_time_are_a_gap() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_late", "CREATE TABLE a (id int)").await;
    setup.add("public.a").await;
    setup.run("UPDATE tidewire.settings SET retention = '0 seconds'").await;
    // The reader is cut off while a writer that finds no reader removes what nobody read.
    setup
        .run(
            "DO $$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
             AND classid::int8 = (SELECT lock_key FROM tidewire.settings) AND objid = 2; \
             INSERT INTO a SELECT generate_series(1, 600); END $$",
        )
        .await;
    setup.run("SELECT nextval('tidewire.outbox_losses')").await;
    let seen = first_gap(&mut setup.witness).await;
    assert_eq!(seen, Seen::Gap("public.a".to_owned(), GapReason::ConnectionLost));
}

#[tokio::test]
async fn an_outbox_that_is_emptied_by_hand_is_a_gap() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_emptied", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    setup.run("BEGIN; INSERT INTO a VALUES (1); TRUNCATE tidewire.outbox; COMMIT").await;
    let gap = Seen::Gap("public.a".to_owned(), GapReason::EpochChanged);
    assert_eq!(setup.witness.next().await, gap);
    setup.run("INSERT INTO a VALUES (2)").await;
    assert_eq!(new_row(&*setup.witness.change().await)[0].1, "2");
}

/// The first gap among changes.
async fn first_gap(witness: &mut Witness) -> Seen {
    loop {
        match witness.next().await {
            Seen::Change(_) => {}
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_history_does_not_take_is_a_gap_on_its_topic() {
    let (on_room, on_hall) = talk_past("outbox_moody", Moody::fleeting()).await;
    assert_eq!(on_room, ["one", "gap", "three"]);
    assert_eq!(on_hall, ["gap", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_a_history_on_disk_does_not_take_is_read_again() {
    let (on_room, on_hall) = talk_past("outbox_lasting", Moody::new()).await;
    assert_eq!(on_room, ["one", "two", "three"]);
    assert_eq!(on_hall, ["one", "two"]);
}

/// Says things on two topics, some while the history fails; what is heard on each.
async fn talk_past(
    name: &str,
    (mood, history): (watch::Sender<Mood>, Arc<Moody>),
) -> (Vec<String>, Vec<String>) {
    let cluster = cluster();
    let (target, client) = database(&cluster, name).await;
    let (publisher, mut witness) = Witness::with(history);
    let source = OutboxSource::start(target, publisher, OutboxOptions::default());
    client.batch_execute("CREATE TABLE a (id int PRIMARY KEY)").await.unwrap();
    source.add(&table("public.a")).await.unwrap();
    let say = async |topic: &str, text: &str| {
        let sql = format!("SELECT tidewire.publish('{topic}', '{text}')");
        client.batch_execute(&sql).await.unwrap();
    };
    say("room", "one").await;
    source.catch_up().await.unwrap();
    mood.send_replace(Mood::Failing);
    say("room", "two").await;
    say("hall", "one").await;
    // Either it goes on without them, or it waits for the history.
    let polls = source.metrics().polls.get() + 2;
    let waits = |s: &OutboxSource| s.status().last_error.is_some_and(|why| why.contains("history"));
    until(&source, "they are met", |s| waits(s) || s.metrics().polls.get() > polls).await;
    mood.send_replace(Mood::Well);
    // A round that began before is silent to its end, and what it read is part of the gap.
    while source.catch_up().await.is_err() {}
    say("room", "three").await;
    say("hall", "two").await;
    while source.catch_up().await.is_err() {}
    let seen = witness.taken();
    let told_on = |topic: &str| -> Vec<String> {
        let words = seen.iter().filter_map(|seen| match seen {
            Seen::Gap(name, GapReason::ConnectionLost) if name == topic => Some("gap".to_owned()),
            Seen::Message(name, _, Payload::Text(text)) if name == topic => Some(text.to_string()),
            _ => None,
        });
        words.collect()
    };
    source.shutdown().await;
    (told_on("room"), told_on("hall"))
}
