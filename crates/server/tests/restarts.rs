//! The end of the program by force, by signal, and what survives it.

use std::collections::HashSet;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidewire_adapters::jwt::Mint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, Program, client, client_with, get, get_with, jwt, post, soon, until};

/// A secret for after the change.
const OTHER_SECRET: &str = "another secret for tests, long enough as well";

async fn say(address: std::net::SocketAddr, data: u64) -> String {
    let body = json!({ "topic": "kept", "data": data });
    let answer = post(address, "/v1/publish", &body).await.good().await;
    answer["position"].as_str().expect("a position").to_owned()
}

#[tokio::test]
async fn after_a_kill_clients_resume_and_are_told_that_history_is_gone() {
    let listen = |address: &str| vec!["--listen".to_owned(), address.to_owned()];
    let words = listen("127.0.0.1:0");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mut program, address) = Program::serve(&words, &[]).await;
    let mut hearer = client(address).await;
    hearer.subscribe(json!({ "topic": "kept" })).await;
    say(address, 1).await;
    let since = say(address, 2).await;
    assert_eq!(hearer.hear_type("event").await["data"], 1);

    program.signal(Signal::SIGKILL);
    program.ended().await;
    while hearer.try_hear().await.is_some() {}

    let words = listen(&address.to_string());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (_program, _) = Program::serve(&words, &[]).await;
    let mut hearer = client(address).await;
    let answer = hearer.subscribe(json!({ "topic": "kept", "since": since })).await;
    assert_eq!((&answer["outcome"], &answer["reason"]), (&json!("gap"), &json!("epoch_changed")));
    let headers = [("last-event-id", &*since)];
    let mut stream = get_with(address, "/v1/sse?topic=kept", &headers).await;
    assert_eq!(stream.named("subscribed").await.json()["reason"], "epoch_changed");
    let polled = get(address, &format!("/v1/poll?topic=kept&since={since}")).await.good().await;
    assert_eq!(polled["gap"]["reason"], "epoch_changed");

    // From there on nothing is missing.
    say(address, 3).await;
    assert_eq!(hearer.hear_type("event").await["data"], 3);
    assert_eq!(stream.message().await.json()["data"], 3);
    let cursor = polled["cursor"].as_str().expect("a cursor");
    let polled = get(address, &format!("/v1/poll?topic=kept&since={cursor}")).await.good().await;
    assert_eq!(polled["events"][0]["data"], 3);
}

