//! NOTIFY as a source.

use std::time::Duration;

use tidewire::Upstream;
use tidewire_postgres::{NotifyOptions, Target};
use tidewire_protocol::{Code, GapReason, Payload};

use crate::support::{Ear, Heard, Mood, Proxy, cluster, own_cluster, sql, target, topic};

fn text(payload: impl AsRef<str>) -> Payload {
    Payload::Text(payload.as_ref().into())
}

#[tokio::test]
async fn what_is_notified_right_after_attach_always_arrives() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    let sql = sql(&cluster).await;
    for n in 0..200 {
        let channel = format!("right_after_{n}");
        ear.source.attach(&topic(&channel)).await.unwrap();
        sql.batch_execute(&format!("NOTIFY {channel}, 'hello'")).await.unwrap();
        assert_eq!(ear.next().await, Heard::said(&channel, "hello"));
    }
}

#[tokio::test]
async fn names_with_capitals_quotes_and_emoji_are_kept_as_they_are() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    let sql = sql(&cluster).await;
    for channel in ["Orders", "orders", "or\"ders", "it's", "🦀 crab; DROP TABLE x", "a\\b", "*"]
    {
        ear.source.attach(&topic(channel)).await.unwrap();
        sql.execute("SELECT pg_notify($1, $1)", &[&channel]).await.unwrap();
        assert_eq!(ear.next().await, Heard::said(channel, channel));
        ear.source.emit(&topic(channel), &text("back")).await.unwrap();
        assert_eq!(ear.next().await, Heard::said(channel, "back"));
    }
}

#[tokio::test]
async fn a_burst_arrives_complete_and_in_order() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.source.attach(&topic("burst")).await.unwrap();
    let sql = sql(&cluster).await;
    let notify = "SELECT pg_notify('burst', n::text) FROM generate_series(1, 10000) n";
    sql.batch_execute(notify).await.unwrap();
    for n in 1..=10_000 {
        assert_eq!(ear.next().await, Heard::said("burst", &n.to_string()));
    }
    assert!(ear.source.metrics().received.get() >= 10_000);
}

#[tokio::test]
async fn many_channels_are_attached_at_once() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    let topics: Vec<_> = (0..2_000).map(|n| topic(&format!("many_{n}"))).collect();
    let attached =
        futures_util::future::join_all(topics.iter().map(|topic| ear.source.attach(topic))).await;
    assert!(attached.iter().all(Result::is_ok));
    assert_eq!(ear.source.status().channels, 2_000);
    ear.source.emit(&topic("many_1999"), &text("x")).await.unwrap();
    assert_eq!(ear.next().await, Heard::said("many_1999", "x"));
}

#[tokio::test]
async fn more_channels_than_allowed_are_refused() {
    let cluster = cluster();
    let options = NotifyOptions { channel_limit: 1, ..NotifyOptions::default() };
    let ear = Ear::open(target(&cluster), options);
    ear.source.attach(&topic("limit_a")).await.unwrap();
    let refused = ear.source.attach(&topic("limit_b")).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    ear.source.detach(&topic("limit_a"));
    ear.source.attach(&topic("limit_b")).await.unwrap();
}

#[tokio::test]
async fn a_detached_channel_is_no_longer_listened_to_and_owes_a_gap_when_it_is_again() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    let sql = sql(&cluster).await;
    ear.source.attach(&topic("departed")).await.unwrap();
    ear.source.detach(&topic("departed"));
    ear.until("UNLISTEN", |source| source.metrics().unlistens.get() == 1).await;
    sql.batch_execute("NOTIFY departed, 'missed'").await.unwrap();
    ear.source.attach(&topic("departed")).await.unwrap();
    sql.batch_execute("NOTIFY departed, 'heard'").await.unwrap();
    let first_gap = ear.next_of_all().await;
    assert_eq!(first_gap, Heard::Gap("departed".to_owned(), GapReason::NotListening));
    assert_eq!(ear.next_of_all().await, first_gap);
    assert_eq!(ear.next_of_all().await, Heard::said("departed", "heard"));
}

