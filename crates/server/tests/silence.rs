//! Clients for whom nothing is said, while a table changes more often than its history keeps.

use serde_json::{Value, json};

use crate::support::{Server, client, database, encoded, get};

const TABLE: &str = "public.silence_orders";
const FILTER: &str = "state=eq.paid";

/// Rows of one round; a quarter of what is kept is passed by after half of them.
const ROUND: u64 = 20;

async fn poll(server: &Server, since: Option<&str>, timeout: u64) -> Value {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let filter = encoded(FILTER);
    let path = format!("/v1/poll?table={TABLE}&filter={filter}&timeout={timeout}{since}");
    get(server.address, &path).await.good().await
}

fn text(value: &Value) -> String {
    value.as_str().expect("a place").to_owned()
}

#[tokio::test]
async fn a_filter_that_never_matched_resumes_after_the_history_has_turned_over() {
    let mut database = database().await;
    database
        .sql(&format!("CREATE TABLE {TABLE} (id bigserial PRIMARY KEY, state text NOT NULL)"))
        .await;
    let server = Server::of(&database.url(), &[("history.events", "40")]).await;
    let mut listener = client(server.address).await;
    let wish = json!({"table": TABLE, "filter": FILTER});
    let start = text(&listener.subscribe(wish.clone()).await["position"]);
    let mut place = start.clone();
    let mut cursor = text(&poll(&server, None, 0).await["cursor"]);
    for _ in 0..4 {
        let insert = "SELECT 'new' FROM generate_series(1, ";
        database.sql(&format!("INSERT INTO {TABLE} (state) {insert}{ROUND})")).await;
        let frame = listener.hear().await;
        assert_eq!((&frame["type"], &frame["table"]), (&json!("bookmark"), &json!(TABLE)));
        place = text(&frame["position"]);
        let polled = poll(&server, Some(&cursor), 0).await;
        assert_eq!((&polled["events"], polled.get("gap")), (&json!([]), None));
        assert_ne!(polled["cursor"], *cursor, "it moves on");
        cursor = text(&polled["cursor"]);
    }
    drop(listener);

    let mut lost = client(server.address).await;
    let old = lost.subscribe(json!({"table": TABLE, "since": start})).await;
    assert_eq!(old["outcome"], "gap", "the history has turned over");
    let mut listener = client(server.address).await;
    let wish = json!({"table": TABLE, "filter": FILTER, "since": place});
    assert_eq!(listener.subscribe(wish).await["outcome"], "resumed");
    database.sql(&format!("INSERT INTO {TABLE} (state) VALUES ('paid')")).await;
    assert_eq!(listener.hear().await["record"]["state"], "paid");
    let polled = poll(&server, Some(&cursor), 20).await;
    assert_eq!(polled["events"][0]["record"]["state"], "paid", "{polled}");
    assert!(polled.get("gap").is_none());
}
