//! Changes and rows of tables over streams and polls, in the native dialect.

use serde_json::json;
use tidewire::Topic;
use tidewire::protocol::change::Operation;

use crate::server::{Server, change, row};

fn orders() -> Topic {
    Topic::table("public.orders").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_answered_with_all_rows_and_then_with_what_changes() {
    let server = Server::start().await;
    let path = "/v1/poll?table=public.orders&snapshot=true&timeout=0";
    let first = server.get(path).await.json().await;
    let rows = json!({"type": "rows", "table": "public.orders", "last": true,
        "rows": [{"id": 1, "name": "one"}]});
    assert_eq!(first["events"], json!([rows]));

    let drafts = vec![change(&orders(), 7, Operation::Insert, None, Some(row(2, "two")))];
    server.node.publisher().publish(drafts).await;
    let cursor = first["cursor"].as_str().unwrap();
    let next = server.get(&format!("{path}&since={cursor}")).await.json().await;
    let types: Vec<_> = next["events"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
    assert_eq!(types, ["change"], "what is resumed needs no rows: {next}");
    assert_eq!(next["events"][0]["record"], json!({"id": 2, "name": "two"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_the_rows_and_then_what_changes() {
    let server = Server::start().await;
    let mut stream = server.get("/v1/sse?table=public.orders&snapshot=true").await;
    loop {
        let event = stream.sse().await;
        if event.event.as_deref() == Some("rows") {
            assert_eq!(event.json()["rows"], json!([{"id": 1, "name": "one"}]));
            break;
        }
    }
    let drafts = vec![change(&orders(), 7, Operation::Delete, Some(row(1, "one")), None)];
    server.node.publisher().publish(drafts).await;
    let event = stream.sse().await;
    assert_eq!((event.event.as_deref(), &event.json()["op"]), (None, &json!("DELETE")));
    assert_eq!(event.json()["key"], json!({"id": 1}));
}

/// Changes that are not for who wants to hear of deletes; the place of the last.
async fn insert(server: &Server, count: u32) -> String {
    let insert = |id| change(&orders(), 7, Operation::Insert, None, Some(row(id, "new")));
    let results = server.node.publisher().publish((0..count).map(insert).collect()).await;
    results.last().unwrap().as_ref().unwrap().position.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_for_which_nothing_is_said_moves_its_id_and_loses_no_place() {
    let server = Server::start().await;
    let path = "/v1/sse?table=public.orders&events=DELETE";
    let mut stream = server.get(path).await;
    stream.sse().await;
    // More than the history keeps.
    for _ in 0..2 {
        let place = insert(&server, 600).await;
        while stream.block().await != format!("id: {place}") {}
    }
    drop(stream);
    let place = insert(&server, 1).await;
    let mut stream = server.get_with(path, &[("last-event-id", &place)]).await;
    stream.sse().await;
    assert_eq!(stream.sse().await.json()["outcome"], "resumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_moves_on_though_nothing_was_for_it() {
    let server = Server::start().await;
    let path = "/v1/poll?table=public.orders&events=DELETE&timeout=0";
    let mut cursor = server.get(path).await.json().await["cursor"].clone();
    // More than the history keeps, and more than one page of it between two polls.
    for _ in 0..5 {
        let place = insert(&server, 300).await;
        while cursor != place {
            let since = cursor.as_str().unwrap();
            let polled = server.get(&format!("{path}&since={since}")).await.json().await;
            assert_eq!((&polled["events"], polled.get("gap")), (&json!([]), None));
            assert_ne!(polled["cursor"], cursor, "each poll comes further");
            cursor = polled["cursor"].clone();
        }
    }
    let deleted = vec![change(&orders(), 8, Operation::Delete, Some(row(1, "new")), None)];
    server.node.publisher().publish(deleted).await;
    let since = cursor.as_str().unwrap();
    let polled = server.get(&format!("{path}&since={since}")).await.json().await;
    assert_eq!(polled["events"][0]["op"], "DELETE", "{polled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_limit_of_a_poll_is_not_passed_by() {
    let server = Server::start().await;
    let path = "/v1/poll?table=public.orders&events=DELETE";
    let first = server.get(&format!("{path}&timeout=0")).await.json().await;
    for id in 0..9 {
        let deleted = vec![change(&orders(), 8, Operation::Delete, Some(row(id, "new")), None)];
        server.node.publisher().publish(deleted).await;
        insert(&server, 3).await;
    }
    let (mut cursor, mut heard) = (first["cursor"].clone(), Vec::new());
    while heard.len() < 9 {
        let since = cursor.as_str().unwrap();
        let polled = server.get(&format!("{path}&limit=2&since={since}")).await.json().await;
        let events = polled["events"].as_array().unwrap();
        heard.extend(events.iter().map(|event| event["key"]["id"].as_u64().unwrap()));
        cursor = polled["cursor"].clone();
    }
    assert_eq!(heard, (0..9).collect::<Vec<_>>());
}
