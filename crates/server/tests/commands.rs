//! The program's commands as people type them.

use std::time::Duration;

use futures_util::SinkExt as _;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Program, SECRET, client_with, database, get, get_with, post, post_with, run_program, soon,
    until,
};

#[tokio::test]
async fn alone_it_serves_with_what_the_environment_says() {
    let mut database = database().await;
    let url = database.url();
    // Alle's names.
    let variables = [
        ("POSTGRES_URL", &*url),
        ("WS_BIND_ADDR", "127.0.0.1:0"),
        ("LISTEN_CHANNELS", "greetings,others"),
    ];
    let (program, address) = Program::serve(&[], &variables).await;
    until("a ready server", async || get(address, "/ready").await.status == 200).await;
    database.notify("greetings", "hello").await;
    until("a notification in the history", async || {
        let page = get(address, "/v1/history?notify=greetings").await.good().await;
        page["events"][0]["data"] == "hello"
    })
    .await;
    drop(program);

    let variables = [("TIDEWIRE_LISTEN", "127.0.0.1:0"), ("TIDEWIRE_LOG_FORMAT", "json")];
    let program = Program::start(&["serve", "-p", &url, "-l", "info"], &variables);
    let line = program.logged("\"serving\"").await;
    let line: Value = serde_json::from_str(&line).expect("a log of JSON");
    let address = line["address"].as_str().expect("an address").parse().expect("an address");
    until("a ready server", async || get(address, "/ready").await.status == 200).await;
}

