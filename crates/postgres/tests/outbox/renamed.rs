//! Tables that are renamed, swapped, moved, dropped and made anew while somebody listens: a topic is
//! that of one relation at a time, and rows of another never come on it.

use std::time::Duration;

use tidewire_postgres::OutboxOptions;

use super::{Setup, new_row, table};
use crate::support::changes::{Seen, word};
use crate::support::cluster;

const TWO: &str = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)";

impl Setup {
    async fn word(&mut self) -> String {
        word(&self.witness.next().await)
    }

    async fn words(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(self.word().await);
        }
        words.sort();
        words
    }

    /// Waits for a gap of a topic and gives what came before it.
    async fn until_gap(&mut self, topic: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match self.word().await {
                word if word == format!("{topic} gap") => return before,
                word => before.push(word),
            }
        }
    }

    /// Everything that is committed is told, and this is all that is left of it.
    async fn nothing_more(&mut self) {
        self.source.catch_up().await.unwrap();
        assert_eq!(self.witness.taken(), []);
    }
}

#[tokio::test]
async fn a_table_that_was_renamed_is_not_heard_under_its_old_name() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_renamed", TWO).await;
    setup.add("public.a").await;
    // At once: no look at the catalog is between the two.
    setup.run("ALTER TABLE a RENAME TO secret; INSERT INTO secret VALUES (1)").await;
    assert_eq!(setup.word().await, "public.a gap");
    setup.run("INSERT INTO secret VALUES (2)").await;
    setup.nothing_more().await;
    setup.run("INSERT INTO secret VALUES (3); ALTER TABLE secret RENAME TO a").await;
    assert_eq!(setup.word().await, "public.a gap");
    setup.source.add(&table("public.a")).await.unwrap();
    setup.run("INSERT INTO a VALUES (4)").await;
    assert_eq!(setup.word().await, "public.a 4");
    // There and back between two polls.
    setup
        .run(
            "BEGIN; ALTER TABLE a RENAME TO secret; INSERT INTO secret VALUES (5); \
             ALTER TABLE secret RENAME TO a; COMMIT",
        )
        .await;
    assert_eq!(setup.word().await, "public.a gap");
    setup.source.add(&table("public.a")).await.unwrap();
    setup.run("INSERT INTO a VALUES (6)").await;
    assert_eq!(setup.word().await, "public.a 6");
    setup.nothing_more().await;
}

#[tokio::test]
async fn tables_that_were_swapped_are_each_heard_under_the_name_they_have() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_swapped", TWO).await;
    setup.add("public.a").await;
    setup.add("public.b").await;
    for round in [10, 20] {
        setup
            .run(&format!(
                "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; \
                 ALTER TABLE tmp RENAME TO b; COMMIT; INSERT INTO a VALUES ({round}); \
                 INSERT INTO b VALUES ({round} + 1)"
            ))
            .await;
        let mut gaps = vec!["public.a gap", "public.b gap"];
        while !gaps.is_empty() {
            let word = setup.word().await;
            assert!(word.ends_with("gap"), "{word}");
            gaps.retain(|gap| *gap != word);
        }
        // Each once more when it follows the other table; rows in between are part of it.
        for name in ["public.a", "public.b"] {
            setup.source.add(&table(name)).await.unwrap();
        }
        setup.source.catch_up().await.unwrap();
        let seen = setup.witness.taken();
        assert!(seen.iter().all(|seen| matches!(seen, Seen::Gap(..))), "{seen:?}");
        setup
            .run(&format!("INSERT INTO a VALUES ({round} + 2); INSERT INTO b VALUES ({round} + 3)"))
            .await;
        let expected = [format!("public.a {}", round + 2), format!("public.b {}", round + 3)];
        assert_eq!(setup.words(2).await, expected);
    }
    setup.nothing_more().await;
}

#[tokio::test]
async fn a_new_table_that_takes_the_name_is_followed_by_who_listens() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_took", "CREATE TABLE a (id int PRIMARY KEY)").await;
    setup.add("public.a").await;
    setup
        .run(
            "CREATE TABLE a_new (id int PRIMARY KEY); INSERT INTO a_new VALUES (1); BEGIN; \
             ALTER TABLE a RENAME TO a_old; ALTER TABLE a_new RENAME TO a; COMMIT; \
             INSERT INTO a_old VALUES (2)",
        )
        .await;
    assert_eq!(setup.until_gap("public.a").await, Vec::<String>::new());
    // Nobody subscribes anew.
    assert_eq!(setup.until_gap("public.a").await, Vec::<String>::new());
    setup.source.catch_up().await.unwrap();
    setup.run("INSERT INTO a_old VALUES (3); INSERT INTO a VALUES (4)").await;
    assert_eq!(setup.word().await, "public.a 4");
    setup.run("DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY)").await;
    for _ in 0..2 {
        assert_eq!(setup.until_gap("public.a").await, Vec::<String>::new());
    }
    setup.run("INSERT INTO a VALUES (5)").await;
    assert_eq!(setup.word().await, "public.a 5");
}

