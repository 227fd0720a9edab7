//! Heard on NOTIFY channels.

use tidewire::Upstream;
use tidewire_postgres::NotifyOptions;

use super::database_in;
use crate::support::{Ear, Heard, cluster, topic};

#[tokio::test]
async fn a_payload_that_cannot_be_converted_is_a_gap_of_its_channel_and_others_go_on() {
    let cluster = cluster();
    let (target, client) = database_in(&cluster, "WIN1252", "nt_win1252").await;
    let ear = Ear::open(target, NotifyOptions::default());
    // The last one does not exist in this database, so nothing can be missed on it.
    for channel in ["café", "calm", "日本"] {
        ear.source.attach(&topic(channel)).await.unwrap();
    }
    for (channel, payload) in [
        ("'café'", "'naïve €'"),
        ("'café'", "'a' || chr(129)"),
        ("chr(141)", "'nobody'"),
        ("'calm'", "'x'"),
        ("'café'", "'y'"),
    ] {
        client.batch_execute(&format!("SELECT pg_notify({channel}, {payload})")).await.unwrap();
    }
    for expected in [
        Heard::said("café", "naïve €"),
        Heard::lost("café"),
        Heard::said("calm", "x"),
        Heard::said("café", "y"),
    ] {
        assert_eq!(ear.next().await, expected);
    }
    assert!(ear.source.status().is_connected());
    let metrics = ear.source.metrics();
    assert_eq!((metrics.reconnects.get(), metrics.unreadable.get()), (0, 1));
}

#[tokio::test]
async fn channels_and_payloads_of_several_bytes_are_heard() {
    let cluster = cluster();
    let (target, client) = database_in(&cluster, "EUC_JP", "nt_euc_jp").await;
    let ear = Ear::open(target, NotifyOptions::default());
    ear.source.attach(&topic("日本")).await.unwrap();
    client.batch_execute("NOTIFY 日本, '日本語ｱ'").await.unwrap();
    assert_eq!(ear.next().await, Heard::said("日本", "日本語ｱ"));
}

#[tokio::test]
async fn in_a_database_without_an_encoding_what_is_not_utf8_is_a_gap() {
    let cluster = cluster();
    let (target, client) = database_in(&cluster, "SQL_ASCII", "nt_sql_ascii").await;
    let ear = Ear::open(target, NotifyOptions::default());
    ear.source.attach(&topic("bytes")).await.unwrap();
    for payload in ["'é'", "E'\\xe9'", "'x'"] {
        client.batch_execute(&format!("NOTIFY bytes, {payload}")).await.unwrap();
    }
    for expected in [Heard::said("bytes", "é"), Heard::lost("bytes"), Heard::said("bytes", "x")] {
        assert_eq!(ear.next().await, expected);
    }
}
