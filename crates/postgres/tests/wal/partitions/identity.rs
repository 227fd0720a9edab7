//! Partitions that tell other columns of a deleted row than their table's key.

use tidewire_postgres::WalOptions;
use tidewire_postgres::private_cluster::PrivateCluster;

use super::{lost, short};
use crate::support::changes::object;
use crate::support::{cluster, target};
use crate::wal::{Rig, quick, table};

/// A table whose partition has columns in another order, and an index beside its key.
fn setup(name: &str) -> String {
    format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE {name}_1 (n int NOT NULL UNIQUE, id int PRIMARY KEY);
         ALTER TABLE {name} ATTACH PARTITION {name}_1 FOR VALUES FROM (0) TO (10);
         INSERT INTO {name} VALUES (1, 100), (2, 200), (3, 300)"
    )
}

/// Subscribing is refused with a statement, and no more once that was run.
async fn mended(rig: &Rig, name: &str, what: &str, fix: &str) {
    let refused = rig.source.add(&table(&format!("public.{name}"))).await.unwrap_err();
    let expected = format!("the replica identity of public.{name}_1 does not tell {what}: {fix}");
    assert_eq!(refused.message, expected);
    rig.run(fix).await;
    rig.add(&format!("public.{name}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_that_does_not_tell_the_key_is_refused_with_what_mends_it() {
    let cluster = cluster();
    let rig = Rig::new(&cluster, &setup("aside")).await;
    rig.run("ALTER TABLE aside_1 REPLICA IDENTITY USING INDEX aside_1_n_key").await;
    let fix = "ALTER TABLE public.aside_1 REPLICA IDENTITY DEFAULT";
    mended(&rig, "aside", "(id), the key of its table", fix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_index_of_the_table_does_not_reach_its_partitions() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, &setup("above")).await;
    rig.run(
        "CREATE UNIQUE INDEX above_key ON above (id, n);
         ALTER TABLE above REPLICA IDENTITY USING INDEX above_key",
    )
    .await;
    // The identity of the table contains its key, and that is told by the partition's own.
    rig.add("public.above").await;
    rig.run("DELETE FROM above WHERE id = 1").await;
    assert_eq!(short(rig.caught_up().await), ["gap", "DELETE1"]);
    let setup = "CREATE TABLE other (id int NOT NULL, n int NOT NULL) PARTITION BY RANGE (id);
         CREATE UNIQUE INDEX other_key ON other (id, n);
         ALTER TABLE other REPLICA IDENTITY USING INDEX other_key;
         CREATE TABLE other_1 PARTITION OF other FOR VALUES FROM (0) TO (10);
         ALTER TABLE other_1 ADD PRIMARY KEY (id)";
    rig.run(setup).await;
    let fix = "ALTER TABLE public.other_1 REPLICA IDENTITY USING INDEX other_1_id_n_idx";
    let what = "(id, n), the key of its table";
    mended(&rig, "other", what, fix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_altered_while_it_is_listened_to_tells_no_null_and_is_let_go_of() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, &setup("swayed")).await;
    rig.add("public.swayed").await;
    rig.caught_up().await;
    rig.run(
        "ALTER TABLE swayed_1 REPLICA IDENTITY USING INDEX swayed_1_n_key;
         DELETE FROM swayed WHERE id = 1",
    )
    .await;
    // What the log has of it, in the table's order.
    let change = rig.witness.change().await;
    let names: Vec<_> = change.relation.columns().iter().map(|c| (&*c.name, c.key)).collect();
    assert_eq!(names, [("id", false), ("n", true)]);
    let old = object(&change, change.old.as_ref().unwrap());
    assert_eq!(old.into_iter().collect::<Vec<_>>(), [("n".to_owned(), "100".to_owned())]);
    assert_eq!(rig.witness.next().await, lost("public.swayed"));
    let fix = "ALTER TABLE public.swayed_1 REPLICA IDENTITY DEFAULT";
    mended(&rig, "swayed", "(id), the key of its table", fix).await;
    rig.run("DELETE FROM swayed WHERE id = 2").await;
    assert_eq!(short(rig.caught_up().await).last().unwrap(), "DELETE2");
}

/// A publication that somebody made for us, which has partitions told as their table.
async fn of_others(cluster: &PrivateCluster, name: &str, more: &str) -> Rig {
    let publication = format!("{name}_publication");
    let setup = format!(
        "{}; {more}; CREATE PUBLICATION {publication} FOR TABLE {name}
             WITH (publish_via_partition_root = true)",
        setup(name)
    );
    let options = WalOptions { publication: Some(publication), ..quick() };
    Rig::with(cluster, target(cluster), options, &setup).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn postgresql_does_not_mix_up_identities_for_us() {
    let cluster = cluster();
    let more = "ALTER TABLE whole REPLICA IDENTITY FULL";
    let mut rig = of_others(&cluster, "whole", more).await;
    let fix = "ALTER TABLE public.whole_1 REPLICA IDENTITY FULL";
    let what = "whole rows, as its table's replica identity says";
    mended(&rig, "whole", what, fix).await;
    rig.run("DELETE FROM whole WHERE id = 1").await;
    assert_eq!(short(rig.caught_up().await), ["gap", "DELETE1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_null_in_a_key_is_told_as_a_gap() {
    let cluster = cluster();
    let mut rig = of_others(&cluster, "nulled", "").await;
    rig.add("public.nulled").await;
    rig.run(
        "INSERT INTO nulled VALUES (4, 400);
         ALTER TABLE nulled_1 REPLICA IDENTITY USING INDEX nulled_1_n_key;
         DELETE FROM nulled WHERE id < 3; INSERT INTO nulled VALUES (5, 500)",
    )
    .await;
    let told = short(rig.caught_up().await);
    assert_eq!(told[..4], ["gap", "INSERT4", "gap", "INSERT5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn somebody_else_s_publication_may_send_partitions_either_way() {
    let cluster = cluster();
    for via_root in [true, false] {
        let name = format!("theirs_{via_root}");
        let setup = format!(
            "{}; CREATE PUBLICATION {name} FOR TABLE {name}
                 WITH (publish_via_partition_root = {via_root})",
            setup(&name)
        );
        let options = WalOptions { publication: Some(name.clone()), ..quick() };
        let mut rig = Rig::with(&cluster, target(&cluster), options, &setup).await;
        rig.add(&format!("public.{name}")).await;
        rig.run(&format!("INSERT INTO {name} VALUES (4, 400); DELETE FROM {name} WHERE id = 1"))
            .await;
        let told = rig.caught_up().await;
        assert_eq!(short(told), ["gap", "INSERT4", "DELETE1"], "{via_root}");
        rig.run(&format!("INSERT INTO {name} VALUES (6, 600); TRUNCATE {name}_1")).await;
        assert_eq!(short(vec![rig.witness.next().await]), ["INSERT6"]);
        // The only one, so where it is sent it is as if the table had been truncated.
        let expected = if via_root { "gap" } else { "TRUNCATE" };
        assert_eq!(short(vec![rig.witness.next().await]), [expected], "{via_root}");
        let refused = rig.source.add(&table(&format!("public.{name}_1"))).await.unwrap_err();
        assert!(refused.message.contains("is a partition"), "{}", refused.message);
    }
}

/// An older version of this program had PostgreSQL send partitions as their table.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publication_of_ours_from_before_sends_partitions_as_their_own() {
    let cluster = cluster();
    let setup = format!(
        "{}; CREATE PUBLICATION before FOR TABLE older WITH (publish_via_partition_root = true);
         COMMENT ON PUBLICATION before IS 'Tidewire: tables come and go with their listeners';
         CREATE TABLE older_2 PARTITION OF older FOR VALUES FROM (10) TO (20)",
        setup("older")
    );
    let options = WalOptions { publication: Some("before".to_owned()), ..quick() };
    let mut rig = Rig::with(&cluster, target(&cluster), options, &setup).await;
    rig.add("public.older").await;
    rig.run("INSERT INTO older VALUES (11, 1); TRUNCATE older_1; INSERT INTO older VALUES (12, 2)")
        .await;
    let told = short(rig.caught_up().await);
    assert_eq!(told, ["gap", "INSERT11", "gap", "INSERT12"]);
}
