//! The history on disk as clients and operators of a server meet it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Answer, Program, Server, get, post, post_with, until};

const PATH: &str = "/v1/publish";

/// A server with its history in a folder.
async fn server(folder: &Path, keys: &[(&'static str, &str)]) -> Server {
    let path = folder.join("history").display().to_string();
    let mut all = vec![("history.store", "disk"), ("history.path", &*path)];
    all.extend_from_slice(keys);
    Server::start(&all).await
}

#[tokio::test]
async fn a_publication_that_is_repeated_with_its_key_after_a_kill_is_published_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history").display().to_string();
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_HISTORY_STORE", "disk"),
        ("TIDEWIRE_HISTORY_PATH", &*path),
        // What is published goes at once, and the keys stay.
        ("TIDEWIRE_HISTORY_EVENTS", "1"),
    ];
    let publish = |address, key: &'static str, data: Value| async move {
        let body = json!({ "topic": "paid", "data": data });
        post_with(address, PATH, &[("idempotency-key", key)], &body).await
    };
    let (mut program, address) = Program::serve(&[], &variables).await;
    let first = publish(address, "order-1", json!(1)).await.good().await;
    let second = publish(address, "order-2", json!(2)).await.good().await;
    let batch = json!([{ "topic": "paid", "data": 3 }, { "topic": "paid", "data": 4 }]);
    let headers = [("idempotency-key", "batch")];
    let third = post_with(address, PATH, &headers, &batch).await.good().await;
    program.signal(Signal::SIGKILL);
    program.ended().await;

    let (_program, address) = Program::serve(&[], &variables).await;
    assert_eq!(publish(address, "order-1", json!(1)).await.good().await, first);
    assert_eq!(publish(address, "order-2", json!(2)).await.good().await, second);
    assert_eq!(post_with(address, PATH, &headers, &batch).await.good().await, third);
    let reused = publish(address, "order-1", json!("other")).await.refused().await;
    assert_eq!(reused, (409, "key_reused".to_owned()));
    let page = get(address, "/v1/history?topic=paid").await.good().await;
    assert_eq!(page["events"][0]["data"], 4, "nothing was published again");
}

#[tokio::test]
async fn files_that_were_deleted_under_the_server_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path(), &[]).await;
    let body = json!({ "topic": "a", "data": 1 });
    post(server.address, PATH, &body).await.good().await;
    let ready = get(server.address, "/ready").await.good().await;
    assert_eq!(ready["parts"]["history"], json!({ "ready": true, "failure": null, "error": null }));

    std::fs::remove_dir_all(folder.path().join("history")).expect("it is deleted");
    let refused = post(server.address, PATH, &body).await.refused().await;
    assert_eq!(refused, (503, "unavailable".to_owned()));
    let part = async |answer: Answer| answer.json().await["parts"]["history"].clone();
    let history = part(get(server.address, "/ready").await).await;
    assert_eq!((&history["ready"], &history["failure"]), (&json!(false), &json!("not_writable")));
    assert!(history["error"].as_str().expect("a reason").contains("were deleted"), "{history}");
}

#[tokio::test]
async fn files_that_were_deleted_are_noticed_although_nothing_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path(), &[]).await;
    std::fs::remove_dir_all(folder.path().join("history")).expect("it is deleted");
    until("a server that is not ready", async || get(server.address, "/ready").await.status == 503)
        .await;
}

#[tokio::test]
async fn topics_that_are_refused_are_counted_and_named_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(folder.path(), &[("history.topics", "20")]).await;
    for number in 0..25 {
        let body = json!({ "topic": format!("t{number}"), "data": 1 });
        let answer = post(server.address, PATH, &body).await;
        match number < 20 {
            true => drop(answer.good().await),
            false => {
                assert_eq!(answer.refused().await, (503, "too_many_topics".to_owned()));
            }
        }
    }
    let page = get(server.address, "/v1/history?topic=another").await.refused().await;
    assert_eq!(page, (503, "too_many_topics".to_owned()));
    let metrics = get(server.address, "/metrics").await.rest().await;
    assert!(metrics.contains("tidewire_topics_refused_total 6\n"), "{metrics}");
}

#[tokio::test]
async fn nobody_else_may_read_what_is_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its rights");
    let _server = server(folder.path(), &[]).await;
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode(&path) & 0o777, 0o700);
    let files: Vec<_> = std::fs::read_dir(&path).expect("files").collect();
    assert!(files.len() >= 3);
    for file in files {
        let file = file.expect("a file").path();
        assert_eq!(mode(&file) & 0o777, 0o600, "{}", file.display());
    }
}
