//! Partitions that came after the triggers, or had some of their own.

use std::sync::Arc;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{OutboxOptions, OutboxSource};

use super::{Rig, Source};
use crate::support::changes::Witness;
use crate::support::moody::Moody;
use crate::support::{cluster, newer_cluster, own_cluster, until};

const SETUP: &str = "
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE p_2a PARTITION OF p_2 FOR VALUES FROM (10) TO (20)";

/// What is told of a table of one column, in short.
fn short(told: &str) -> String {
    let id = told.split("\"id\": \"").nth(1).and_then(|rest| rest.split('"').next());
    let word = told.split(' ').next().unwrap();
    format!("{word}{}", id.unwrap_or_default())
}

impl Rig {
    async fn shortly(&mut self) -> Vec<String> {
        self.told().await.iter().map(|told| short(told)).collect()
    }

    /// Partitions without a trigger for TRUNCATE.
    async fn bare(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_partition_tree('p') t WHERE t.isleaf AND NOT EXISTS (
                   SELECT FROM pg_trigger g WHERE g.tgrelid = t.relid AND g.tgtype = 32)";
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }
}

async fn later(cluster: &PrivateCluster) {
    let mut rig = Rig::new(cluster, "outbox", "later", SETUP).await;
    rig.source.add("public.p").await.unwrap();
    rig.told().await;
    assert_eq!(rig.bare().await, 0);
    rig.run("CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM (20) TO (30)").await;
    rig.run("INSERT INTO p VALUES (21), (11)").await;
    until("a trigger on the new partition", async || rig.bare().await == 0).await;
    rig.run("TRUNCATE p_3").await;
    rig.run("INSERT INTO p VALUES (22)").await;
    assert_eq!(rig.shortly().await, ["INSERT21", "INSERT11", "gap", "INSERT22"]);
    rig.run("TRUNCATE p").await;
    rig.run("VACUUM FULL p_1").await;
    assert_eq!(rig.shortly().await, ["TRUNCATE"]);
    // Before anybody has seen it.
    rig.run(
        "CREATE TABLE p_4 PARTITION OF p FOR VALUES FROM (30) TO (40);
         INSERT INTO p VALUES (31)",
    )
    .await;
    rig.run("SELECT disable_realtime('p')").await;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(rig.client.query_one(triggers, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_comes_later_is_told_of_when_it_is_truncated() {
    later(&cluster()).await;
    if let Some(cluster) = newer_cluster() {
        later(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_followed_by_itself_is_not_told_twice_once_it_is_a_partition() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, "outbox", "twice", SETUP).await;
    rig.run("CREATE TABLE p_3 (id int PRIMARY KEY)").await;
    rig.source.add("public.p_3").await.unwrap();
    rig.run("INSERT INTO p_3 VALUES (21)").await;
    assert_eq!(rig.shortly().await, ["gap", "INSERT21"]);
    rig.run("ALTER TABLE p ATTACH PARTITION p_3 FOR VALUES FROM (20) TO (30)").await;
    rig.source.add("public.p").await.unwrap();
    rig.told().await;
    rig.run("INSERT INTO p VALUES (22); INSERT INTO p_3 VALUES (23)").await;
    assert_eq!(rig.shortly().await, ["INSERT22", "INSERT23"]);
}

/// What is told after a restart of what happened before it.
async fn after(rig: &mut Rig, history: &Arc<Moody>, meanwhile: &[&str]) -> Vec<String> {
    let Source::Outbox(source) = &rig.source else { unreachable!("it is the outbox") };
    source.shutdown().await;
    for statement in meanwhile {
        rig.run(statement).await;
    }
    let (publisher, witness) = Witness::with(Arc::clone(history) as _);
    let options = OutboxOptions::default();
    let source = OutboxSource::start(rig.target.clone(), publisher, options);
    (rig.source, rig.witness) = (Source::Outbox(source), witness);
    rig.source.add("public.p").await.unwrap();
    // A round that began later is behind the gap that the first look may bring.
    rig.source.catch_up().await;
    rig.shortly().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_to_partitions_while_no_server_read_is_noticed() {
    let cluster = own_cluster();
    let mut rig = Rig::new(&cluster, "outbox", "absent", SETUP).await;
    let (_mood, history) = Moody::new();
    assert_eq!(after(&mut rig, &history, &[]).await, ["gap"]);
    assert_eq!(after(&mut rig, &history, &[]).await, [""; 0]);
    let meanwhile = ["INSERT INTO p VALUES (1)", "TRUNCATE p_1", "INSERT INTO p VALUES (2)"];
    assert_eq!(after(&mut rig, &history, &meanwhile).await, ["INSERT1", "gap", "INSERT2"]);
    let meanwhile = ["CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM (20) TO (30)"];
    assert_eq!(after(&mut rig, &history, &meanwhile).await, [""; 0]);
    let meanwhile = ["INSERT INTO p VALUES (3)", "ALTER TABLE p DETACH PARTITION p_2"];
    assert_eq!(after(&mut rig, &history, &meanwhile).await, ["INSERT3", "gap"]);
    assert_eq!(after(&mut rig, &history, &[]).await, [""; 0]);
}
