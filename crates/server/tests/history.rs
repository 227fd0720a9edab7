//! `GET /v1/history`: pages both ways, limits, gaps.

use serde_json::{Value, json};

use crate::support::{Server, database, get, post};

async fn say(server: &Server, topic: &str, numbers: std::ops::Range<u64>) {
    let batch: Value = numbers.map(|number| json!({ "topic": topic, "data": number })).collect();
    post(server.address, "/v1/publish", &batch).await.good().await;
}

fn numbers(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("events").iter();
    events.map(|event| event["data"].as_u64().expect("a number")).collect()
}

/// Follows the cursor of the given name from page to page.
async fn pages(server: &Server, way: &str, from: &str) -> Vec<Vec<u64>> {
    let (mut pages, mut cursor) = (Vec::new(), from.to_owned());
    loop {
        let path = format!("/v1/history?topic=pages&limit=4{cursor}");
        let page = get(server.address, &path).await.good().await;
        let found = numbers(&page);
        if found.is_empty() {
            return pages;
        }
        pages.push(found);
        cursor = format!("&{way}={}", page[way].as_str().expect("a cursor"));
    }
}

#[tokio::test]
async fn history_is_paged_both_ways() {
    let server = Server::start(&[]).await;
    say(&server, "pages", 0..10).await;
    assert_eq!(
        pages(&server, "before", "").await,
        [vec![9, 8, 7, 6], vec![5, 4, 3, 2], vec![1, 0]]
    );
    assert_eq!(
        pages(&server, "after", "&after=earliest").await,
        [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]
    );
}

/// The changes and gaps of a table, page by page of two.
async fn changes(server: &Server, table: &str, way: &str, from: &str) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), from.to_owned());
    loop {
        let path = format!("/v1/history?table={table}&limit=2{cursor}");
        let page = get(server.address, &path).await.good().await;
        let found = page["events"].as_array().expect("events").clone();
        if found.is_empty() {
            return events;
        }
        events.extend(found);
        cursor = format!("&{way}={}", page[way].as_str().expect("a cursor"));
    }
}

#[tokio::test]
async fn the_history_of_a_table_is_its_changes_as_a_poll_has_them() {
    let mut database = database().await;
    for source in ["wal", "outbox"] {
        let table = format!("public.past_{source}");
        database.sql(&format!("CREATE TABLE {table} (id int PRIMARY KEY, note text)")).await;
        let server = Server::of(&database.url(), &[("source", source)]).await;
        let followed = format!("/v1/poll?table={table}&timeout=1");
        let begun = get(server.address, &followed).await.good().await;
        let insert = format!("INSERT INTO {table} SELECT n, 'x' FROM generate_series(1, 3) n");
        database.sql(&format!("{insert}; UPDATE {table} SET note = 'y' WHERE id = 2")).await;
        database.sql(&format!("DELETE FROM {table} WHERE id = 1")).await;
        let cursor = begun["cursor"].as_str().expect("a cursor");
        let mut polled = Vec::new();
        let mut since = cursor.to_owned();
        while polled.len() < 5 {
            let path = format!("/v1/poll?table={table}&since={since}");
            let more = get(server.address, &path).await.good().await;
            polled.extend(more["events"].as_array().expect("events").iter().cloned());
            since = more["cursor"].as_str().expect("a cursor").to_owned();
        }
        let told = changes(&server, &table, "after", "&after=earliest").await;
        let gaps = told.iter().take_while(|event| event["type"] == "gap").count();
        assert_eq!(told[gaps..], polled, "{source}, forwards");
        let mut back = changes(&server, &table, "before", "").await;
        back.reverse();
        assert_eq!(back, told, "{source}, backwards");
    }
}

