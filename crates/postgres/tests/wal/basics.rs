//! What changes look like and in which order they come.

use tidewire_protocol::change::{Change, Operation, Value};
use tidewire_protocol::{Code, GapReason, Payload};

use super::{Rig, table};
use crate::support::changes::{Seen, object};
use crate::support::{cluster, own_cluster, until};

fn words(change: &Change) -> String {
    let row = |row| format!("{:?}", object(change, row)).replace("\\\"", "'").replace('"', "");
    let new = change.record.as_ref().map(row).unwrap_or_default();
    let old = change.old.as_ref().map(row).unwrap_or_default();
    let last = if change.last { " last" } else { "" };
    format!("{} {}{last}: {old} -> {new}", change.operation.word(), change.index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_insert_an_update_and_a_delete_are_told_with_all_that_is_known() {
    let cluster = cluster();
    let setup = "CREATE TABLE basic (id int PRIMARY KEY, name text, price numeric)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.basic").await;
    rig.run("INSERT INTO basic VALUES (1, 'one', 1.50), (2, NULL, 'NaN')").await;
    rig.run("UPDATE basic SET name = 'uno' WHERE id = 1").await;
    rig.run("UPDATE basic SET id = 3 WHERE id = 1").await;
    rig.run("DELETE FROM basic WHERE id = 2; TRUNCATE basic").await;
    let seen = rig.caught_up().await;
    assert_eq!(seen[0], Seen::Gap("public.basic".to_owned(), GapReason::NotListening));
    let changes: Vec<_> = seen[1..]
        .iter()
        .map(|seen| match seen {
            Seen::Change(change) => change,
            other => panic!("{other:?}"),
        })
        .collect();
    let told: Vec<_> = changes.iter().map(|change| words(change)).collect();
    assert_eq!(
        told,
        [
            "INSERT 0:  -> {id: 1, name: 'one', price: 1.50}",
            "INSERT 1 last:  -> {id: 2, name: null, price: 'NaN'}",
            "UPDATE 0 last:  -> {id: 1, name: 'uno', price: 1.50}",
            "UPDATE 0 last: {id: 1} -> {id: 3, name: 'uno', price: 1.50}",
            "DELETE 0: {id: 2} -> ",
            "TRUNCATE 1 last:  -> ",
        ]
    );
    let first = changes[0];
    assert!(first.relation.columns()[0].key);
    assert_eq!(&*first.relation.columns()[0].type_name, "integer");
    assert!(!first.relation.columns()[1].key);
    assert!(first.transaction.lsn.is_some());
    assert_eq!(first.transaction, changes[1].transaction);
    assert!(first.transaction.id < changes[2].transaction.id);
    assert!(first.transaction.committed_at <= changes[2].transaction.committed_at);
    let old = changes[4].old.as_ref().unwrap();
    assert_eq!(old.value(1), Some(Value::Absent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_identity_tells_whole_old_rows_and_fills_what_the_log_left_out() {
    let cluster = cluster();
    let setup = "CREATE TABLE whole (id int PRIMARY KEY, n int, big text);
                 ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
                 ALTER TABLE whole REPLICA IDENTITY FULL;
                 CREATE TABLE lean (LIKE whole INCLUDING ALL)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.whole").await;
    rig.add("public.lean").await;
    rig.run("INSERT INTO whole VALUES (1, 1, repeat('x', 100000))").await;
    rig.run("UPDATE whole SET n = 2").await;
    rig.run("INSERT INTO lean VALUES (1, 1, repeat('x', 100000)); UPDATE lean SET n = 2").await;
    let changes = changes(rig.caught_up().await);
    let update = &changes[1];
    let big = update.record.as_ref().unwrap().json(2).unwrap();
    assert_eq!(big.len(), 100_002);
    assert_eq!(update.old.as_ref().unwrap().json(2), Some(big));
    assert_eq!(update.changed_columns(), Some(vec![1]));
    assert!(update.relation.columns()[0].key && !update.relation.columns()[1].key);
    assert_eq!(changes[3].operation, Operation::Update);
    let record = changes[3].record.as_ref().unwrap();
    assert_eq!(record.value(2), Some(Value::Unchanged));
}

pub(super) fn changes(seen: Vec<Seen>) -> Vec<std::sync::Arc<Change>> {
    let change = |seen| match seen {
        Seen::Change(change) => Some(change),
        _ => None,
    };
    seen.into_iter().filter_map(change).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_rolled_back_is_never_told() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, "CREATE TABLE undone (id int PRIMARY KEY)").await;
    rig.add("public.undone").await;
    rig.run("BEGIN; INSERT INTO undone VALUES (1); ROLLBACK").await;
    rig.run(
        "BEGIN; INSERT INTO undone VALUES (2); SAVEPOINT a; INSERT INTO undone VALUES (3);
         ROLLBACK TO a; INSERT INTO undone VALUES (4); RELEASE a; COMMIT",
    )
    .await;
    let told: Vec<_> = changes(rig.caught_up().await).iter().map(|c| words(c)).collect();
    assert_eq!(told, ["INSERT 0:  -> {id: 2}", "INSERT 1 last:  -> {id: 4}"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sql_says_messages_on_topics_as_part_of_its_transaction() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, "CREATE TABLE talk (id int PRIMARY KEY)").await;
    rig.add("public.talk").await;
    let emit = |transactional: bool, content: &str| {
        format!("SELECT pg_logical_emit_message({transactional}, 'tidewire', '{content}');")
    };
    let said = r#"{"topic":"room","event":"hello","json":{"n":1.0}}"#;
    rig.run(&format!("BEGIN; INSERT INTO talk VALUES (1); {} COMMIT", emit(true, said))).await;
    rig.run(&format!("BEGIN; {} ROLLBACK", emit(true, said))).await;
    rig.run(&format!("BEGIN; {} ROLLBACK", emit(false, said))).await;
    rig.run(&emit(true, "nonsense")).await;
    rig.run(&emit(true, r#"{"topic":"room","text":"bye"}"#)).await;
    let seen = rig.caught_up().await;
    let messages: Vec<_> = seen.iter().filter(|s| matches!(s, Seen::Message(..))).collect();
    let hello = Payload::Json(r#"{"n":1.0}"#.into());
    assert_eq!(
        messages,
        [
            &Seen::Message("room".to_owned(), Some("hello".to_owned()), hello),
            &Seen::Message("room".to_owned(), None, Payload::Text("bye".into())),
        ]
    );
    assert_eq!(rig.source.metrics().bad_messages.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_published_without_harm_is_refused_with_the_fix() {
    let cluster = cluster();
    let setup = "CREATE SCHEMA odd;
        CREATE TABLE odd.keyless (id int); CREATE TABLE odd.\"No Key\" (n int);
        CREATE TABLE odd.indexed (a int NOT NULL UNIQUE);
        CREATE TABLE odd.late (a int PRIMARY KEY DEFERRABLE);
        CREATE TABLE odd.nothing (a int PRIMARY KEY); ALTER TABLE odd.nothing REPLICA IDENTITY NOTHING;
        CREATE UNLOGGED TABLE odd.fleeting (a int PRIMARY KEY);
        CREATE VIEW odd.seen AS SELECT 1 AS id;
        CREATE TABLE odd.parts (a int) PARTITION BY LIST (a);
        CREATE TABLE odd.part1 PARTITION OF odd.parts FOR VALUES IN (1)";
    let rig = Rig::new(&cluster, setup).await;
    for (name, code, fix) in [
        ("odd.keyless", Code::BadTopic, "ALTER TABLE odd.keyless ADD PRIMARY KEY (id)"),
        ("odd.No Key", Code::BadTopic, "ALTER TABLE odd.\"No Key\" ADD PRIMARY KEY ("),
        (
            "odd.indexed",
            Code::BadTopic,
            "ALTER TABLE odd.indexed REPLICA IDENTITY USING INDEX indexed_a_key",
        ),
        (
            "odd.late",
            Code::BadTopic,
            "ALTER TABLE odd.late DROP CONSTRAINT late_pkey, ADD PRIMARY KEY (a)",
        ),
        ("odd.nothing", Code::BadTopic, "ALTER TABLE odd.nothing REPLICA IDENTITY DEFAULT"),
        ("odd.fleeting", Code::BadTopic, "ALTER TABLE odd.fleeting SET LOGGED"),
        ("odd.seen", Code::BadTopic, "not a table"),
        ("odd.missing", Code::NotFound, "no table odd.missing"),
        ("odd.parts", Code::BadTopic, "odd.part1"),
        ("pg_catalog.pg_class", Code::BadTopic, "not a table"),
    ] {
        let refused = rig.source.add(&table(name)).await.unwrap_err();
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains(fix), "{}", refused.message);
        assert_eq!(refused.topic, Some(table(name)));
    }
    assert_eq!(rig.source.status().tables, 0);
    // Each fix works.
    rig.run(
        "ALTER TABLE odd.keyless ADD PRIMARY KEY (id);
         ALTER TABLE odd.indexed REPLICA IDENTITY USING INDEX indexed_a_key;
         ALTER TABLE odd.nothing REPLICA IDENTITY DEFAULT;
         ALTER TABLE odd.late DROP CONSTRAINT late_pkey, ADD PRIMARY KEY (a)",
    )
    .await;
    for name in ["odd.keyless", "odd.indexed", "odd.nothing", "odd.late"] {
        rig.add(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_s_changes_are_those_of_its_table() {
    let cluster = cluster();
    let setup = "CREATE TABLE measured (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
                 CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM (0) TO (10);
                 CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM (10) TO (20)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.measured").await;
    rig.run("INSERT INTO measured VALUES (1, 1), (11, 2); INSERT INTO measured_2 VALUES (12, 3)")
        .await;
    let changes = changes(rig.caught_up().await);
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|change| &*change.relation.table == "measured"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_table_that_was_being_written_is_added_when_its_writers_are_done() {
    let cluster = cluster();
    let mut rig = Rig::new(&cluster, "CREATE TABLE busy (id int PRIMARY KEY)").await;
    rig.until("a stream", |source| source.status().connected).await;
    let writer = crate::support::sql(&cluster).await;
    writer.batch_execute("BEGIN; INSERT INTO busy VALUES (1)").await.unwrap();
    let name = table("public.busy");
    let mut adding = Box::pin(rig.source.add(&name));
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut adding).await;
    assert!(early.is_err(), "added while a writer's rows would be missed");
    writer.batch_execute("COMMIT").await.unwrap();
    adding.await.unwrap();
    rig.run("INSERT INTO busy VALUES (2)").await;
    let told: Vec<_> = changes(rig.caught_up().await).iter().map(|c| words(c)).collect();
    assert_eq!(told, ["INSERT 0 last:  -> {id: 2}"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_is_left_behind_after_shutdown() {
    let cluster = own_cluster();
    let rig = Rig::new(&cluster, "CREATE TABLE brief (id int PRIMARY KEY)").await;
    rig.add("public.brief").await;
    let count = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(rig.sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);
    rig.source.shutdown().await;
    assert!(!rig.source.status().connected);
    let left = async || rig.sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0);
    until("neither a slot nor a publication is left behind", async || left().await == 0).await;
}
