//! NOTIFY in and out, on every transport and in both languages.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Server, client, client_with, database, encoded, get, post, until,
};

/// Everybody who can listen to one channel.
struct Listeners {
    native: Client,
    alle: [Client; 2],
    stream: Answer,
    alle_streams: [Answer; 2],
    poll: (SocketAddr, String),
}

impl Listeners {
    async fn of(address: SocketAddr, channel: &str) -> Self {
        let mut native = client(address).await;
        native.subscribe(json!({ "notify": channel })).await;
        let alle = [alle(address, "/", channel).await, alle(address, "/alle", channel).await];
        let name = encoded(channel);
        let stream = get(address, &format!("/v1/sse?notify={name}")).await;
        let alle_streams = [
            get(address, &format!("/events?channels={name}")).await,
            get(address, &format!("/sse?channels={name}")).await,
        ];
        let path = format!("/v1/poll?notify={name}");
        let now = get(address, &format!("{path}&timeout=0")).await.good().await;
        let cursor = now["cursor"].as_str().expect("a cursor");
        let poll = (address, format!("{path}&since={cursor}"));
        Self { native, alle, stream, alle_streams, poll }
    }

    /// Every one of them hears the payload next; the pollers are asked at the end.
    async fn hear(&mut self, channel: &str, payload: &str) {
        let heard = self.native.hear_type("event").await;
        assert_eq!((&heard["notify"], &heard["data"]), (&json!(channel), &json!(payload)));
        let said = json!({ "type": "notification", "channel": channel, "payload": payload });
        for alle in &mut self.alle {
            assert_eq!(alle.hear().await, said);
        }
        let streamed = self.stream.message().await;
        assert_eq!(streamed.json()["data"], payload);
        assert_eq!(streamed.id.as_deref(), heard["position"].as_str(), "one place everywhere");
        for stream in &mut self.alle_streams {
            let said = json!({ "channel": channel, "payload": payload });
            assert_eq!(stream.message().await.json(), said);
        }
    }
}

async fn alle(address: SocketAddr, path: &str, channel: &str) -> Client {
    let mut alle = client_with(address, path, &[]).await.expect("an upgrade");
    alle.say(&json!({ "type": "subscribe", "channel": channel })).await;
    assert_eq!(alle.hear().await, json!({ "type": "subscribed", "channel": channel }));
    alle
}