#[tokio::test]
async fn channels_of_the_configuration_are_listened_to_from_the_start_and_for_ever() {
    let cluster = cluster();
    let options = NotifyOptions { always: vec![topic("always")], ..NotifyOptions::default() };
    let ear = Ear::open(target(&cluster), options);
    ear.until("LISTEN", |source| source.metrics().listens.get() == 1).await;
    ear.source.attach(&topic("always")).await.unwrap();
    ear.source.detach(&topic("always"));
    ear.source.attach(&topic("other")).await.unwrap();
    ear.source.emit(&topic("always"), &text("still")).await.unwrap();
    assert_eq!(ear.next().await, Heard::said("always", "still"));
    assert_eq!(ear.source.metrics().unlistens.get(), 0);
}

#[tokio::test]
async fn an_attach_that_is_given_up_leaves_nothing_behind() {
    let options =
        NotifyOptions { attach_timeout: Duration::from_millis(50), ..NotifyOptions::default() };
    let nowhere: Target = "postgresql://u@127.0.0.1:1/d".parse().unwrap();
    let ear = Ear::open(nowhere, options);
    let refused = ear.source.attach(&topic("waits")).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert_eq!(refused.topic, Some(topic("waits")));
    assert_eq!(ear.source.status().channels, 0);
    let dropped = topic("dropped");
    tokio::select! {
        biased;
        _ = ear.source.attach(&dropped) => unreachable!("nothing is listened to"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(ear.source.status().channels, 0);
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_waited_for() {
    let mut cluster = own_cluster();
    let target = target(&cluster);
    cluster.stop();
    let ear = Ear::open(target, NotifyOptions::default());
    ear.until("a failure", |source| source.status().last_error.is_some()).await;
    assert!(!ear.source.status().is_connected());
    let waiting = topic("patient");
    let (attached, cluster) = tokio::join!(
        ear.source.attach(&waiting),
        tokio::task::spawn_blocking(move || {
            cluster.resume().unwrap();
            cluster
        })
    );
    attached.unwrap();
    assert!(ear.source.status().is_connected());
    drop(cluster);
}

/// Every event of the channel in order, or a gap where some are missing.
#[tokio::test]
async fn a_killed_connection_under_traffic_is_told_as_a_gap_before_what_comes_later() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.source.attach(&topic("traffic")).await.unwrap();
    let (writer, killer) = (sql(&cluster).await, sql(&cluster).await);
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn(async move {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            number += 1;
            writer.batch_execute(&format!("NOTIFY traffic, '{number}'")).await.unwrap();
        }
        writer.batch_execute("NOTIFY traffic, 'end'").await.unwrap();
        number
    });
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE application_name = 'tidewire' AND query LIKE '%LISTEN \"traffic\"%'";
    for round in 1..=5 {
        assert_eq!(killer.query(kill, &[]).await.unwrap().len(), 1, "round {round}");
        ear.until("a reconnect", |source| source.metrics().reconnects.get() == round).await;
        // Idempotent, and returns only when it is listened to again.
        ear.source.attach(&topic("traffic")).await.unwrap();
    }
    stop.send(()).unwrap();
    let sent = writing.await.unwrap();
    let (mut last, mut gaps, mut may_miss) = (0, 0, false);
    loop {
        match ear.next().await {
            Heard::Said(_, payload) if payload == "end" => break,
            Heard::Said(_, payload) => {
                let number = payload.parse::<u32>().unwrap();
                assert!(number > last, "{number} after {last}");
                assert!(number == last + 1 || may_miss, "{number} follows {last} without a gap");
                (last, may_miss) = (number, false);
            }
            Heard::Gap(..) => (gaps, may_miss) = (gaps + 1, true),
        }
    }
    assert_eq!(gaps, 5);
    assert!(last == sent || may_miss, "{last} of {sent} was the last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_database_is_survived() {
    let mut cluster = own_cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.source.attach(&topic("survivor")).await.unwrap();
    ear.source.emit(&topic("survivor"), &text("before")).await.unwrap();
    assert_eq!(ear.next().await, Heard::said("survivor", "before"));
    cluster.stop();
    ear.until("the loss", |source| !source.status().is_connected()).await;
    let refused = ear.source.emit(&topic("survivor"), &text("lost")).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    cluster.resume().unwrap();
    assert_eq!(ear.next().await, Heard::lost("survivor"));
    ear.source.emit(&topic("survivor"), &text("after")).await.unwrap();
    assert_eq!(ear.next().await, Heard::said("survivor", "after"));
}

#[tokio::test]
async fn the_longest_payload_goes_through_and_a_longer_one_is_refused() {
    let cluster = cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.source.attach(&topic("long")).await.unwrap();
    let longest = "x".repeat(7_999);
    ear.source.emit(&topic("long"), &text(&longest)).await.unwrap();
    assert_eq!(ear.next().await, Heard::said("long", &longest));
    let refused = ear.source.emit(&topic("long"), &text("x".repeat(8_000))).await.unwrap_err();
    assert_eq!(refused.code, Code::TooLarge);
    assert!(refused.message.contains("7999"), "{}", refused.message);
}

#[tokio::test]
async fn a_pooler_that_swallows_notifications_is_found_out() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.port(), Mood::Swallowing).await;
    let ear = Ear::open(through(&proxy, cluster.password()), NotifyOptions::default());
    ear.until("the self-test's verdict", |source| source.status().last_error.is_some()).await;
    let told = ear.source.status().last_error.unwrap();
    assert!(told.contains("pooler in transaction mode"), "{told}");
    assert!(told.contains("direct connection"), "{told}");
    assert!(!told.contains(cluster.password()), "{told}");
    assert!(!ear.source.status().is_connected());
    proxy.turn(Mood::Honest);
    ear.source.attach(&topic("honest")).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_noticed() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.port(), Mood::Honest).await;
    let options = NotifyOptions {
        ping_interval: Duration::from_millis(100),
        answer_timeout: Duration::from_millis(400),
        ..NotifyOptions::default()
    };
    let ear = Ear::open(through(&proxy, cluster.password()), options);
    ear.source.attach(&topic("half_open")).await.unwrap();
    proxy.turn(Mood::Dead);
    ear.until("the loss", |source| !source.status().is_connected()).await;
    let told = ear.source.status().last_error.unwrap();
    assert!(told.contains("no answer on the listening connection"), "{told}");
    proxy.turn(Mood::Honest);
    assert_eq!(ear.next().await, Heard::lost("half_open"));
}

