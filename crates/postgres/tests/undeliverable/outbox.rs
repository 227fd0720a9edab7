//! Read from the outbox.

use std::time::Duration;

use tidewire_postgres::{OutboxOptions, OutboxSource};
use tidewire_protocol::GapReason;

use super::{database_in, word};
use crate::support::changes::Witness;
use crate::support::cluster;
use crate::wal::table;

#[tokio::test]
async fn a_row_that_cannot_be_converted_is_a_gap_of_its_table_and_others_go_on() {
    let cluster = cluster();
    let (target, client) = database_in(&cluster, "WIN1252", "ob_win1252").await;
    let setup = "CREATE TABLE cafés (id int PRIMARY KEY, größe text); \
                 CREATE TABLE calm (id int PRIMARY KEY)";
    client.batch_execute(setup).await.unwrap();
    let (publisher, mut witness) = Witness::new();
    let source = OutboxSource::start(target, publisher, OutboxOptions::default());
    for name in ["public.cafés", "public.calm"] {
        source.add(&table(name)).await.unwrap();
    }
    witness.taken();
    for statement in [
        "INSERT INTO calm SELECT n FROM generate_series(1, 200) n",
        "INSERT INTO cafés VALUES (1, 'naïve €')",
        "INSERT INTO cafés VALUES (2, chr(129))",
        "INSERT INTO calm VALUES (0)",
        "SELECT tidewire.publish('café', 'x')",
        // By hand: the function refuses it.
        "INSERT INTO tidewire.outbox (op, topic, payload) VALUES ('M', 'café', chr(129))",
        "INSERT INTO cafés VALUES (3, 'x'); UPDATE cafés SET größe = 'a' || chr(141) WHERE id = 3; \
         INSERT INTO cafés VALUES (4, 'y')",
        "DELETE FROM cafés WHERE id = 4",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    source.catch_up().await.unwrap();
    let mut words: Vec<String> = witness.taken().iter().map(word).collect();
    let first: Vec<String> = words.drain(..200).collect();
    assert!(first.iter().all(|word| word.starts_with("calm id=")), "{first:?}");
    assert_eq!(
        words,
        [
            "cafés größe=\"naïve €\" id=1",
            "gap of public.cafés",
            "calm id=0",
            "café: x",
            "gap of café",
            "cafés größe=\"x\" id=3",
            "gap of public.cafés",
            "cafés größe=\"y\" id=4",
            "cafés größe=\"y\" id=4",
        ]
    );
    let metrics = source.metrics();
    assert_eq!((metrics.reconnects.get(), metrics.interruptions.get()), (0, 0));
    assert_eq!((metrics.unrecorded.get(), metrics.bad_messages.get()), (2, 1));
    assert!(source.status().connected);
    source.shutdown().await;
}

#[tokio::test]
async fn a_row_whose_json_postgresql_cannot_print_is_a_gap_of_its_table() {
    let cluster = cluster();
    let (target, client) = crate::support::database(&cluster, "ob_gigabyte").await;
    let setup = "CREATE TABLE huge (id int PRIMARY KEY, v text); \
                 CREATE TABLE calm (id int PRIMARY KEY)";
    client.batch_execute(setup).await.unwrap();
    let (publisher, mut witness) = Witness::new();
    let source = OutboxSource::start(target, publisher, OutboxOptions::default());
    for name in ["public.huge", "public.calm"] {
        source.add(&table(name)).await.unwrap();
    }
    witness.taken();
    // As JSON each of these characters is six, which is more than a gigabyte together; and one that
    // PostgreSQL prints, but which is larger than allowed.
    for statement in [
        "INSERT INTO calm VALUES (1)",
        "INSERT INTO huge VALUES (1, repeat(chr(1), 185000000))",
        "INSERT INTO calm VALUES (2)",
        "INSERT INTO huge VALUES (2, repeat('x', 65 << 20))",
        "INSERT INTO huge VALUES (3, 'small')",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let mut words = Vec::new();
    while words.len() < 5 {
        // It prints a gigabyte each time that it fails.
        words.push(word(&witness.next_within(Duration::from_secs(180)).await));
    }
    let gap = format!("{} of public.huge", GapReason::HistoryTrimmed.word());
    assert_eq!(words, ["calm id=1", &*gap, "calm id=2", &*gap, "huge id=3 v=\"small\""]);
    assert_eq!(source.metrics().interruptions.get(), 0);
    assert!(source.status().connected);
    source.shutdown().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_or_makes_no_sense_is_a_gap_of_its_topic() {
    let cluster = cluster();
    let (target, client) = crate::support::database(&cluster, "ob_messages").await;
    tidewire_postgres::sql::install(&target, &Default::default()).await.unwrap();
    let (publisher, mut witness) = Witness::new();
    let source = OutboxSource::start(target, publisher, OutboxOptions::default());
    source.catch_up().await.unwrap();
    // By hand: the functions refuse what they can.
    for (op, topic, payload) in [
        ("M", "room", "repeat('x', 70 << 20)"),
        ("J", "deep", "repeat('[', 200) || repeat(']', 200)"),
        ("J", "far", "'1e400'"),
        ("M", "", "'x'"),
        ("M", "room", "'after'"),
    ] {
        let insert = format!(
            "INSERT INTO tidewire.outbox (op, topic, payload) VALUES ('{op}', '{topic}', {payload})"
        );
        client.batch_execute(&insert).await.unwrap();
    }
    source.catch_up().await.unwrap();
    let words: Vec<String> = witness.taken().iter().map(word).collect();
    let expected = ["history_trimmed of room", "gap of deep", "gap of far", "room: after"];
    assert_eq!(words, expected);
    assert_eq!(source.metrics().bad_messages.get(), 4);
    source.shutdown().await;
}
