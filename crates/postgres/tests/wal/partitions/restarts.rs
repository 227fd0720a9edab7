//! What happens to partitions while no server runs, with a slot and a history that stay.

use std::sync::Arc;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions, WalSource};

use super::{looked, short};
use crate::support::changes::Witness;
use crate::support::moody::Moody;
use crate::support::{newer_cluster, own_cluster, sql, target};
use crate::wal::{Rig, quick, table};

const SETUP: &str = "
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (10) TO (15);
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);
INSERT INTO parts VALUES (1), (11), (21)";

/// What is told after a restart of what happened before it, and of an insert after it.
async fn after(cluster: &PrivateCluster, history: &Arc<Moody>, meanwhile: &str) -> Vec<String> {
    let sql = sql(cluster).await;
    // Alone, as the database would do it for a person.
    for statement in meanwhile.split("; ").filter(|statement| !statement.is_empty()) {
        sql.batch_execute(statement).await.unwrap();
    }
    let mut rig = begin(cluster, history).await;
    rig.until("a stream", |source| source.status().connected).await;
    rig.add("public.parts").await;
    looked(&rig).await;
    let told = short(rig.caught_up().await);
    rig.source.shutdown().await;
    told
}

async fn begin(cluster: &PrivateCluster, history: &Arc<Moody>) -> Rig {
    let slot = SlotKind::Persistent { name: "parted".to_owned(), failover: false };
    let (publisher, witness) = Witness::with(Arc::clone(history) as _);
    let options = WalOptions { slot, ..quick() };
    let source = WalSource::start(target(cluster), publisher, options);
    Rig { source, witness, sql: sql(cluster).await }
}

async fn restart(cluster: &PrivateCluster) {
    sql(cluster).await.batch_execute(SETUP).await.unwrap();
    let (_mood, history) = Moody::new();
    let mut rig = begin(cluster, &history).await;
    rig.source.add(&table("public.parts")).await.unwrap();
    assert_eq!(short(rig.caught_up().await), ["gap"]);
    rig.source.shutdown().await;
    for (meanwhile, expected) in [
        ("", vec![]),
        ("INSERT INTO parts VALUES (2)", vec!["INSERT2"]),
        (
            "INSERT INTO parts VALUES (12); TRUNCATE parts_2a; INSERT INTO parts VALUES (13)",
            vec!["INSERT12", "gap", "INSERT13"],
        ),
        ("TRUNCATE parts; INSERT INTO parts VALUES (22)", vec!["TRUNCATE", "INSERT22"]),
        ("VACUUM FULL parts_1", vec![]),
        (
            "CREATE TABLE parts_4 PARTITION OF parts FOR VALUES FROM (30) TO (40); \
             INSERT INTO parts VALUES (31)",
            vec!["INSERT31"],
        ),
        // What was written to it before it went is told, as its table's, and before the gap.
        (
            "INSERT INTO parts VALUES (23); ALTER TABLE parts DETACH PARTITION parts_3; \
             INSERT INTO parts VALUES (5)",
            vec!["INSERT23", "INSERT5", "gap"],
        ),
        ("ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30)", vec!["gap"]),
        ("", vec![]),
        ("DROP TABLE parts_3", vec!["gap"]),
        ("DELETE FROM parts WHERE id = 5", vec!["DELETE5"]),
    ] {
        assert_eq!(after(cluster, &history, meanwhile).await, expected, "{meanwhile}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_happened_to_partitions_while_no_server_ran_is_noticed() {
    restart(&own_cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_happened_to_partitions_of_a_newer_postgresql_is_noticed() {
    if let Some(cluster) = newer_cluster() {
        restart(&cluster).await;
    }
}
