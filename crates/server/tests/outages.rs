//! PostgreSQL goes and comes back: clients stay, are told what may be missing, and go on.

use std::sync::Arc;

use serde_json::{Value, json};
use tidewire_postgres::private_cluster::{Options, PrivateCluster};

use crate::support::{
    Answer, Client, Database, Server, client, client_with, database, get, post, soon, until,
};

/// One listener's account of a channel that carries rising numbers.
#[derive(Default)]
struct Account {
    last: Option<u64>,
    gaps: usize,
    gap_since_last: bool,
}

impl Account {
    fn note_gap(&mut self) {
        self.gaps += 1;
        self.gap_since_last = true;
    }

    /// Numbers follow each other, but for a gap that was told.
    fn note(&mut self, payload: &Value) -> u64 {
        let number: u64 = payload.as_str().and_then(|text| text.parse().ok()).expect("a number");
        if let Some(last) = self.last {
            let follows = number == last + 1 || (self.gap_since_last && number > last);
            assert!(follows, "{number} after {last}, gaps: {}", self.gaps);
        }
        (self.last, self.gap_since_last) = (Some(number), false);
        number
    }

    async fn hear_native(&mut self, client: &mut Client) -> Option<u64> {
        let frame = client.hear().await;
        match frame["type"].as_str() {
            Some("gap") => {
                assert_eq!(frame["reason"], "connection_lost");
                self.note_gap();
                None
            }
            Some("event") => Some(self.note(&frame["data"])),
            _ => panic!("unexpected: {frame}"),
        }
    }

    async fn hear_alle(&mut self, client: &mut Client) -> Option<u64> {
        let frame = client.hear().await;
        match frame["type"].as_str() {
            Some("error") => {
                let expected =
                    "Error: Notifications on channel \"traffic\" were missed: connection_lost";
                assert_eq!(frame["message"], expected);
                self.note_gap();
                None
            }
            Some("notification") => Some(self.note(&frame["payload"])),
            _ => panic!("unexpected: {frame}"),
        }
    }

    async fn hear_stream(&mut self, stream: &mut Answer) -> Option<u64> {
        let event = stream.next_sse().await.expect("the stream goes on");
        match event.name.as_deref() {
            Some("gap") => {
                self.note_gap();
                None
            }
            None if event.retry.is_none() => Some(self.note(&event.json()["data"])),
            _ => None,
        }
    }
}

/// Listeners of the channel `traffic` in three ways.
struct Listeners {
    native: (Client, Account),
    alle: (Client, Account),
    stream: (Answer, Account),
}

impl Listeners {
    async fn of(server: &Server) -> Self {
        let mut native = client(server.address).await;
        native.subscribe(json!({ "notify": "traffic" })).await;
        let mut alle = client_with(server.address, "/", &[]).await.expect("an upgrade");
        alle.say(&json!({ "type": "subscribe", "channel": "traffic" })).await;
        assert_eq!(alle.hear().await["type"], "subscribed");
        let stream = get(server.address, "/v1/sse?notify=traffic").await;
        Self {
            native: (native, Account::default()),
            alle: (alle, Account::default()),
            stream: (stream, Account::default()),
        }
    }

    /// Everyone reads on until a number that is at least this.
    async fn hear_up_to(&mut self, number: u64) {
        let (client, account) = &mut self.native;
        while account.hear_native(client).await.is_none_or(|heard| heard < number) {}
        let (client, account) = &mut self.alle;
        while account.hear_alle(client).await.is_none_or(|heard| heard < number) {}
        let (stream, account) = &mut self.stream;
        while account.hear_stream(stream).await.is_none_or(|heard| heard < number) {}
    }

    fn gaps(&self) -> [usize; 3] {
        [self.native.1.gaps, self.alle.1.gaps, self.stream.1.gaps]
    }
}

