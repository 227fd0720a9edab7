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
