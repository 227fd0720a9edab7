//! Which columns are the key of a row: the same in each of its changes and in a snapshot, and never
//! one that a DELETE cannot tell.

use tidewire_postgres::{Preparer, SnapshotLimits, Snapshots};
use tidewire_protocol::Interest;
use tidewire_protocol::change::{Operation, Relation};

use super::basics::changes;
use super::{Rig, table};
use crate::support::{cluster, target};

fn key(relation: &Relation) -> Vec<&str> {
    relation.columns().iter().filter(|c| c.key).map(|c| &*c.name).collect()
}

/// A table of `id`, `c` and `v`, and what its key is expected to be.
async fn check(name: &str, setup: &str, expected: &[&str]) {
    let cluster = cluster();
    let create = format!(
        "CREATE TABLE {name} (id int NOT NULL, c int NOT NULL, v int);
         CREATE UNIQUE INDEX {name}_c ON {name} (c); CREATE UNIQUE INDEX {name}_two ON {name} (c, id);
         CREATE UNIQUE INDEX {name}_wide ON {name} (c) INCLUDE (id); {setup}"
    );
    let mut rig = Rig::new(&cluster, &create).await;
    let topic = format!("public.{name}");
    rig.add(&topic).await;
    rig.run(&format!("INSERT INTO {name} VALUES (1, 5, 0)")).await;
    rig.run(&format!("UPDATE {name} SET v = 1; UPDATE {name} SET c = 6, id = 2")).await;
    rig.run(&format!("DELETE FROM {name}")).await;
    let told = changes(rig.caught_up().await);
    assert_eq!(told.len(), 4, "{name}");
    for change in &told {
        assert_eq!(key(&change.relation), expected, "{name}: {:?}", change.operation);
        // By what is told of the row it is found in a copy.
        let row = match change.operation {
            Operation::Insert => change.record.as_ref(),
            _ => change.old.as_ref(),
        };
        let columns = change.relation.columns().iter();
        for at in columns.enumerate().filter(|(_, column)| column.key).map(|(at, _)| at) {
            assert!(row.is_none_or(|row| row.json(at).is_some()), "{name}: {change:?}");
        }
    }
    let target = target(&cluster);
    let snapshots = Snapshots::new(&target, Preparer::new(&target), SnapshotLimits::default());
    let rows = snapshots.snapshot(&table(&topic), &Interest::default()).await.unwrap();
    assert_eq!(key(&rows.relation), expected, "{name}: a snapshot");
    rig.source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_identity_without_the_primary_key_is_the_key() {
    let primary = "ADD PRIMARY KEY (id)";
    let by = |name: &str, more: &str, index: &str| {
        format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_{index}{more}")
    };
    check("key_index", &by("key_index", &format!(", {primary}"), "c"), &["c"]).await;
    check("key_wide", &by("key_wide", &format!(", {primary}"), "wide"), &["c"]).await;
    check("key_none", &by("key_none", "", "c"), &["c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_identity_with_the_primary_key_leaves_it_the_key() {
    let primary = "ADD PRIMARY KEY (id)";
    let with = |name: &str, what: &str| format!("ALTER TABLE {name} {what}");
    check("key_plain", &with("key_plain", primary), &["id"]).await;
    let two = format!("{primary}, REPLICA IDENTITY USING INDEX key_both_two");
    check("key_both", &with("key_both", &two), &["id"]).await;
    let full = format!("{primary} INCLUDE (v), REPLICA IDENTITY FULL");
    check("key_full", &with("key_full", &full), &["id"]).await;
    check("key_less", &with("key_less", "REPLICA IDENTITY FULL"), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_that_is_stored_out_of_line_is_told_when_another_column_changes() {
    let cluster = cluster();
    let setup = "CREATE TABLE out_of_line (id text PRIMARY KEY, n int, rest text);
        ALTER TABLE out_of_line ALTER id SET STORAGE EXTERNAL, ALTER rest SET STORAGE EXTERNAL";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.out_of_line").await;
    rig.run("INSERT INTO out_of_line VALUES (repeat('k', 2500), 1, repeat('x', 5000))").await;
    rig.run("UPDATE out_of_line SET n = 2").await;
    let told = changes(rig.caught_up().await);
    let [insert, update] = &told[..] else { panic!("{told:?}") };
    let record = |at: usize| {
        (insert.record.as_ref().unwrap().json(at), update.record.as_ref().unwrap().json(at))
    };
    let (before, after) = record(0);
    assert!(before.is_some() && before == after, "{after:?}");
    assert_eq!(record(1), (Some("1"), Some("2")));
    assert_eq!(record(2).1, None, "what no key needs is left out as before");
}
