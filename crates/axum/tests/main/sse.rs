//! Server-Sent Events.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidewire::{Limits, Topic};
use tidewire_axum::Listening;
use tokio::net::TcpStream;

use crate::server::{Answer, Server, Settings, soon, topic, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_so_that_proxies_let_it_through() {
    let server = Server::start().await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), "text/event-stream");
    assert_eq!(stream.header("cache-control"), "no-cache, no-transform");
    assert_eq!(stream.header("x-accel-buffering"), "no");
    assert_eq!(stream.block().await, ":");
    assert_eq!(stream.block().await, "retry: 2000");
    assert!(stream.block().await.starts_with("id: "));
    assert_eq!(stream.sse().await.event.as_deref(), Some("welcome"));
    assert_eq!(stream.sse().await.event.as_deref(), Some("subscribed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_carries_its_position_and_last_event_id_resumes() {
    let server = Server::start().await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    stream.sse().await;
    let last = server.say(&topic("a"), [1, 2, 3]).await;
    let (_, first) = stream.number().await;
    stream.number().await;
    let (number, third) = stream.number().await;
    assert_eq!((number, third.id.unwrap()), (3, last.to_string()));
    drop(stream);

    let id = first.id.unwrap();
    let mut stream = server.get_with("/v1/sse?topic=a", &[("last-event-id", &id)]).await;
    assert_eq!(stream.number().await.0, 2);
    assert_eq!(stream.number().await.0, 3);
    // The header is newer than what the page once wrote into the address.
    let path = format!("/v1/sse?topic=a&since={id}");
    let last = last.to_string();
    let mut stream = server.get_with(&path, &[("last-event-id", &last)]).await;
    server.say(&topic("a"), [4]).await;
    assert_eq!(stream.number().await.0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_several_topics_resumes_each_where_it_was() {
    let server = Server::start().await;
    let (a, b) = (topic("a"), Topic::notify("b").unwrap());
    let path = "/v1/sse?topic=a&notify=b";
    let mut stream = server.get(path).await;
    stream.sse().await;
    server.say(&a, [1]).await;
    let (_, one) = stream.number().await;
    server.say(&b, [2]).await;
    let (_, two) = stream.number().await;
    assert_eq!(two.id.as_ref().unwrap().split(',').count(), 2);
    drop(stream);
    server.say(&a, [3]).await;
    server.say(&b, [4]).await;

    for (id, expected) in [(one.id.unwrap(), vec![2, 3, 4]), (two.id.unwrap(), vec![3, 4])] {
        let mut stream = server.get_with(path, &[("last-event-id", &id)]).await;
        let mut numbers = Vec::new();
        for _ in &expected {
            numbers.push(stream.number().await.0);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_of_another_life_is_told_as_a_gap() {
    let server = Server::start().await;
    server.say(&topic("a"), [1]).await;
    let mut stream = server.get("/v1/sse?topic=a&since=dead-1").await;
    stream.sse().await;
    let subscribed = stream.sse().await.json();
    assert_eq!(
        (&subscribed["outcome"], &subscribed["reason"]),
        (&"gap".into(), &"epoch_changed".into())
    );
}

/// The ids of a stream up to the news of as many gaps, and what was told with the last of them.
async fn ids_until_gaps(stream: &mut Answer, gaps: usize) -> Vec<String> {
    let (mut ids, mut found) = (Vec::new(), 0);
    while found < gaps {
        let block = stream.block().await;
        ids.extend(block.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned));
        let is_gap = |line: &str| line.starts_with("data: ") && line.contains("epoch_changed");
        found += block.lines().filter(|line| is_gap(line)).count();
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_names_a_place_behind_a_gap_that_was_not_told() {
    let server = Server::start().await;
    let known = server.say(&topic("b"), [1, 2]).await.before().to_string();
    server.say(&topic("a"), [1]).await;
    server.say(&Topic::notify("a").unwrap(), [1]).await;
    let several = format!("dead-7,{known}");
    for (path, id, gaps) in [
        ("/v1/sse?topic=a", "dead-7", 1),
        ("/v1/sse?topic=a&topic=b", &*several, 1),
        ("/v1/sse?topic=a&topic=b", "dead-7,beef-1", 2),
        ("/events?channels=a", "dead-7", 1),
        ("/events?channels=a,b", "dead-7,beef-1", 2),
        ("/v1/sse?table=public.t&snapshot=true", "dead-7", 1),
    ] {
        let mut stream = server.get_with(path, &[("last-event-id", id)]).await;
        let ids = ids_until_gaps(&mut stream, gaps).await;
        assert_eq!(ids[0], id, "{path}");
        // With each gap the cursor goes on, so that none is told for ever.
        let places: Vec<Vec<&str>> = ids.iter().map(|id| id.split(',').collect()).collect();
        let pending = |places: &Vec<&str>| {
            places.iter().filter(|place| ["dead-7", "beef-1"].contains(place)).count()
        };
        let pending: Vec<_> = places.iter().map(pending).collect();
        if !path.contains("snapshot") {
            assert_eq!(pending.last(), Some(&0), "{path}: {ids:?}");
        }
        assert!(pending.is_sorted_by(|one, next| one >= next), "{path}: {ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_of_another_format_is_a_gap_and_one_may_stand_in_the_query() {
    let server = Server::start().await;
    let first = server.say(&topic("a"), [1]).await;
    server.say(&topic("a"), [2]).await;
    for (path, id) in [
        ("/v1/sse?topic=a", "17"),
        ("/v1/sse?topic=a", "d\u{e9}j\u{e0}"),
        ("/v1/sse?topic=a&topic=b", "dead-7"),
        ("/events?channels=a", "2026-12-01T00:00:00Z"),
        ("/v1/sse?topic=a&lastEventId=17", ""),
        ("/v1/sse?topic=a&lastEventId=%0Adata:%20x", ""),
        ("/events?channels=a&lastEventId=17", ""),
    ] {
        let mut stream = server.get_with(path, &[("last-event-id", id)]).await;
        assert_eq!(stream.status, 200, "{path} {id}");
        assert_eq!(
            ids_until_gaps(&mut stream, 1).await[0].split(',').next(),
            Some("0-0"),
            "{path}"
        );
    }
    // The header is what the browser itself wrote, and the parameter newer than `since`.
    let query = format!("/v1/sse?topic=a&since=dead-1&lastEventId={first}");
    let mut stream = server.get(&query).await;
    assert_eq!(stream.number().await.0, 2);
    let headers = [("last-event-id", &*first.to_string())];
    let mut stream = server.get_with("/v1/sse?topic=a&lastEventId=dead-1", &headers).await;
    assert_eq!(stream.number().await.0, 2);
    assert_eq!(server.get("/v1/poll?topic=a&lastEventId=a-1").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_by_status_before_the_stream() {
    let server = Server::with(Settings { authentication: true, ..Settings::default() }).await;
    for (path, status, code) in [
        ("/v1/sse", 400, "missing_field"),
        ("/v1/sse?topic=", 400, "bad_topic"),
        ("/v1/sse?topic=a&since=x", 400, "bad_position"),
        ("/v1/sse?topic=a&sinse=x", 400, "bad_field"),
        ("/v1/sse?topic=%ff", 400, "bad_field"),
        ("/v1/sse?topic=a", 401, "unauthorized"),
        ("/v1/sse?topic=a&token=bad", 401, "token_invalid"),
        ("/v1/sse?table=public.t&token=good", 403, "forbidden"),
        ("/v1/none", 404, "not_found"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.json().await["error"]["code"], code, "{path}");
    }
    assert_eq!(server.get("/v1/sse?topic=a&access_token=good").await.status, 200);
    let answer = server.send(Method::POST, "/v1/sse", &[], "").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "GET,HEAD");
    assert_eq!(answer.json().await["error"]["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let ping_interval = Duration::from_secs(1);
    let limits = Limits { ping_interval, ..Limits::default() };
    let server = Server::with(Settings { limits, ..Settings::default() }).await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    while stream.block().await != ": keep-alive" {}
    while stream.block().await != ": keep-alive" {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_frees_its_session() {
    let server = Server::start().await;
    let stream = server.get("/v1/sse?topic=a").await;
    assert_eq!(server.sessions(), 1);
    drop(stream);
    until("no session", || server.sessions() == 0).await;
    assert_eq!(server.counted("closes", "normal"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_cut_off_in_the_end() {
    let write_timeout = Duration::from_millis(100);
    // A single topic has its socket to itself, several share an answer.
    for path in ["/v1/sse?topic=a", "/v1/sse?topic=a&topic=b"] {
        let limits = Limits { write_timeout, ..Limits::default() };
        let listening = Listening { write_timeout, ..Listening::default() };
        let server = Server::with(Settings { limits, listening, ..Settings::default() }).await;
        let stream = server.get(path).await;
        assert_eq!(server.sessions(), 1);
        let fill = async {
            while server.sessions() > 0 {
                server.say(&topic("a"), 0..1_000).await;
            }
        };
        soon("the end of the session", fill).await;
        drop(stream);
        assert_eq!(server.counted("closes", "slow_consumer"), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_still_gets_everything_that_history_keeps() {
    let server = Server::start().await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    stream.sse().await;
    for batch in 0..10 {
        server.say(&topic("a"), batch * 100..(batch + 1) * 100).await;
    }
    for number in 0..1_000 {
        assert_eq!(stream.number().await.0, number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_one_http2_connection() {
    let server = Server::start().await;
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    let mut streams = Vec::new();
    for index in 0..20 {
        let uri = format!("http://{}/v1/sse?topic=t{index}", server.addr);
        let request = Request::get(uri).body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = soon("an answer", sender.send_request(request)).await.unwrap();
        assert_eq!((answer.status(), answer.version()), (200.into_status(), http::Version::HTTP_2));
        streams.push(answer.into_body());
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        server.say(&topic(&format!("t{index}")), [index as u32]).await;
        let mut text = String::new();
        let wanted = format!("\"data\":{index}");
        while !text.contains(&wanted) {
            let frame = soon("an event", stream.frame()).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
    drop(streams);
    until("no session", || server.sessions() == 0).await;
    task.abort();
}

trait IntoStatus {
    fn into_status(self) -> http::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> http::StatusCode {
        http::StatusCode::from_u16(self).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_goodbye_of_its_dialect() {
    let server = Server::start().await;
    let mut stream = server.get("/v1/sse?topic=a").await;
    stream.sse().await;
    let (node, grace) = (server.node.clone(), Duration::from_secs(5));
    let down = tokio::spawn(async move { node.shutdown(grace, grace).await });
    loop {
        let event = stream.sse().await;
        if event.event.as_deref() == Some("close") {
            assert_eq!(event.json()["name"], "restart");
            break;
        }
    }
    let rest = stream.rest().await;
    assert!(rest.starts_with("retry: ") && rest.ends_with("0\n\n"), "{rest}");
    soon("the node", down).await.unwrap();
}
