//! One client, moving from transport to transport: each event once.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Server, client, database, get, get_with, post};

/// Events said in all.
const COUNT: u64 = 400;

/// Events taken before the next move, at least.
const STAY: usize = 25;

/// What the client has heard, and the position of the last.
struct Ledger {
    address: SocketAddr,
    kind: &'static str,
    name: &'static str,
    numbers: Vec<u64>,
    position: String,
}

impl Ledger {
    fn is_full(&self) -> bool {
        self.numbers.len() as u64 >= COUNT
    }

    fn note(&mut self, event: &Value) {
        assert_eq!(event["type"], "event", "no gap: {event}");
        let data = &event["data"];
        let number = data.as_u64().or_else(|| data.as_str()?.parse().ok());
        self.numbers.push(number.expect("a number"));
        self.position = event["position"].as_str().expect("a position").to_owned();
    }

    async fn over_websocket(&mut self) {
        let mut client = client(self.address).await;
        let answer =
            client.subscribe(json!({ self.kind: self.name, "since": self.position })).await;
        assert_eq!(answer["outcome"], "resumed", "{answer}");
        for _ in 0..STAY {
            if !self.is_full() {
                let event = client.hear().await;
                self.note(&event);
            }
        }
    }

    async fn over_stream(&mut self) {
        let path = format!("/v1/sse?{}={}", self.kind, self.name);
        let headers = [("last-event-id", &*self.position)];
        let mut stream = get_with(self.address, &path, &headers).await;
        let subscribed = stream.named("subscribed").await.json();
        assert_eq!(subscribed["outcome"], "resumed", "{subscribed}");
        for _ in 0..STAY {
            if !self.is_full() {
                let event = stream.message().await;
                self.note(&event.json());
                assert_eq!(event.id.as_deref(), Some(&*self.position));
            }
        }
    }

    async fn by_poll(&mut self) {
        let until = self.numbers.len() + STAY;
        while self.numbers.len() < until && !self.is_full() {
            let (kind, name, since) = (self.kind, self.name, &self.position);
            let path = format!("/v1/poll?{kind}={name}&since={since}&limit=10");
            let polled = get(self.address, &path).await.good().await;
            for event in polled["events"].as_array().expect("events") {
                self.note(event);
            }
            assert_eq!(polled["cursor"], self.position);
        }
    }
}

async fn follow(address: SocketAddr, kind: &'static str, name: &'static str) {
    let path = format!("/v1/poll?{kind}={name}&timeout=0");
    let start = get(address, &path).await.good().await;
    let position = start["cursor"].as_str().expect("a cursor").to_owned();
    let said = tokio::spawn(async move {
        for number in 0..COUNT {
            let body = json!({ kind: name, "data": number });
            post(address, "/v1/publish", &body).await.good().await;
        }
    });
    let mut ledger = Ledger { address, kind, name, numbers: Vec::new(), position };
    while !ledger.is_full() {
        ledger.over_websocket().await;
        ledger.over_stream().await;
        ledger.by_poll().await;
    }
    said.await.expect("everything is said");
    assert_eq!(ledger.numbers, (0..COUNT).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_changes_transports_hears_each_message_once() {
    let server = Server::start(&[]).await;
    follow(server.address, "topic", "ledger").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_changes_transports_hears_each_notification_once() {
    let database = database().await;
    let server = Server::of(&database.url(), &[]).await;
    follow(server.address, "notify", "ledger").await;
}
