//! Partitions that come and go, or are emptied, before anybody has looked at them.

use tidewire_postgres::private_cluster::PrivateCluster;

use super::Rig;
use crate::support::{newer_cluster, own_cluster};

const SETUP: &str = "
CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)";

/// What makes a partition and puts a row in it, and what makes it go, each with another name.
const PASSING: &[(&str, &str)] = &[
    ("CREATE TABLE p7 PARTITION OF p FOR VALUES IN (7)", "DROP TABLE p7"),
    ("CREATE TABLE p8 PARTITION OF p FOR VALUES IN (8)", "ALTER TABLE p DETACH PARTITION p8"),
    (
        "CREATE TABLE p9 (LIKE p INCLUDING ALL); ALTER TABLE p ATTACH PARTITION p9 FOR VALUES IN (9)",
        "ALTER TABLE p DETACH PARTITION p9",
    ),
];

impl Rig {
    /// Everything up to the next gap, in short.
    async fn until_gap(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let next = self.next().await;
            let word = next.split(' ').next().expect("a text has a first word").to_owned();
            let is_gap = word == "gap";
            told.push(word);
            if is_gap {
                return told;
            }
        }
    }
}

async fn pass(cluster: &PrivateCluster, word: &str) {
    let mut rig = Rig::new(cluster, word, "passing", SETUP).await;
    rig.source.add("public.p").await.unwrap();
    rig.told().await;
    for (k, (come, go)) in (7..).zip(PASSING) {
        rig.run(come).await;
        rig.run(&format!("INSERT INTO p VALUES (1, {k})")).await;
        // The row is told, as that of a partition that nobody has looked at, or has.
        assert!(rig.told().await.iter().any(|told| told.starts_with("INSERT")), "{word} {k}");
        rig.run(go).await;
        rig.until_gap().await;
    }
    rig.run("INSERT INTO p VALUES (1, 1)").await;
    // A look between may have found the attached one with a row in it.
    while rig.next().await.starts_with("gap") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_comes_and_goes_between_two_looks_is_a_gap() {
    let own = own_cluster();
    for word in ["wal", "outbox"] {
        pass(&own, word).await;
        if let Some(newer) = newer_cluster() {
            pass(&newer, word).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_partition_that_was_truncated_before_it_was_seen_is_a_gap() {
    for cluster in [Some(own_cluster()), newer_cluster()].into_iter().flatten() {
        let mut rig = Rig::new(&cluster, "outbox", "unseen", SETUP).await;
        rig.source.add("public.p").await.unwrap();
        rig.told().await;
        for k in [2, 3] {
            rig.run(&format!("CREATE TABLE p{k} PARTITION OF p FOR VALUES IN ({k})")).await;
            rig.run(&format!("INSERT INTO p VALUES (1, {k})")).await;
            rig.run(&format!("TRUNCATE p{k}")).await;
            // A look in the middle may have told a second gap of the one before.
            let mut told = rig.until_gap().await;
            while told == ["gap"] {
                told = rig.until_gap().await;
            }
            assert_eq!(told, ["INSERT", "gap"], "{k}");
        }
    }
}