async fn say(database: &mut Database, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        database.notify("traffic", &number.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_connection_is_told_as_a_gap_and_everyone_goes_on() {
    let mut writer = database().await;
    let mut killer = database().await;
    let url = format!("{}?application_name=terminated", writer.url());
    let server = Server::of(&url, &[]).await;
    let mut listeners = Listeners::of(&server).await;
    say(&mut writer, 1..=20).await;
    listeners.hear_up_to(20).await;
    assert_eq!(listeners.gaps(), [0; 3]);
    let before = get(server.address, "/v1/poll?notify=traffic&timeout=0").await.good().await;

    let traffic = tokio::spawn(async move {
        say(&mut writer, 21..=300).await;
        writer
    });
    let killed = killer
        .sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE application_name = 'terminated' AND query LIKE '%LISTEN%'",
        )
        .await;
    assert_ne!(killed, "0", "there was a listening connection");
    let mut writer = soon("the end of the traffic", traffic).await.expect("all is said");
    until("a new listening connection", async || {
        let metrics = get(server.address, "/metrics").await.rest().await;
        !metrics.contains("tidewire_notify_reconnects_total 0")
    })
    .await;
    server.is_ready_soon().await;

    // What is said once a new subscriber is told so, everyone hears.
    let mut late = client(server.address).await;
    late.subscribe(json!({ "notify": "traffic" })).await;
    say(&mut writer, 301..=310).await;
    listeners.hear_up_to(310).await;
    assert_eq!(listeners.gaps(), [1; 3]);
    // What was said just before may still have been on its way.
    while late.hear_type("event").await["data"] != "301" {}

    // Who was away meanwhile is told of the gap at its place.
    let since = before["cursor"].as_str().expect("a cursor");
    let path = format!("/v1/history?notify=traffic&after={since}&limit=1000");
    let page = get(server.address, &path).await.good().await;
    let events = page["events"].as_array().expect("events");
    let gaps = events.iter().filter(|event| event["type"] == "gap").count();
    assert_eq!((gaps, &page["gap"]), (1, &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_may_come_late_and_be_restarted() {
    let cluster = tokio::task::spawn_blocking(|| {
        let mut cluster =
            PrivateCluster::temporary(Options::default()).expect("a private PostgreSQL");
        cluster.stop();
        cluster
    });
    let mut cluster = cluster.await.expect("a stopped cluster");
    let url = cluster.socket_url().expect("a short path");
    let server = Server::start(&[("postgres.url", &url)]).await;

    // It is down at the start: the server says so and serves what needs none.
    is_red_soon(&server).await;
    let said = json!({ "topic": "room", "data": 1 });
    post(server.address, "/v1/publish", &said).await.good().await;
    assert_eq!(get(server.address, "/health").await.status, 200);

    cluster = resumed(cluster).await;
    server.is_ready_soon().await;
    let shared = Arc::new(cluster);
    let mut writer = Database::of(Arc::clone(&shared));
    let mut listeners = Listeners::of(&server).await;
    say(&mut writer, 1..=10).await;
    listeners.hear_up_to(10).await;

    drop(writer);
    let mut cluster = Arc::into_inner(shared).expect("nobody else holds it");
    cluster = tokio::task::spawn_blocking(move || {
        cluster.stop();
        cluster
    })
    .await
    .expect("it stops");
    is_red_soon(&server).await;
    let body = json!({ "notify": "traffic", "data": "x" });
    let refused = post(server.address, "/v1/publish", &body).await.refused().await;
    assert_eq!(refused, (503, "unavailable".to_owned()));
    let body = json!({ "channel": "traffic", "payload": "x" });
    let told = post(server.address, "/notify", &body).await.good().await;
    assert_eq!(told["success"], false);
    // Everyone is still connected; a subscription made now waits until it can be kept.
    let (native, _) = &mut listeners.native;
    assert_eq!(native.outcome(json!({ "type": "ping" })).await, "pong");
    let address = server.address;
    let patient = tokio::spawn(async move {
        let mut client = client(address).await;
        client.subscribe(json!({ "notify": "meanwhile" })).await;
        client
    });

    cluster = resumed(cluster).await;
    server.is_ready_soon().await;
    let mut writer = Database::of(Arc::new(cluster));
    let mut patient = soon("a subscription", patient).await.expect("a subscription");
    writer.notify("meanwhile", "here").await;
    assert_eq!(patient.hear_type("event").await["data"], "here");
    say(&mut writer, 11..=20).await;
    listeners.hear_up_to(20).await;
    assert_eq!(listeners.gaps(), [1; 3]);
}

async fn resumed(mut cluster: PrivateCluster) -> PrivateCluster {
    tokio::task::spawn_blocking(move || {
        cluster.resume().expect("PostgreSQL starts again");
        cluster
    })
    .await
    .expect("it starts")
}

/// `/ready` is red, and says why.
async fn is_red_soon(server: &Server) {
    until("a red /ready with a reason", async || {
        let answer = get(server.address, "/ready").await;
        let status = answer.status;
        let body = answer.json().await;
        let postgres = &body["parts"]["postgres"];
        assert_eq!(body["ready"], status == 200, "{body}");
        assert_eq!(postgres["ready"], status == 200, "{body}");
        status == 503 && postgres["error"].is_string()
    })
    .await;
}
