//! Partitions: whose changes are told, and what the stream does not tell of them.

mod identity;
mod restarts;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_protocol::change::Change;
use tidewire_protocol::{Code, GapReason};

use super::basics::changes;
use super::{Rig, table};
use crate::support::changes::{Seen, object};
use crate::support::{cluster, newer_cluster, own_cluster};

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

/// What was told, in short.
fn short(seen: Vec<Seen>) -> Vec<String> {
    let change = |change: &Change| {
        let row = change.record.as_ref().or(change.old.as_ref());
        let id = row.map(|row| object(change, row)["id"].clone());
        [change.operation.word(), id.as_deref().unwrap_or_default()].concat()
    };
    let word = |seen: Seen| match seen {
        Seen::Change(it) => change(&it),
        Seen::Gap(..) => "gap".to_owned(),
        other => panic!("{other:?}"),
    };
    seen.into_iter().map(word).collect()
}

/// Everything that the keeper had to say is among what was told.
async fn looked_at(rig: &mut Rig) -> Vec<String> {
    looked(rig).await;
    short(rig.caught_up().await)
}

async fn truncate_alone(cluster: &PrivateCluster) {
    let mut rig = parted(cluster, "emptied").await;
    rig.run(
        "INSERT INTO emptied VALUES (2); TRUNCATE emptied_1; INSERT INTO emptied VALUES (12);
         TRUNCATE emptied_2; INSERT INTO emptied VALUES (13)",
    )
    .await;
    let told = looked_at(&mut rig).await;
    assert_eq!(told, ["INSERT2", "gap", "INSERT12", "gap", "INSERT13"]);
    rig.run("BEGIN; INSERT INTO emptied VALUES (3); TRUNCATE emptied_1, emptied_2a; COMMIT").await;
    assert_eq!(looked_at(&mut rig).await, ["INSERT3", "TRUNCATE"], "that is all of them");
    rig.run("BEGIN; TRUNCATE emptied; INSERT INTO emptied VALUES (4); TRUNCATE emptied_1; COMMIT")
        .await;
    assert_eq!(looked_at(&mut rig).await, ["TRUNCATE", "INSERT4", "gap"]);
    rig.run("BEGIN; TRUNCATE emptied_2a; ROLLBACK; INSERT INTO emptied VALUES (5)").await;
    assert_eq!(looked_at(&mut rig).await, ["INSERT5"], "it was rolled back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_truncated_alone_is_a_gap_of_its_table_at_its_place() {
    truncate_alone(&own_cluster()).await;
    if let Some(cluster) = newer_cluster() {
        truncate_alone(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_gives_partitions_new_files_is_no_gap() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "refiled").await;
    rig.run("TRUNCATE refiled").await;
    rig.run("BEGIN; TRUNCATE refiled; INSERT INTO refiled VALUES (5), (14); COMMIT").await;
    let told = looked_at(&mut rig).await;
    assert_eq!(told, ["TRUNCATE", "TRUNCATE", "INSERT5", "INSERT14"]);
    rig.run("VACUUM FULL refiled_1").await;
    rig.run("CLUSTER refiled_2a USING refiled_2a_pkey; ALTER TABLE refiled ADD n text").await;
    assert_eq!(looked_at(&mut rig).await, [""; 0]);
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
    // So quickly that the keeper never sees it gone.
    rig.run(
        "BEGIN; ALTER TABLE moving DETACH PARTITION moving_1; INSERT INTO moving_1 VALUES (9);
         ALTER TABLE moving ATTACH PARTITION moving_1 FOR VALUES FROM (0) TO (10); COMMIT",
    )
    .await;
    assert_eq!(rig.witness.next().await, lost("public.moving"));
    assert_eq!(looked_at(&mut rig).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_that_came_by_itself_is_no_table_of_its_own_any_more() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "joined").await;
    rig.run("CREATE TABLE alone (id int PRIMARY KEY)").await;
    rig.add("public.alone").await;
    rig.run("INSERT INTO alone VALUES (21)").await;
    assert_eq!(short(rig.caught_up().await), ["gap", "INSERT21"]);
    rig.run("ALTER TABLE joined ATTACH PARTITION alone FOR VALUES FROM (20) TO (30)").await;
    let mut gaps = Vec::new();
    while gaps.len() < 2 {
        gaps.push(rig.witness.next().await);
    }
    for name in ["public.alone", "public.joined"] {
        assert!(gaps.contains(&lost(name)), "{gaps:?}");
    }
    rig.run("INSERT INTO alone VALUES (22)").await;
    assert_eq!(&*rig.witness.change().await.relation.table, "joined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_that_was_made_as_one_is_no_gap() {
    let cluster = cluster();
    let mut rig = parted(&cluster, "ahead").await;
    rig.run("CREATE TABLE ahead_3 PARTITION OF ahead FOR VALUES FROM (20) TO (30)").await;
    rig.run("INSERT INTO ahead VALUES (21)").await;
    rig.run(
        "BEGIN; CREATE TABLE ahead_4 PARTITION OF ahead FOR VALUES FROM (30) TO (40);
         INSERT INTO ahead VALUES (31); COMMIT",
    )
    .await;
    assert_eq!(looked_at(&mut rig).await, ["INSERT21", "INSERT31"]);
    // One that is attached and has no rows.
    rig.run(
        "CREATE TABLE ahead_5 (id int PRIMARY KEY);
         ALTER TABLE ahead ATTACH PARTITION ahead_5 FOR VALUES FROM (40) TO (50)",
    )
    .await;
    assert_eq!(looked_at(&mut rig).await, [""; 0]);
    // From now on it is one of them.
    rig.run("INSERT INTO ahead VALUES (41)").await;
    rig.run("TRUNCATE ahead_5").await;
    rig.run("TRUNCATE ahead_4").await;
    assert_eq!(looked_at(&mut rig).await, ["INSERT41", "gap", "gap"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_with_a_partition_that_is_a_foreign_table_is_refused() {
    let cluster = cluster();
    let setup =
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
        CREATE TABLE near (id int) PARTITION BY RANGE (id);
        CREATE FOREIGN TABLE near_far PARTITION OF near FOR VALUES FROM (0) TO (10) SERVER far";
    let rig = Rig::new(&cluster, setup).await;
    let refused = rig.source.add(&table("public.near")).await.unwrap_err();
    assert!(refused.message.contains("near_far is a foreign table"), "{}", refused.message);
}
