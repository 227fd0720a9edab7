//! What `tidewire.publish` refuses, and who can speak in its name.

use tidewire_postgres::sql::{self, Sink};
use tidewire_postgres::{OutboxOptions, OutboxSource, Target, WalOptions, WalSource};
use tidewire_protocol::{Payload, Topic};

use super::install;
use crate::support::changes::{Seen, Witness};
use crate::support::{cluster, connect, database, database_url, until};

#[tokio::test]
async fn what_cannot_be_delivered_is_an_error_of_the_caller_in_both_sinks() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "pub_refused").await;
    install(&target).await;
    for sink in [Sink::Outbox, Sink::Wal] {
        sql::set_sink(&target, sink).await.unwrap();
        for bad in [
            "('   ', 'x')",
            "(E' \\t ', 'x')",
            "('t', '1e400'::jsonb)",
            "('t', '[{\"a\": -1e400}]'::jsonb)",
            "('t', (repeat('[', 101) || repeat(']', 101))::jsonb)",
            "('t', (repeat('{\"a\":', 101) || '1' || repeat('}', 101))::jsonb)",
            "('t', to_jsonb(repeat('x', 16777217)))",
            "('t', repeat('x', 16777217))",
            "('t', repeat(chr(1), 3000000))",
            "('t', 'x', E'a\\nb')",
            "('t', 'x', repeat('e', 256))",
        ] {
            let call = format!("SELECT tidewire.publish{bad}");
            assert!(client.batch_execute(&call).await.is_err(), "{bad} to {sink:?}");
        }
        for good in [
            "('t', (repeat('[', 100) || repeat(']', 100))::jsonb)",
            "('t', '1e308'::jsonb)",
            "('t', '-1.7976931348623157e308'::jsonb)",
            "('t', NULL::jsonb)",
            "('t', repeat('x', 1000000), 'e')",
        ] {
            let call = format!("SELECT tidewire.publish{good}");
            client.batch_execute(&call).await.unwrap_or_else(|error| panic!("{good}: {error:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_message_in_the_log_counts_when_publish_signed_it() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "pub_signed").await;
    install(&target).await;
    sql::set_sink(&target, Sink::Wal).await.unwrap();
    client
        .batch_execute("CREATE TABLE a (id int PRIMARY KEY); CREATE ROLE mallory LOGIN")
        .await
        .unwrap();
    let url = database_url(&cluster, "pub_signed").replacen("//postgres@", "//mallory@", 1);
    let mallory = connect(&url).await;
    let (publisher, mut witness) = Witness::new();
    let source = WalSource::start(target, publisher, WalOptions::default());
    source.add(&Topic::table("public.a").unwrap()).await.unwrap();
    let forged = r#"{"topic":"room","text":"forged"}"#;
    for content in [forged.to_owned(), format!("{}{forged}", "0".repeat(64))] {
        let sql = format!("SELECT pg_logical_emit_message(true, 'tidewire', '{content}')");
        mallory.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("SELECT tidewire.publish('room', 'ours')").await.unwrap();
    let ours = Seen::Message("room".to_owned(), None, Payload::Text("ours".into()));
    loop {
        match witness.next().await {
            Seen::Gap(..) => {}
            seen => {
                assert_eq!(seen, ours);
                break;
            }
        }
    }
    assert_eq!(source.metrics().forged.get(), 2);
    source.shutdown().await;
}

#[tokio::test]
async fn a_stranger_that_takes_the_locks_of_the_reader_holds_up_nobody() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "pub_locks").await;
    install(&target).await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY); SELECT enable_realtime('a'); CREATE ROLE mallory LOGIN",
        )
        .await
        .unwrap();
    let url = database_url(&cluster, "pub_locks").replacen("//postgres@", "//mallory@", 1);
    let mallory = connect(&url).await;
    let key = async || -> i32 {
        client.query_one("SELECT lock_key FROM tidewire.settings", &[]).await.unwrap().get(0)
    };
    let taken = key().await;
    let take = format!("SELECT pg_advisory_lock({taken}, 2), pg_advisory_lock({taken}, 1)");
    mallory.batch_execute(&take).await.unwrap();
    let reads = async |target: Target| {
        let (publisher, mut witness) = Witness::new();
        let source = OutboxSource::start(target, publisher, OutboxOptions::default());
        source.add(&Topic::table("public.a").unwrap()).await.unwrap();
        assert!(matches!(witness.next().await, Seen::Gap(..)));
        client.batch_execute("INSERT INTO a VALUES (1); DELETE FROM a").await.unwrap();
        witness.change().await;
        source
    };
    let source = reads(target).await;
    assert_ne!(key().await, taken);
    // A stranger that sees the new lock and keeps the reader from sleeping.
    let seen = key().await;
    let keep_awake = format!("SELECT pg_try_advisory_lock({seen}, 1)");
    until("the lock of a sleeping reader is free", async || {
        client.batch_execute("INSERT INTO a VALUES (1); DELETE FROM a").await.unwrap();
        let taken = mallory.query_one(&keep_awake, &[]).await.unwrap();
        taken.get(0)
    })
    .await;
    until("another lock", async || key().await != seen).await;
    source.shutdown().await;
    // And without a reader, one who holds its lock does not keep writers from removing.
    let now = key().await;
    mallory.batch_execute(&format!("SELECT pg_advisory_lock({now}, 2)")).await.unwrap();
    client.batch_execute("UPDATE tidewire.settings SET retention = '0 seconds'").await.unwrap();
    for from in (0..20).map(|round| round * 256) {
        let sql = format!("INSERT INTO a SELECT generate_series({from}, {from} + 255)");
        client.batch_execute(&sql).await.unwrap();
    }
    let left: i64 =
        client.query_one("SELECT count(*) FROM tidewire.outbox", &[]).await.unwrap().get(0);
    assert!(left <= 1024, "{left} rows are left");
}