#[tokio::test]
async fn the_end_of_a_page_is_good_later_and_on_other_transports() {
    let server = Server::start(&[]).await;
    say(&server, "pages", 0..3).await;
    let newest = get(server.address, "/v1/history?topic=pages&limit=1").await.good().await;
    let after = newest["after"].as_str().expect("a cursor").to_owned();
    let path = format!("/v1/history?topic=pages&after={after}");
    let empty = get(server.address, &path).await.good().await;
    assert_eq!((numbers(&empty), &empty["after"]), (vec![], &json!(after)));

    say(&server, "pages", 3..5).await;
    assert_eq!(numbers(&get(server.address, &path).await.good().await), [3, 4]);
    let path = format!("/v1/poll?topic=pages&since={after}");
    assert_eq!(numbers(&get(server.address, &path).await.good().await), [3, 4]);
}

#[tokio::test]
async fn a_topic_on_which_nothing_was_said_has_a_place_to_go_on_from() {
    let server = Server::start(&[]).await;
    for way in ["", "&after=earliest"] {
        let path = format!("/v1/history?topic=pages{way}");
        let empty = get(server.address, &path).await.good().await;
        let after = empty["after"].as_str().expect("a cursor").to_owned();
        assert!(numbers(&empty).is_empty());
        let path = format!("/v1/history?topic=pages&after={after}");
        assert!(numbers(&get(server.address, &path).await.good().await).is_empty());
    }
    let empty = get(server.address, "/v1/history?topic=pages").await.good().await;
    let after = empty["after"].as_str().expect("a cursor").to_owned();
    say(&server, "pages", 0..2).await;
    let path = format!("/v1/history?topic=pages&after={after}");
    assert_eq!(numbers(&get(server.address, &path).await.good().await), [0, 1]);
}

#[tokio::test]
async fn lost_history_is_told_with_the_reason() {
    let server = Server::start(&[("history.events", "5")]).await;
    say(&server, "short", 0..20).await;
    let kept = get(server.address, "/v1/history?topic=short").await.good().await;
    assert_eq!(numbers(&kept), [19, 18, 17, 16, 15]);
    let head = kept["after"].as_str().expect("a cursor");
    let (epoch, _) = head.split_once('-').expect("an epoch and a number");
    for (after, reason) in [
        (format!("{epoch}-3"), "history_trimmed"),
        (format!("{epoch}-99"), "position_unknown"),
        ("abc-3".to_owned(), "epoch_changed"),
    ] {
        let path = format!("/v1/history?topic=short&after={after}");
        let page = get(server.address, &path).await.good().await;
        let told = (numbers(&page), &page["gap"], &page["after"]);
        assert_eq!(told, (vec![], &json!(reason), &json!(head)), "{after}");
    }
}

#[tokio::test]
async fn a_namespace_keeps_as_much_as_it_says() {
    let namespaces = r#"[{"pattern":"brief:*","history":{"events":2}}]"#;
    let server = Server::start(&[("namespaces", namespaces)]).await;
    say(&server, "brief:1", 0..9).await;
    say(&server, "other", 0..9).await;
    for (topic, count) in [("brief:1", 2), ("other", 9)] {
        let path = format!("/v1/history?topic={topic}&after=earliest");
        assert_eq!(numbers(&get(server.address, &path).await.good().await).len(), count);
    }
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name() {
    let server = Server::start(&[]).await;
    for (query, code) in [
        ("", "missing_field"),
        ("topic=a&topic=b", "bad_field"),
        ("topic=a&limit=0", "bad_field"),
        ("topic=a&limit=1001", "bad_field"),
        ("topic=a&limit=x", "bad_field"),
        ("topic=a&after=1-1&before=1-1", "bad_field"),
        ("topic=a&after=1", "bad_position"),
        ("topic=a&before=earliest", "bad_position"),
        ("topic=a&since=1-1", "bad_field"),
        ("topic=a%00b", "bad_topic"),
        ("topic=%ff", "bad_field"),
        ("table=a", "bad_topic"),
    ] {
        let answer = get(server.address, &format!("/v1/history?{query}")).await;
        assert_eq!(answer.refused().await, (400, code.to_owned()), "{query}");
    }
}