#[tokio::test]
async fn it_refuses_to_serve_everybody_and_says_what_to_do() {
    let refused = run_program(&["-w", "0.0.0.0:0"], &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).expect("UTF-8");
    for part in ["0.0.0.0:0", "TIDEWIRE_JWT_SECRET", "--insecure"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let (_program, _) = Program::serve(&["-w", "0.0.0.0:0", "--insecure"], &[]).await;
    let secret = [("TIDEWIRE_JWT_SECRET", SECRET)];
    let (_program, _) = Program::serve(&["-w", "0.0.0.0:0"], &secret).await;
}

#[tokio::test]
async fn mistakes_in_the_environment_are_named() {
    for (name, value, part) in [
        ("TIDEWIRE_LISTN", "127.0.0.1:0", "TIDEWIRE_LISTEN"),
        ("TIDEWIRE_LIMITS_BURST", "many", "TIDEWIRE_LIMITS_BURST"),
        ("POSTGRES_URL", "mysql://localhost", "POSTGRES_URL"),
    ] {
        let refused = run_program(&["config"], &[(name, value)]).await;
        let message = String::from_utf8(refused.stderr).expect("UTF-8");
        assert!(!refused.status.success() && message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn listen_prints_what_is_said_and_publish_says_it() {
    let mut database = database().await;
    let url = database.url();
    let (_server, address) = Program::serve(&["-w", "127.0.0.1:0", "-p", &url], &[]).await;
    until("a ready server", async || get(address, "/ready").await.status == 200).await;
    let server = format!("http://{address}");
    let around = [("TIDEWIRE_SERVER", &*server)];

    let plain = Program::start(&["listen", "orders", "Alerts"], &around);
    let json = Program::start(&["listen", "orders", "--json", "--server", &server], &[]);
    let direct_url = format!("{url}?application_name=direct");
    let direct = Program::start(&["listen", "orders", "-p", &direct_url], &[]);
    // Four subscriptions, one of them in the database: said again until each is there.
    let publish = async |words: &[&str]| {
        let said = run_program(&[&["publish"], words].concat(), &around).await;
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    };
    until("everybody listens", async || {
        publish(&["orders", "ready?"]).await;
        publish(&["Alerts", "ready?"]).await;
        let plain = plain.all_printed();
        let both = ["orders\tready?", "Alerts\tready?"];
        both.iter().all(|line| plain.iter().any(|printed| printed == line))
            && !json.all_printed().is_empty()
            && !direct.all_printed().is_empty()
    })
    .await;

    publish(&["orders", "two\nlines"]).await;
    plain.printed("orders\ttwo\\nlines").await;
    direct.printed("orders\ttwo\\nlines").await;
    let line = json.printed("lines").await;
    let event: Value = serde_json::from_str(&line).expect("one object for each line");
    assert_eq!((&event["notify"], &event["data"]), (&json!("orders"), &json!("two\nlines")));

    let said = run_program(&["publish", "orders", "straight", "-p", &url], &[]).await;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    for listener in [&plain, &json, &direct] {
        listener.printed("straight").await;
    }

    // A lost connection is told, and then it goes on.
    database
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'direct'",
        )
        .await;
    direct.logged("events of orders are missing here").await;
    publish(&["orders", "afterwards"]).await;
    direct.printed("orders\tafterwards").await;
}

#[tokio::test]
async fn what_cannot_be_said_or_heard_is_told_and_fails() {
    let (_server, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
    let server = format!("http://{address}");
    for (words, part) in [
        (vec!["listen", "c", "--server", &*server], "PostgreSQL"),
        (vec!["publish", "c", "x", "--server", &*server], "PostgreSQL"),
        (vec!["listen", "c", "--server", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (vec!["listen", "c", "-p", "postgresql://127.0.0.1:1/x?user=x"], "127.0.0.1:1"),
        (vec!["publish", "c", "x", "-p", "postgresql://127.0.0.1:1/x?user=x"], "127.0.0.1:1"),
        (vec!["publish", "c", "x", "--server", "nonsense"], "http://"),
        (vec!["token"], "TIDEWIRE_JWT_SECRET"),
    ] {
        let refused = run_program(&words, &[]).await;
        let message = String::from_utf8(refused.stderr).expect("UTF-8");
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {message}");
        assert!(message.contains(part), "{words:?}: {message}");
    }
}

#[tokio::test]
async fn listen_goes_on_where_it_was_after_the_server_restarts() {
    let (first, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
    let server = format!("http://{address}");
    let words = ["listen", "room", "--topic", "--server", &server];
    let listener = Program::start(&words, &[]);
    until("a listener", async || {
        get(address, "/v1/stats").await.good().await["subscriptions"] == 1
    })
    .await;
    post(address, "/v1/publish", &json!({ "topic": "room", "data": 1 })).await.good().await;
    listener.printed("room\t1").await;

    first.signal(Signal::SIGKILL);
    drop(first);
    listener.logged("connecting again").await;
    let (_second, _) = Program::serve(&["-w", &address.to_string()], &[]).await;
    listener.logged("events of room are missing here").await;
    post(address, "/v1/publish", &json!({ "topic": "room", "data": { "a": 2 } }))
        .await
        .good()
        .await;
    listener.printed("room\t{\"a\":2}").await;
    assert_eq!(listener.all_printed().len(), 2);

    // From a place, without a restart: what came after it.
    let path = "/v1/history?topic=room&after=earliest";
    let page = get(address, path).await.good().await;
    let since = page["after"].as_str().expect("a cursor").to_owned();
    post(address, "/v1/publish", &json!({ "topic": "room", "data": 3 })).await.good().await;
    let words = ["listen", "room", "--topic", "--json", "--since", &since, "--server", &server];
    let line = Program::start(&words, &[]).printed("\"event\"").await;
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["data"], 3);
}

#[tokio::test]
async fn listen_takes_every_name_there_can_be() {
    let mut database = database().await;
    let url = database.url();
    let (_server, address) = Program::serve(&["-w", "127.0.0.1:0", "-p", &url], &[]).await;
    until("a ready server", async || get(address, "/ready").await.status == 200).await;
    let server = format!("http://{address}");
    let (long, quotes) = ("c".repeat(63), "\"".repeat(63));
    let topic = "t".repeat(255);
    let channels = Program::start(&["listen", &long, &quotes, "--server", &server], &[]);
    let topics = Program::start(&["listen", &topic, "--topic", "--server", &server], &[]);
    until("three subscriptions", async || {
        get(address, "/v1/stats").await.good().await["subscriptions"] == 3
    })
    .await;
    database.notify(&long, "a").await;
    channels.printed(&format!("{long}\ta")).await;
    let body = json!({ "notify": quotes, "data": "\u{1b}[2J" });
    post(address, "/v1/publish", &body).await.good().await;
    channels.printed(&format!("{quotes}\t\\u001b[2J")).await;
    post(address, "/v1/publish", &json!({ "topic": topic, "data": 1 })).await.good().await;
    topics.printed(&format!("{topic}\t1")).await;
}

#[tokio::test]
async fn listen_tells_a_refusal_in_the_words_of_the_server() {
    let (_server, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
    let server = format!("http://{address}");
    let words = ["listen", "room", "--topic", "--since", "zz", "--server", &server];
    let refused = run_program(&words, &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(message.contains("such as \"4f1c-17\""), "{message}");
}

#[tokio::test]
async fn listen_comes_back_no_sooner_than_it_is_asked_to() {
    let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = door.local_addr().expect("an address");
    let server = format!("http://{address}");
    let listener = Program::start(&["listen", "room", "--topic", "--server", &server], &[]);
    let (stream, _) = soon("the listener", door.accept()).await.expect("a connection");
    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
    let close = json!({
        "type": "close", "code": 4000, "name": "restart", "message": "the server restarts",
        "retry": true, "retry_after": 2,
    });
    for frame in [json!({ "type": "welcome" }), close] {
        socket.send(Message::text(frame.to_string())).await.expect("it is read");
    }
    let sent_away = Instant::now();
    listener.logged("the server restarts; connecting again in 2s").await;
    // Then it tries until somebody is there.
    let (stream, _) = soon("the listener", door.accept()).await.expect("a connection");
    assert!(sent_away.elapsed() >= Duration::from_secs(2), "{:?}", sent_away.elapsed());
    drop((door, socket, stream));
    listener.logged("connecting to http").await;
    let (_server, _) = Program::serve(&["-w", &address.to_string()], &[]).await;
    until("a listener", async || {
        get(address, "/v1/stats").await.good().await["subscriptions"] == 1
    })
    .await;
}

#[tokio::test]
async fn a_made_token_and_a_made_key_are_good() {
    let secret = [("TIDEWIRE_JWT_SECRET", SECRET)];
    let words = ["token", "--subject", "ann", "--subscribe", "private:vault", "--publish", "x"];
    let made = run_program(&words, &secret).await;
    let token = String::from_utf8(made.stdout).expect("UTF-8").trim().to_owned();
    let made = run_program(&["key", "new", "--name", "importer"], &[]).await;
    let text = String::from_utf8(made.stdout).expect("UTF-8");
    let words: Vec<&str> = text.split(['"', ' ', '\n']).collect();
    let key = words.iter().find(|word| word.starts_with("twk_")).expect("a key");
    let hash = words.iter().find(|word| word.starts_with("sha256:")).expect("a hash");

    let keys = format!(r#"[{{"name":"importer","hash":"{hash}"}}]"#);
    let variables = [secret[0], ("TIDEWIRE_LISTEN", "127.0.0.1:0"), ("TIDEWIRE_AUTH_KEYS", &*keys)];
    let (_program, address) = Program::serve(&[], &variables).await;
    let mut client = client_with(address, &format!("/v1/ws?token={token}"), &[]).await.expect("in");
    assert_eq!(client.hear().await["subject"], "ann");
    client.subscribe(json!({ "topic": "vault", "private": true })).await;
    let body = json!({ "topic": "room", "data": 1 });
    let bearer = format!("Bearer {key}");
    let header = [("authorization", &*bearer)];
    post_with(address, "/v1/publish", &header, &body).await.good().await;
    let seen = get_with(address, "/v1/stats", &header).await;
    assert_eq!(seen.status, 200);

    let server = format!("http://{address}");
    let words = ["publish", "room", "2", "--topic", "--server", &server];
    let refused = run_program(&words, &[]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("token"), "{refused:?}");
    let said = run_program(&words, &[("TIDEWIRE_TOKEN", &*token)]).await;
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test]
async fn dev_shows_rows_of_a_table_and_their_changes_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("dev").display().to_string();
    let words = ["dev", "--dir", &folder, "--listen", "127.0.0.1:0"];
    let mut dev = Program::start(&words, &[]);
    let line = dev.printed("/v1/sse?table=public.orders&snapshot=true").await;
    let (_, line) = line.split_once("http://").expect("an address");
    let (address, _) = line.split_once('/').expect("a path");
    let server = format!("http://{address}");

    let words = ["listen", "--table", "public.orders", "--snapshot", "--server", &server];
    let rows = Program::start(&words, &[]);
    let filter = ["--filter", "state=eq.delivered", "--json"];
    let delivered = Program::start(&[&words[..], &filter].concat(), &[]);
    let channel = Program::start(&["listen", "orders", "--server", &server], &[]);
    for change in ["public.orders\tROW\t{", "public.orders\tINSERT\t{", "public.orders\tUPDATE\t{"]
    {
        rows.printed(change).await;
    }
    channel.printed("orders\t{\"order\" : ").await;
    delivered.printed("\"rows\"").await;
    // What the pages of the documentation say to run in SQL is there.
    let address = address.parse().expect("an address");
    until("a ready server", async || get(address, "/ready").await.status == 200).await;
    let url = dev.printed("psql 'postgresql://").await;
    let (_, url) = url.split_once('\'').expect("a quote");
    let url = url.split_once('\'').expect("a quote").0;
    let report = run_program(&["doctor", "--json", "-p", url], &[]).await;
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(text.contains("outbox") && report.status.success(), "{text}");
    dev.signal(Signal::SIGTERM);
    assert!(dev.ended().await.success());
}

#[tokio::test]
async fn the_first_line_of_the_log_says_what_is_started() {
    let variables =
        [("TIDEWIRE_JWT_SECRET", SECRET), ("POSTGRES_URL", "postgresql://u:pw@[::1]:1/x")];
    let (program, _) = Program::serve(&["-w", "127.0.0.1:0"], &variables).await;
    let line = program.first_logged().await;
    for part in [
        "starting tidewire",
        &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        "/x\"",
        "tables=\"auto\"",
        "authentication=\"jwt\"",
        "history=\"memory, 256 MiB\"",
        "connections=100000",
        "open_files=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("pw@"), "{line}");
}

#[tokio::test]
async fn a_soft_limit_on_open_files_is_raised_and_a_hard_one_is_warned_of() {
    let program = Program::start_with_open_files(256, 900, &["-w", "127.0.0.1:0"]);
    let warning = program.logged("limits.connections is 100000").await;
    assert!(warning.contains("WARN") && warning.contains("may open 900 files"), "{warning}");
    assert!(program.logged("starting tidewire").await.contains("open_files=900"));
    let line = program.logged("serving address=").await;
    let (_, address) = line.split_once("address=").expect("the line names the address");
    let address = address.trim().parse().expect("an address");
    let metrics = get(address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_open_files_limit 900\n"), "{metrics}");
    // More clients than the soft limit would have let in.
    let mut clients = Vec::new();
    for number in 0..300 {
        let client = client_with(address, "/v1/ws", &[]).await;
        clients.push(client.unwrap_or_else(|_| panic!("client {number} is let in")));
    }
}

#[tokio::test]
async fn listen_says_once_what_is_wrong_and_what_a_name_is_taken_for() {
    let refused = run_program(&["listen", "public.orders", "--server", "http://127.0.0.1:1"], &[]);
    let message = String::from_utf8(refused.await.stderr).expect("UTF-8");
    assert!(
        message.contains("NOTIFY channel public.orders; for a table, add --table"),
        "{message}"
    );
    assert_eq!(message.matches("refused").count(), 1, "{message}");
}
