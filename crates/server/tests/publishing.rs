//! `POST /v1/publish`: one, a batch, repeats.

use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Pause, Server, client, database, get, post, post_with, request, until};

const PATH: &str = "/v1/publish";

async fn history(server: &Server, topic: &str) -> Vec<Value> {
    let path = format!("/v1/history?topic={topic}&after=earliest&limit=1000");
    let page = get(server.address, &path).await.good().await;
    page["events"].as_array().expect("events").clone()
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_said_in_order_and_one_more_is_refused() {
    let server = Server::start(&[]).await;
    let batch = |count: usize| {
        (0..count).map(|number| json!({ "topic": "batch", "data": number })).collect::<Value>()
    };
    assert_eq!(
        post(server.address, PATH, &batch(1_001)).await.refused().await,
        (413, "too_large".to_owned())
    );
    assert!(history(&server, "batch").await.is_empty(), "a refused batch says nothing");

    let results = post(server.address, PATH, &batch(1_000)).await.good().await;
    let results = results["results"].as_array().expect("results").clone();
    let said = history(&server, "batch").await;
    assert_eq!((results.len(), said.len()), (1_000, 1_000));
    for (number, (result, event)) in results.iter().zip(&said).enumerate() {
        assert_eq!(event["data"], number);
        assert_eq!(event["position"], result["position"]);
    }
    let empty = post(server.address, PATH, &json!([])).await.good().await;
    assert_eq!(empty, json!({ "results": [] }));
}

#[tokio::test]
async fn one_bad_publication_does_not_hold_up_a_batch() {
    let server = Server::start(&[]).await;
    let batch = json!([
        { "topic": "a", "data": 1 },
        { "topic": "", "data": 2 },
        { "topic": "a" },
        { "topic": "a", "notify": "b", "data": 3 },
        { "topic": "a", "data": 4, "colour": "red" },
        "five",
        { "notify": "b", "data": 6 },
        { "topic": "a", "data": 7 },
    ]);
    let answer = post(server.address, PATH, &batch).await.good().await;
    let words: Vec<&str> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| result["error"]["code"].as_str().unwrap_or("said"))
        .collect();
    let expected = [
        "said",
        "bad_topic",
        "missing_field",
        "bad_field",
        "bad_field",
        "bad_field",
        "not_configured",
        "said",
    ];
    assert_eq!(words, expected);
    assert_eq!(history(&server, "a").await.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_with_its_code() {
    let keys = [("limits.body_bytes", "4KiB"), ("limits.payload_bytes", "1KiB")];
    let server = Server::start(&keys).await;
    for (body, status, code) in [
        ("{", 400, "bad_json"),
        ("", 400, "bad_json"),
        ("[1", 400, "bad_json"),
        ("3", 400, "bad_field"),
        ("{}", 400, "missing_field"),
        (r#"{"notify":"a","event":"b","data":1}"#, 400, "bad_field"),
        (r#"{"topic":"a"}"#, 400, "missing_field"),
        (r#"{"topic":"a","topic":"b","data":1}"#, 400, "bad_field"),
        (r#"{"topic":"a\u0000b","data":1}"#, 400, "bad_topic"),
        (r#"{"notify":"a","private":true,"data":1}"#, 400, "bad_field"),
        (r#"{"table":"public.a","data":1}"#, 400, "bad_field"),
        (r#"{"topic":"a","data":1e999}"#, 400, "bad_field"),
        (r#"{"notify":"a","data":1}"#, 501, "not_configured"),
    ] {
        let answer = request(server.address, Method::POST, PATH, &[], body).await;
        assert_eq!(answer.refused().await, (status, code.to_owned()), "{body}");
    }
    for (bytes, status) in [(1_000, 200), (1_100, 413), (5_000, 413)] {
        let body = json!({ "topic": "a", "data": "x".repeat(bytes) });
        assert_eq!(post(server.address, PATH, &body).await.status, status, "{bytes}");
    }
    let deep = format!(r#"{{"topic":"a","data":{}{}}}"#, "[".repeat(101), "]".repeat(101));
    let answer = request(server.address, Method::POST, PATH, &[], &deep).await;
    assert_eq!(answer.refused().await, (400, "bad_field".to_owned()));
    let long_key = "k".repeat(256);
    for key in ["", "naïve", &long_key] {
        let body = json!({ "topic": "a", "data": 1 });
        let answer = post_with(server.address, PATH, &[("idempotency-key", key)], &body).await;
        assert_eq!(answer.status, 400, "{key:?}");
    }
}

#[tokio::test]
async fn a_refusal_names_nothing_of_the_inside() {
    let server = Server::start(&[]).await;
    let answer = request(server.address, Method::POST, PATH, &[], "3").await.json().await;
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("expected a publication as an object"), "{message}");
    let refused = request(server.address, Method::POST, "/", &[], "").await;
    assert_eq!(refused.header("allow"), "GET, HEAD");
    assert_eq!(refused.refused().await, (405, "not_found".to_owned()));
}

#[tokio::test]
async fn data_goes_out_byte_for_byte() {
    let server = Server::start(&[]).await;
    let mut stream = get(server.address, "/v1/sse?topic=bytes").await;
    for data in ["null", r#"{"b": 1.0,  "a": "\u00e9", "b": 1e2}"#, "\"\"", "[ ]", "false"] {
        let body = format!(r#"{{"topic":"bytes","data":{data}}}"#);
        let answer = request(server.address, Method::POST, PATH, &[], &body).await;
        answer.good().await;
        let event = stream.message().await;
        let text = event.text();
        assert!(text.ends_with(&format!(r#""data":{data}}}"#)), "{data} became {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_repeats_at_once_are_said_once_and_answered_alike() {
    let server = Server::start(&[]).await;
    let address = server.address;
    let headers = [("idempotency-key", "order-123")];
    let repeats = (0..50).map(|_| {
        tokio::spawn(async move {
            let body = json!({ "topic": "once", "data": "paid" });
            post_with(address, PATH, &headers, &body).await.good().await
        })
    });
    let mut answers = Vec::new();
    for repeat in repeats.collect::<Vec<_>>() {
        answers.push(repeat.await.expect("an answer"));
    }
    let said = history(&server, "once").await;
    assert_eq!(said.len(), 1);
    assert!(answers.iter().all(|answer| answer["position"] == said[0]["position"]));

    let other = json!({ "topic": "once", "data": "lost" });
    let refused = post_with(address, PATH, &headers, &other).await.refused().await;
    assert_eq!(refused, (409, "key_reused".to_owned()));

    // A WebSocket's key is the same key, when the same client uses it.
    let mut speaker = client(address).await;
    let again = json!({ "type": "publish", "topic": "once", "data": "paid", "key": "order-123" });
    assert_eq!(speaker.ask(again).await["position"], said[0]["position"]);

    let batch = json!([{ "topic": "once", "data": 1 }, { "topic": "once", "data": 1 }]);
    let headers = [("idempotency-key", "a batch")];
    let first = post_with(address, PATH, &headers, &batch).await.good().await;
    assert_ne!(first["results"][0], first["results"][1], "each counts for itself");
    let second = post_with(address, PATH, &headers, &batch).await.good().await;
    assert_eq!(first, second);
    assert_eq!(history(&server, "once").await.len(), 3);
}

/// Sends a request and hangs up before the answer.
async fn hang_up(server: &Server, headers: &str, body: &Value) {
    let mut socket = TcpStream::connect(server.address).await.expect("a connection");
    let body = body.to_string();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        server.address,
        body.len(),
    );
    socket.write_all(request.as_bytes()).await.expect("a request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_published_once_and_delivered_at_once_although_its_caller_hung_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let keys = [("history.store", "disk"), ("history.path", &*path), ("history.fsync", "batch")];
    let server = Server::start(&keys).await;
    let mut listener = client(server.address).await;
    listener.subscribe(json!({ "topic": "paid" })).await;
    for round in 0..30 {
        let key = format!("order-{round}");
        let one = json!({ "topic": "paid", "data": round });
        hang_up(&server, &format!("Idempotency-Key: {key}\r\n"), &one).await;
        let headers = [("idempotency-key", &*key)];
        post_with(server.address, PATH, &headers, &one).await.good().await;
        assert_eq!(listener.hear_type("event").await["data"], round);
    }
    for round in 0..10 {
        let item = |number| json!({ "topic": "paid", "data": [round, number] });
        hang_up(&server, "", &(0..20).map(item).collect()).await;
        for number in 0..20 {
            assert_eq!(listener.hear_type("event").await["data"], json!([round, number]));
        }
    }
    assert_eq!(history(&server, "paid").await.len(), 30 + 10 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_database_that_does_not_answer_a_notify_is_sent_once_and_holds_up_nothing() {
    let database = database().await;
    let pause = Pause::before(database.port()).await;
    let server = Server::of(&database.url_by(pause.port()), &[]).await;
    let address = server.address;
    let under_way = async |count: usize| {
        until("so many publications under way", async || {
            let metrics = get(address, "/metrics").await.rest().await;
            metrics.contains(&format!("\ntidewire_publishing {count}\n"))
        })
        .await;
    };
    let mut listener = client(address).await;
    listener.subscribe(json!({ "notify": "slow" })).await;
    listener.subscribe(json!({ "topic": "quick" })).await;

    pause.hold(true);
    let paid = json!({ "notify": "slow", "data": "paid" });
    hang_up(&server, "Idempotency-Key: order-1\r\n", &paid).await;
    under_way(1).await;
    let repeat = tokio::spawn(async move {
        post_with(address, PATH, &[("idempotency-key", "order-1")], &paid).await.good().await
    });
    under_way(2).await;
    // A request of the connection's own waits, too, and nothing else does.
    let own = json!({ "type": "publish", "notify": "slow", "data": "own", "id": 1_000 });
    listener.say(&own).await;
    under_way(3).await;
    assert_eq!(listener.outcome(json!({ "type": "ping" })).await, "pong");
    post(address, PATH, &json!({ "topic": "quick", "data": 1 })).await.good().await;
    assert_eq!(listener.hear_type("event").await["topic"], "quick");

    pause.hold(false);
    assert_eq!(repeat.await.expect("an answer"), json!({ "position": null }));
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(listener.hear_type("event").await["data"].as_str().map(str::to_owned));
    }
    post(address, PATH, &json!({ "notify": "slow", "data": "end" })).await.good().await;
    heard.push(listener.hear_type("event").await["data"].as_str().map(str::to_owned));
    assert_eq!(heard.iter().filter(|data| data.as_deref() == Some("paid")).count(), 1, "{heard:?}");
    assert_eq!(heard[2].as_deref(), Some("end"), "{heard:?}");
}
