//! `tidewire sql`, `tables` and `doctor` as people type them.

use serde_json::Value;

use crate::support::{database, run_program};

/// What a command prints, and whether it went well.
async fn run(words: &[&str], url: &str) -> (String, bool) {
    let output = run_program(words, &[("TIDEWIRE_POSTGRES_URL", url)]).await;
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (printed + &said, output.status.success())
}

#[tokio::test]
async fn the_sql_is_installed_listed_checked_and_removed() {
    let mut database = database().await;
    database.sql("CREATE DATABASE database_commands").await;
    let url = database.url();
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let url = format!("{server}/database_commands");
    let (printed, good) = run(&["sql", "print", "--schema", "app"], "").await;
    assert!(good && printed.contains("\"app\".enable_realtime"), "{printed}");
    for _ in 0..2 {
        let (printed, good) = run(&["sql", "install"], &url).await;
        assert!(good && printed.contains("version 3 is installed"), "{printed}");
    }
    let (printed, good) = run(&["doctor", "--json"], &url).await;
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert!(good && report["outcome"] == "ok", "{printed}");
    let keys = [("TIDEWIRE_POSTGRES_URL", url.as_str()), ("TIDEWIRE_WAL_SLOT", "commands_eyes")];
    let output = run_program(&["doctor"], &keys).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("commands_eyes is not there yet"), "{printed}");
    let (printed, good) = run(&["tables"], &url).await;
    assert!(good && printed.contains("there are no tables"), "{printed}");
    let (printed, good) = run(&["sql", "uninstall"], &url).await;
    assert!(good && printed.contains("nothing of Tidewire is left"), "{printed}");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_a_failure_with_advice() {
    let nowhere = "postgresql://app:hidden@127.0.0.1:1/none";
    let (printed, good) = run(&["doctor"], nowhere).await;
    assert!(!good && printed.starts_with("fail  connection"), "{printed}");
    assert!(!printed.contains("hidden"), "{printed}");
    let (printed, good) = run(&["sql", "install"], nowhere).await;
    assert!(!good && printed.contains("127.0.0.1:1"), "{printed}");
    let (printed, good) = run(&["tables"], "").await;
    assert!(!good && printed.contains("--postgres-url"), "{printed}");
}