#[tokio::test]
async fn a_standby_is_told_apart_because_it_cannot_be_listened_to() {
    let mut cluster = own_cluster();
    cluster.stop();
    cluster.write_file("standby.signal", "").unwrap();
    cluster.resume().unwrap();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.until("a failure", |source| source.status().last_error.is_some()).await;
    let told = ear.source.status().last_error.unwrap();
    assert!(told.contains("is a standby (LISTEN works on the primary only"), "{told}");
}

#[tokio::test]
async fn an_idle_connection_stays() {
    let cluster = cluster();
    let options =
        NotifyOptions { ping_interval: Duration::from_millis(10), ..NotifyOptions::default() };
    let ear = Ear::open(target(&cluster), options);
    ear.source.attach(&topic("idle")).await.unwrap();
    let sql = sql(&cluster).await;
    for n in 0..20 {
        // As long as several pings take.
        sql.batch_execute("SELECT pg_sleep(0.02)").await.unwrap();
        sql.batch_execute(&format!("NOTIFY idle, '{n}'")).await.unwrap();
        assert_eq!(ear.next().await, Heard::said("idle", &n.to_string()));
    }
    assert_eq!(ear.source.metrics().reconnects.get(), 0);
}

#[tokio::test]
async fn shutdown_closes_the_connection() {
    let cluster = own_cluster();
    let ear = Ear::open(target(&cluster), NotifyOptions::default());
    ear.source.attach(&topic("ends")).await.unwrap();
    ear.source.shutdown().await;
    drop(ear);
    let sql = sql(&cluster).await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidewire'";
    let gone = async { while sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0) > 0 {} };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("all connections closed");
}

fn through(proxy: &Proxy, password: &str) -> Target {
    let port = proxy.address.port();
    let url = format!("postgresql://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable");
    url.parse().unwrap()
}