#[tokio::test]
async fn a_notification_reaches_every_transport_however_it_was_said() {
    let mut database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    let channel = "EveryTransport";
    let mut listeners = Listeners::of(server.address, channel).await;

    database.sql(&format!("NOTIFY \"{channel}\", 'from SQL'")).await;
    listeners.hear(channel, "from SQL").await;

    let body = json!({ "notify": channel, "data": "over HTTP" });
    let answer = post(server.address, "/v1/publish", &body).await.good().await;
    assert_eq!(answer, json!({ "position": null }));
    listeners.hear(channel, "over HTTP").await;

    let mut speaker = client(server.address).await;
    let request = json!({ "type": "publish", "notify": channel, "data": { "a": [1, 2] } });
    assert_eq!(speaker.outcome(request).await, "published");
    listeners.hear(channel, r#"{"a":[1,2]}"#).await;

    let body = json!({ "channel": channel, "payload": "from Alle over HTTP" });
    let answer = post(server.address, "/notify", &body).await.good().await;
    assert_eq!(answer, json!({ "success": true }));
    listeners.hear(channel, "from Alle over HTTP").await;

    let mut alle = client_with(server.address, "/", &[]).await.expect("an upgrade");
    alle.say(&json!({ "type": "notify", "channel": channel, "payload": "from Alle" })).await;
    listeners.hear(channel, "from Alle").await;

    let (address, path) = &listeners.poll;
    let polled = get(*address, path).await.good().await;
    let events = polled["events"].as_array().expect("events");
    let payloads: Vec<&Value> = events.iter().map(|event| &event["data"]).collect();
    let said = ["from SQL", "over HTTP", r#"{"a":[1,2]}"#, "from Alle over HTTP", "from Alle"];
    assert_eq!(payloads, said);
}

#[tokio::test]
async fn what_is_said_on_a_topic_reaches_every_transport() {
    let server = Server::start(&[]).await;
    let mut hearer = client(server.address).await;
    hearer.subscribe(json!({ "topic": "room:1" })).await;
    let mut stream = get(server.address, "/v1/sse?topic=room:1").await;
    let mut speaker = client(server.address).await;

    for number in 0..2 {
        let data = json!({ "number": number });
        let position = match number {
            0 => {
                let body = json!({ "topic": "room:1", "event": "said", "data": data });
                post(server.address, "/v1/publish", &body).await.good().await["position"].clone()
            }
            _ => {
                let request =
                    json!({ "type": "publish", "topic": "room:1", "event": "said", "data": data });
                speaker.ask(request).await["position"].clone()
            }
        };
        let heard = hearer.hear_type("event").await;
        let expected = (&position, &json!("said"), &data);
        assert_eq!((&heard["position"], &heard["event"], &heard["data"]), expected);
        assert_eq!(stream.message().await.json(), heard);
        let before = get(server.address, "/v1/poll?topic=room:1&since=earliest").await;
        let polled = before.good().await;
        assert_eq!(polled["events"].as_array().expect("events").last(), Some(&heard));
        assert_eq!(polled["cursor"], position);
    }
}

#[tokio::test]
async fn configured_channels_are_listened_to_from_the_start() {
    let mut database = database().await;
    let keys = [("postgres.listen_channels", "from_the_start,Another One")];
    let server = Server::of(&database.url(), &keys).await;
    database.notify("from_the_start", "before anyone").await;
    database.notify("Another One", "too").await;

    for (channel, payload) in [("from_the_start", "before anyone"), ("Another One", "too")] {
        let path = format!("/v1/history?notify={}", encoded(channel));
        until("a notification in the history", async || {
            get(server.address, &path).await.good().await["events"][0]["data"] == payload
        })
        .await;
        let mut late = client(server.address).await;
        late.subscribe(json!({ "notify": channel, "since": "earliest" })).await;
        assert_eq!(late.hear_type("event").await["data"], payload);
    }
}

#[tokio::test]
async fn what_postgresql_cannot_carry_is_refused_with_the_reason() {
    let database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    let mut speaker = client(server.address).await;
    let longest = "x".repeat(7_999);
    for (data, outcome, status) in [
        (longest.clone(), "published", 200),
        (longest + "x", "too_large", 413),
        ("a\0b".to_owned(), "bad_field", 400),
    ] {
        let body = json!({ "notify": "limits", "data": data });
        assert_eq!(post(server.address, "/v1/publish", &body).await.status, status);
        let mut request = body;
        request["type"] = json!("publish");
        assert_eq!(speaker.outcome(request).await, outcome);
        let body = json!({ "channel": "limits", "payload": data });
        let said = post(server.address, "/notify", &body).await.good().await;
        assert_eq!(said["success"], status == 200, "{said}");
    }
}

#[tokio::test]
async fn names_with_quotes_and_emoji_work_everywhere() {
    let mut database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    for name in [r#"it's "quoted"; -- \"#, "🦀 & ünï=+%41?#/", "Case And Space "] {
        let mut listeners = Listeners::of(server.address, name).await;
        database.notify(name, "héllo 'wörld'").await;
        listeners.hear(name, "héllo 'wörld'").await;
        let body = json!({ "channel": name, "payload": "again" });
        post(server.address, "/notify", &body).await.good().await;
        listeners.hear(name, "again").await;

        let kind = format!("topic={}", encoded(name));
        let mut stream = get(server.address, &format!("/v1/sse?{kind}")).await;
        let mut speaker = client(server.address).await;
        speaker.subscribe(json!({ "topic": name, "presence": true })).await;
        assert_eq!(speaker.outcome(json!({ "type": "track", "topic": name })).await, "tracked");
        let body = json!({ "topic": name, "data": name });
        post(server.address, "/v1/publish", &body).await.good().await;
        assert_eq!(speaker.hear_type("event").await["data"], name);
        assert_eq!(stream.message().await.json()["topic"], name);
        let path = format!("/v1/poll?{kind}&since=earliest");
        assert_eq!(get(server.address, &path).await.good().await["events"][0]["data"], name);
        let history = get(server.address, &format!("/v1/history?{kind}")).await.good().await;
        assert_eq!(history["events"][0]["topic"], name);
        let here = get(server.address, &format!("/v1/presence?{kind}")).await.good().await;
        assert_eq!(here["members"].as_array().map(Vec::len), Some(1));
    }
}
