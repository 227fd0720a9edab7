//! Long-poll.

use std::time::Duration;

use tidewire::{Limits, Topic};

use crate::server::{Server, Settings, soon, topic, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_without_a_cursor_waits_from_now() {
    let server = Server::start().await;
    server.say(&topic("a"), [1]).await;
    let waiting = server.get("/v1/poll?topic=a&timeout=20");
    let speaking = async {
        until("its subscription", || server.node.stats().subscriptions == 1).await;
        server.say(&topic("a"), [2]).await
    };
    let (answer, position) = tokio::join!(waiting, speaking);
    assert_eq!(answer.header("cache-control"), "no-store");
    let polled = answer.json().await;
    assert_eq!(polled["events"].as_array().unwrap().len(), 1);
    assert_eq!(polled["events"][0]["data"], 2);
    assert_eq!(polled["cursor"], position.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_waits_in_vain_answers_with_a_cursor_to_go_on_from() {
    let server = Server::start().await;
    let polled = server.get("/v1/poll?topic=a&timeout=0").await.json().await;
    assert_eq!(polled["events"].as_array().unwrap().len(), 0);
    server.say(&topic("a"), [1]).await;
    let cursor = polled["cursor"].as_str().unwrap();
    let polled = server.get(&format!("/v1/poll?topic=a&since={cursor}")).await.json().await;
    assert_eq!(polled["events"][0]["data"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_limit_bounds_the_wait() {
    let limits = Limits { poll_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let polled = server.get("/v1/poll?topic=a&timeout=3600").await.json().await;
    assert_eq!(polled["events"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_on_never_loses_nor_repeats_while_events_are_said() {
    const EVENTS: u32 = 500;
    let server = Server::start().await;
    let (a, b) = (topic("a"), Topic::notify("b").unwrap());
    let first = server.get("/v1/poll?topic=a&notify=b&timeout=0").await.json().await;
    let speaking = async {
        for number in 0..EVENTS {
            server.say(if number % 3 == 0 { &b } else { &a }, [number]).await;
            tokio::task::yield_now().await;
        }
    };
    let polling = async {
        let mut heard = Vec::new();
        let mut cursor = first["cursor"].as_str().unwrap().to_owned();
        while heard.len() < EVENTS as usize {
            let path = format!("/v1/poll?topic=a&notify=b&limit=7&since={cursor}");
            let polled = server.get(&path).await.json().await;
            let events = polled["events"].as_array().unwrap();
            assert!((1..=7).contains(&events.len()), "{polled}");
            assert!(polled.get("gap").is_none(), "{polled}");
            heard.extend(events.iter().map(|event| event["data"].as_u64().unwrap() as u32));
            cursor = polled["cursor"].as_str().unwrap().to_owned();
        }
        heard
    };
    let (mut heard, ()) = soon("all events", async { tokio::join!(polling, speaking) }).await;
    let of_one: Vec<u32> = heard.iter().copied().filter(|number| number % 3 == 0).collect();
    assert!(of_one.is_sorted(), "in order within a topic");
    heard.sort_unstable();
    assert_eq!(heard, (0..EVENTS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_cannot_be_gone_on_from_is_told_as_a_gap_at_once() {
    let server = Server::start().await;
    server.say(&topic("a"), [1]).await;
    let polled = server.get("/v1/poll?topic=a&since=dead-1").await.json().await;
    assert_eq!(polled["gap"]["reason"], "epoch_changed");
    assert_eq!(polled["gap"]["topics"][0]["topic"], "a");
    let cursor = polled["cursor"].as_str().unwrap();
    server.say(&topic("a"), [2]).await;
    let polled = server.get(&format!("/v1/poll?topic=a&since={cursor}")).await.json().await;
    assert_eq!(polled["events"][0]["data"], 2);
    assert!(polled.get("gap").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_while_it_waits_frees_everything_once_it_is_answered() {
    let server = Server::start().await;
    let waiting = server.get("/v1/poll?topic=a&timeout=60");
    let leaving = until("the poll", || server.node.stats().subscriptions == 1);
    tokio::select! {
        _ = waiting => panic!("nothing was said"),
        () = leaving => {}
    }
    // Until then it may as well be a client that has nothing more to send.
    server.say(&topic("a"), [1]).await;
    until("no session", || server.sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_at_shutdown_is_answered_with_its_cursor() {
    let server = Server::start().await;
    let node = server.node.clone();
    let waiting = server.get("/v1/poll?topic=a&timeout=60");
    let ending = async {
        until("the poll", || server.node.stats().subscriptions == 1).await;
        node.shutdown(Duration::from_secs(9), Duration::from_secs(9)).await;
    };
    let (answer, ()) = tokio::join!(waiting, ending);
    assert_eq!(answer.status, 200);
    assert!(!answer.header("retry-after").is_empty());
    assert!(answer.json().await["cursor"].as_str().unwrap().contains('-'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_poll_is_said_by_status() {
    let server = Server::start().await;
    for (path, code) in [
        ("/v1/poll", "missing_field"),
        ("/v1/poll?topic=a&timeout=soon", "bad_field"),
        ("/v1/poll?topic=a&limit=0", "bad_field"),
        ("/v1/poll?topic=a&limit=1001", "bad_field"),
        ("/v1/poll?topic=a&since=1,2", "bad_position"),
        ("/v1/poll?topic=a&wait=1", "bad_field"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.json().await["error"]["code"], code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_answered_with_as_much_as_was_asked_for() {
    let server = Server::start().await;
    server.say(&topic("a"), 0..500).await;
    for (limit, expected) in [("", 100), ("&limit=300", 300), ("&limit=1000", 500)] {
        let path = format!("/v1/poll?topic=a&since=earliest{limit}");
        let polled = server.get(&path).await.json().await;
        assert_eq!(polled["events"].as_array().unwrap().len(), expected, "{limit}");
    }
}