#[tokio::test]
async fn a_killed_client_is_gone_from_presence_at_once() {
    let (_program, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
    let mut watcher = client(address).await;
    watcher.subscribe(json!({ "topic": "room", "presence": true })).await;
    let mut member = client(address).await;
    member.subscribe(json!({ "topic": "room" })).await;
    member.ask(json!({ "type": "track", "topic": "room", "key": "ann" })).await;
    assert_eq!(watcher.hear_type("presence").await["joins"][0]["key"], "ann");
    // What the kernel does for a process that is killed: the socket is closed, nothing is said.
    drop(member);
    assert_eq!(watcher.hear_type("presence").await["leaves"][0]["key"], "ann");
}

#[tokio::test]
async fn told_to_stop_it_sends_everyone_away_for_a_time_of_their_own() {
    let variables = [("TIDEWIRE_SHUTDOWN_SPREAD", "7s"), ("TIDEWIRE_LISTEN", "127.0.0.1:0")];
    let (mut program, address) = Program::serve(&["serve"], &variables).await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = client(address).await;
        client.subscribe(json!({ "topic": "room" })).await;
        clients.push(client);
    }
    let mut alle = client_with(address, "/alle", &[]).await.expect("an upgrade");
    let mut stream = get(address, "/v1/sse?topic=room").await;
    stream.named("subscribed").await;
    let poll = tokio::spawn(async move { get(address, "/v1/poll?topic=room").await });
    until("a poll that waits", async || {
        get(address, "/v1/stats").await.good().await["connections"] == 27
    })
    .await;

    program.signal(Signal::SIGTERM);
    let mut pauses = HashSet::new();
    for client in &mut clients {
        pauses.insert(sent_away(client).await);
    }
    assert!(pauses.iter().all(|pause| *pause <= 7), "{pauses:?}");
    assert!(pauses.len() > 2, "spread: {pauses:?}");
    let (_, code, reason) = alle.end().await;
    assert_eq!((code, &*reason), (4000, "restart"));
    let close = stream.named("close").await.json();
    assert_eq!(close["name"], "restart");
    let retry = stream.next_sse().await.and_then(|last| last.retry).expect("a pause");
    assert_eq!(json!(retry), json!(close["retry_after"].as_u64().expect("seconds") * 1_000));
    assert!(stream.next_sse().await.is_none(), "the stream ends");
    let polled = soon("the poll", poll).await.expect("an answer");
    assert!(polled.header("retry-after").parse::<u64>().is_ok_and(|pause| pause <= 7));
    assert_eq!(polled.good().await["events"], json!([]));

    assert_eq!(program.ended().await.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn told_to_stop_twice_it_ends_at_once_and_says_by_which_signal() {
    for (second, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let (mut program, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
        // A request that never comes whole keeps the first stop waiting.
        let mut request = TcpStream::connect(address).await.expect("a connection");
        let half = b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\
            content-type: application/json\r\nexpect: 100-continue\r\n\r\n";
        request.write_all(half).await.expect("it is read");
        // It says so when it waits for the rest.
        let mut go_on = [0; 12];
        soon("an answer", request.read_exact(&mut go_on)).await.expect("a line");
        assert_eq!(&go_on, b"HTTP/1.1 100");
        program.signal(Signal::SIGTERM);
        program.logged("stopping").await;
        program.signal(second);
        assert_eq!(program.ended().await.code(), Some(status));
    }
}

/// Reads to the end; the pause that the client is told.
async fn sent_away(client: &mut Client) -> u64 {
    let (last, code, reason) = client.end().await;
    assert_eq!((code, &*reason), (4000, "restart"));
    assert_eq!((&last["type"], &last["name"]), (&json!("close"), &json!("restart")));
    last["retry_after"].as_u64().expect("seconds")
}

#[tokio::test]
async fn a_hangup_reads_keys_and_limits_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, secret) = (folder.path().join("tidewire.toml"), folder.path().join("secret"));
    let write = |key: &str, subscriptions: u64| {
        std::fs::write(&secret, format!("{key}\n")).expect("a file");
        let text = format!(
            "listen = '127.0.0.1:0'\n[limits]\nsubscriptions = {subscriptions}\n\
             [auth.jwt]\nsecret_file = 'secret'\n"
        );
        std::fs::write(&file, text).expect("a file");
    };
    let named = |key| jwt(key, &Mint { subject: Some("ann".to_owned()), ..Mint::default() });
    let (old, new) = (named(crate::support::SECRET), named(OTHER_SECRET));

    write(crate::support::SECRET, 1);
    let config = file.to_str().expect("UTF-8");
    let (program, address) = Program::serve(&["--config", config], &[]).await;
    let path = format!("/v1/ws?token={old}");
    let mut client = client_with(address, &path, &[]).await.expect("an upgrade");
    client.subscribe(json!({ "topic": "one" })).await;
    let second = json!({ "type": "subscribe", "topic": "two" });
    assert_eq!(client.outcome(second.clone()).await, "too_many_subscriptions");
    assert_eq!(get(address, &format!("/v1/stats?token={new}")).await.status, 401);

    // A mistake changes nothing.
    std::fs::write(&file, "limts = 3\n").expect("a file");
    program.signal(Signal::SIGHUP);
    program.logged("configuration not changed").await;
    assert_eq!(get(address, &format!("/v1/stats?token={old}")).await.status, 200);

    write(OTHER_SECRET, 2);
    program.signal(Signal::SIGHUP);
    program.logged("configuration read again").await;
    assert_eq!(get(address, &format!("/v1/stats?token={new}")).await.status, 200);
    let (status, code) = get(address, &format!("/v1/stats?token={old}")).await.refused().await;
    assert_eq!((status, &*code), (401, "token_invalid"));
    // Who came by the old key goes.
    assert_eq!(client.end().await.1, 4502);
    let path = format!("/v1/ws?token={new}");
    let mut client = client_with(address, &path, &[]).await.expect("an upgrade");
    client.subscribe(json!({ "topic": "one" })).await;
    assert_eq!(client.outcome(second).await, "subscribed");
    let third: Value = json!({ "type": "subscribe", "topic": "three" });
    assert_eq!(client.outcome(third).await, "too_many_subscriptions");
}