#[tokio::test]
async fn a_schema_that_was_renamed_and_a_table_that_was_moved_are_other_names() {
    let _cluster = cluster();
    let sql = "CREATE SCHEMA s; CREATE SCHEMA other; CREATE TABLE s.a (id int PRIMARY KEY)";
    let mut setup = Setup::new("ob_moved", sql).await;
    setup.add("s.a").await;
    for (there, back) in [
        ("ALTER SCHEMA s RENAME TO s2; INSERT INTO s2.a VALUES (1)", "ALTER SCHEMA s2 RENAME TO s"),
        (
            "ALTER TABLE s.a SET SCHEMA other; INSERT INTO other.a VALUES (2)",
            "ALTER TABLE other.a SET SCHEMA s",
        ),
    ] {
        setup.run(there).await;
        assert_eq!(setup.word().await, "s.a gap");
        setup.run(back).await;
        assert_eq!(setup.word().await, "s.a gap");
        setup.source.catch_up().await.unwrap();
        setup.run("INSERT INTO s.a SELECT coalesce(max(id), 0) + 10 FROM s.a").await;
        assert!(setup.word().await.starts_with("s.a "));
    }
    setup.nothing_more().await;
}

#[tokio::test]
async fn partitions_and_their_tables_that_are_swapped_are_heard_under_the_name_of_then() {
    let _cluster = cluster();
    let sql = "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id); \
               CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (100); \
               CREATE TABLE k (id int PRIMARY KEY) PARTITION BY RANGE (id); \
               CREATE TABLE k1 PARTITION OF k FOR VALUES FROM (0) TO (100)";
    let mut setup = Setup::new("ob_parents", sql).await;
    setup.add("public.m").await;
    setup
        .run(
            "BEGIN; ALTER TABLE m RENAME TO tmp; ALTER TABLE k RENAME TO m; \
             ALTER TABLE tmp RENAME TO k; COMMIT; INSERT INTO m1 VALUES (1)",
        )
        .await;
    for _ in 0..2 {
        assert_eq!(setup.until_gap("public.m").await, Vec::<String>::new());
    }
    setup.source.catch_up().await.unwrap();
    setup.run("INSERT INTO m1 VALUES (2); INSERT INTO k1 VALUES (3)").await;
    assert_eq!(setup.word().await, "public.m 3");
    // The names of partitions are nobody's.
    setup.run("ALTER TABLE k1 RENAME TO k2; INSERT INTO k2 VALUES (4)").await;
    assert_eq!(setup.word().await, "public.m 4");
}

#[tokio::test]
async fn what_leaves_the_name_alone_is_no_gap() {
    let _cluster = cluster();
    let mut setup = Setup::new("ob_same_name", "CREATE TABLE a (id int PRIMARY KEY, n int)").await;
    setup.add("public.a").await;
    for (id, sql) in [
        "TRUNCATE a",
        "ALTER TABLE a ADD COLUMN x int",
        "ALTER TABLE a ALTER COLUMN n TYPE bigint",
        "ALTER TABLE a RENAME COLUMN n TO m",
        "CREATE INDEX ON a (m); ANALYZE a",
        "VACUUM FULL a",
        "GRANT SELECT ON a TO PUBLIC; COMMENT ON TABLE a IS 'x'",
        "CREATE TABLE b (id int REFERENCES a); DROP TABLE b",
    ]
    .into_iter()
    .enumerate()
    {
        for statement in sql.split("; ") {
            setup.run(statement).await;
        }
        setup.run(&format!("INSERT INTO a (id) VALUES ({id})")).await;
        let mut words = vec![];
        while words.last().is_none_or(|word: &String| !word.ends_with(&id.to_string())) {
            match setup.witness.next().await {
                Seen::Change(change) if change.record.is_none() => {}
                Seen::Change(change) => words.push(format!("row {}", new_row(&change)[0].1)),
                other => panic!("{sql}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_may_not_make_triggers_is_told_the_gap_and_no_rows_of_others() {
    let _cluster = cluster();
    let options = OutboxOptions { linger: Duration::ZERO, ..OutboxOptions::default() };
    let mut setup = Setup::with(&cluster(), "ob_may_not", TWO, options).await;
    setup.add("public.a").await;
    setup.source.remove(&table("public.a"));
    setup
        .run("ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; INSERT INTO c VALUES (1)")
        .await;
    setup.source.catch_up().await.unwrap();
    // Nobody listens, and who comes back begins with a gap.
    setup.witness.taken();
    setup.add("public.a").await;
    setup.run("INSERT INTO c VALUES (2); INSERT INTO a VALUES (3)").await;
    assert_eq!(setup.word().await, "public.a 3");
}
