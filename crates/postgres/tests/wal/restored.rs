//! A database that is put back to an earlier time from a copy of its files, with a slot and a history
//! that stay: it is the same cluster by its name, and not the log that was delivered.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions, WalSource};

use super::{Rig, quick, table};
use crate::support::changes::{Seen, Witness, word};
use crate::support::moody::Moody;
use crate::support::{own_cluster, sql, target};

async fn begin(cluster: &PrivateCluster, history: &Arc<Moody>) -> Rig {
    let slot = SlotKind::Persistent { name: "kept".to_owned(), failover: false };
    let (publisher, witness) = Witness::with(Arc::clone(history) as _);
    let options = WalOptions { slot, ..quick() };
    let source = WalSource::start(target(cluster), publisher, options);
    Rig { source, witness, sql: sql(cluster).await }
}

fn copy(from: &PathBuf, to: &PathBuf) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// What is told once the database was put back and `rows` were written, `while_up` by a source that
/// lives through it. Ten rows were told that the copy has not.
async fn told(rows: u32, while_up: bool) -> Vec<String> {
    let mut cluster = own_cluster();
    let data = cluster.data_dir();
    let aside = data.with_extension("copy");
    let client = sql(&cluster).await;
    client.batch_execute("CREATE TABLE a (id int PRIMARY KEY)").await.unwrap();
    let (_mood, history) = Moody::new();
    let mut rig = begin(&cluster, &history).await;
    rig.add("public.a").await;
    rig.run("INSERT INTO a VALUES (0)").await;
    rig.caught_up().await;
    rig.source.shutdown().await;
    cluster.stop();
    copy(&data, &aside);
    cluster.resume().unwrap();
    // An ordinary restart: nothing is missing.
    let mut rig = begin(&cluster, &history).await;
    rig.add("public.a").await;
    for id in 1..=10 {
        rig.run(&format!("INSERT INTO a VALUES ({id})")).await;
    }
    let mut before = Vec::new();
    while before.len() < 10 {
        before.push(word(&rig.witness.next().await));
    }
    assert!(before.iter().all(|word| !word.ends_with("gap")), "{before:?}");
    if !while_up {
        rig.source.shutdown().await;
    }
    cluster.stop();
    copy(&aside, &data);
    cluster.resume().unwrap();
    let client = sql(&cluster).await;
    for id in 0..rows {
        client.batch_execute(&format!("INSERT INTO a VALUES ({})", 100 + id)).await.unwrap();
    }
    if !while_up {
        rig = begin(&cluster, &history).await;
    }
    rig.until("a stream", |source| source.status().connected).await;
    let mut seen = Vec::new();
    loop {
        match rig.witness.next().await {
            gap @ Seen::Gap(..) => {
                seen.push(word(&gap));
                break;
            }
            other => seen.push(word(&other)),
        }
    }
    rig.source.add(&table("public.a")).await.unwrap();
    client.batch_execute("INSERT INTO a VALUES (1000)").await.unwrap();
    while seen.last().unwrap() != "public.a 1000" {
        seen.push(word(&rig.witness.next().await));
    }
    rig.source.shutdown().await;
    std::fs::remove_dir_all(&aside).unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_database_that_was_put_back_is_a_gap_before_anything_newer() {
    for rows in [0, 2, 40] {
        for while_up in [false, true] {
            let told = told(rows, while_up).await;
            assert_eq!(told[0], "public.a gap", "{rows} {while_up}: {told:?}");
        }
    }
}
