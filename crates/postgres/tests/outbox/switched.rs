//! Triggers of partitions that are switched off, as a restore of data does, and on again.

use super::{Setup, new_row, table};
use crate::support::changes::{Seen, word};
use crate::support::cluster;

#[tokio::test]
async fn rows_that_a_partition_got_with_its_triggers_off_are_a_gap() {
    let _cluster = cluster();
    let sql = "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id); \
               CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (100)";
    let mut setup = Setup::new("ob_switched", sql).await;
    setup.add("public.m").await;
    // A new partition is no gap.
    setup.run("CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (100) TO (200)").await;
    setup.run("INSERT INTO m VALUES (101)").await;
    assert_eq!(word(&setup.witness.next().await), "public.m 101");
    for (id, part) in [(1, "m1"), (102, "m2")] {
        setup.run(&format!("ALTER TABLE {part} DISABLE TRIGGER ALL")).await;
        setup.run(&format!("INSERT INTO {part} VALUES ({id})")).await;
        setup.run(&format!("ALTER TABLE {part} ENABLE TRIGGER ALL")).await;
        assert_eq!(word(&setup.witness.next().await), "public.m gap");
        setup.source.add(&table("public.m")).await.unwrap();
        setup.source.catch_up().await.unwrap();
        setup.witness.taken();
        setup.run(&format!("INSERT INTO m VALUES ({id} + 10)")).await;
        assert_eq!(new_row(&*setup.witness.change().await)[0].1, (id + 10).to_string());
    }
    // For good: a gap, and who listens anew has them switched on where the server may.
    setup.run("ALTER TABLE m1 DISABLE TRIGGER ALL; INSERT INTO m1 VALUES (50)").await;
    assert!(matches!(setup.witness.next().await, Seen::Gap(..)));
    setup.source.add(&table("public.m")).await.unwrap();
    setup.run("INSERT INTO m1 VALUES (51)").await;
    let mut last = word(&setup.witness.next().await);
    while last == "public.m gap" {
        last = word(&setup.witness.next().await);
    }
    assert_eq!(last, "public.m 51");
}
