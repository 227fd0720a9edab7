//! Partitions: whose changes are told, and what the stream does not tell of them.

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_protocol::{Code, GapReason};

use super::basics::changes;
use super::{Rig, table};
use crate::support::changes::Seen;
use crate::support::cluster;

fn lost(name: &str) -> Seen {
    Seen::Gap(name.to_owned(), GapReason::ConnectionLost)
}

/// Waits until the keeper has begun a look at the database and ended it.
async fn looked(rig: &Rig) {
    for _ in 0..2 {
        let before = rig.source.slot().age;
        rig.until("a look", |source| source.slot().age > before).await;
    }
}

/// A table of partitions that are of two levels, with a row in each, listened to.
async fn parted(cluster: &PrivateCluster, name: &str) -> Rig {
    let setup = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (10);
         CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM (10) TO (20)
             PARTITION BY RANGE (id);
         CREATE TABLE {name}_2a PARTITION OF {name}_2 FOR VALUES FROM (10) TO (15);
         INSERT INTO {name} VALUES (1), (11)"
    );
    let mut rig = Rig::new(cluster, &setup).await;
    rig.add(&format!("public.{name}")).await;
    looked(&rig).await;
    rig.caught_up().await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_is_refused_with_the_table_that_tells_its_changes() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "refused").await;
    for part in ["public.refused_1", "public.refused_2", "public.refused_2a"] {
        let refused = rig.source.add(&table(part)).await.unwrap_err();
        assert_eq!(refused.code, Code::BadTopic);
        let expected =
            format!("{part} is a partition: its changes are told as those of public.refused");
        assert_eq!(refused.message, expected);
    }
    rig.run("INSERT INTO refused VALUES (2)").await;
    assert_eq!(changes(rig.caught_up().await).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_truncated_alone_is_a_gap_of_its_table() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "emptied").await;
    rig.run("TRUNCATE emptied_1").await;
    assert_eq!(rig.witness.next().await, lost("public.emptied"));
    // What was written before is told before the gap.
    rig.run("INSERT INTO emptied VALUES (12), (13); TRUNCATE emptied_2a").await;
    for _ in 0..2 {
        rig.witness.change().await;
    }
    assert_eq!(rig.witness.next().await, lost("public.emptied"));
    rig.run("BEGIN; TRUNCATE emptied_2a; ROLLBACK; INSERT INTO emptied VALUES (3)").await;
    rig.witness.change().await;
    looked(&rig).await;
    assert_eq!(rig.caught_up().await, [], "one gap each, and none for what was rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_that_comes_or_goes_with_its_rows_is_a_gap_of_its_table() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "moving").await;
    rig.run(
        "CREATE TABLE moving_3 (id int PRIMARY KEY); INSERT INTO moving_3 VALUES (21);
         ALTER TABLE moving ATTACH PARTITION moving_3 FOR VALUES FROM (20) TO (30)",
    )
    .await;
    assert_eq!(rig.witness.next().await, lost("public.moving"));
    rig.run("INSERT INTO moving VALUES (22)").await;
    rig.witness.change().await;
    rig.run("ALTER TABLE moving_2 DETACH PARTITION moving_2a").await;
    assert_eq!(rig.witness.next().await, lost("public.moving"));
    rig.run("DROP TABLE moving_3").await;
    assert_eq!(rig.witness.next().await, lost("public.moving"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_made_ahead_of_time_is_no_gap() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "ahead").await;
    rig.run("CREATE TABLE ahead_3 PARTITION OF ahead FOR VALUES FROM (20) TO (30)").await;
    looked(&rig).await;
    rig.run("INSERT INTO ahead VALUES (21)").await;
    rig.witness.change().await;
    looked(&rig).await;
    assert_eq!(rig.caught_up().await, []);
    // From now on it is one of them.
    rig.run("TRUNCATE ahead_3").await;
    assert_eq!(rig.witness.next().await, lost("public.ahead"));
}
