//! Rows of a table as they are, told apart from the changes that follow.

use std::sync::Arc;
use std::time::Duration;

use tidewire::TableRows;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{Preparer, SnapshotLimits, Snapshots, Target};
use tidewire_protocol::change::Value;
use tidewire_protocol::{Code, Interest, Topic};
use tokio_postgres::Client;

use crate::support::{cluster, own_cluster, sql, target};

struct Table {
    sql: Client,
    snapshots: Snapshots,
    topic: Topic,
}

impl Table {
    /// Runs `setup` in a schema of its own, and looks at its table `t`.
    async fn new(cluster: &PrivateCluster, schema: &str, setup: &str) -> Self {
        Self::with(cluster, schema, setup, SnapshotLimits::default()).await
    }

    async fn with(
        cluster: &PrivateCluster,
        schema: &str,
        setup: &str,
        limits: SnapshotLimits,
    ) -> Self {
        let sql = sql(cluster).await;
        sql.batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {setup}"))
            .await
            .unwrap();
        let snapshots = snapshots(&target(cluster), limits);
        Self { sql, snapshots, topic: Topic::table(&format!("{schema}.t")).unwrap() }
    }

    async fn rows(&self, interest: &Interest) -> Vec<String> {
        shown(&self.snapshots.snapshot(&self.topic, interest).await.unwrap())
    }

    async fn refused(&self, interest: &Interest) -> (Code, String) {
        let refusal = self.snapshots.snapshot(&self.topic, interest).await.err().unwrap();
        assert_eq!(refusal.topic.as_ref(), Some(&self.topic));
        (refusal.code, refusal.message)
    }
}

fn snapshots(target: &Target, limits: SnapshotLimits) -> Snapshots {
    Snapshots::new(target, Preparer::new(target), limits)
}

/// Rows as texts; `-` for what is absent.
fn shown(rows: &TableRows) -> Vec<String> {
    let value = |value: Value<'_>| value.json().unwrap_or("-").to_owned();
    rows.rows.iter().map(|row| row.values().map(value).collect::<Vec<_>>().join(" ")).collect()
}

fn everything() -> Interest {
    Interest::default()
}

fn wanting(filter: &str) -> Interest {
    Interest { filter: Some(filter.into()), ..Interest::default() }
}

#[tokio::test]
async fn rows_come_in_the_order_of_the_key_with_values_as_changes_have_them() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (at timestamptz, name text, gone int, n numeric(6,2), \
                 twice int GENERATED ALWAYS AS (id * 2) STORED, id int, PRIMARY KEY (id, name)); \
                 ALTER TABLE t DROP gone; SET TimeZone = 'Asia/Tokyo'; INSERT INTO t VALUES \
                 ('2024-01-01 09:00', 'b', 1.50, DEFAULT, 2), (NULL, 'a', NULL, DEFAULT, 2), \
                 ('infinity', 'x\"', 'NaN', DEFAULT, 1)";
    let table = Table::new(&cluster, "snapshot_order", setup).await;
    assert_eq!(
        table.rows(&everything()).await,
        [
            r#""infinity" "x\"" "NaN" 1"#,
            r#"null "a" null 2"#,
            r#""2024-01-01T00:00:00+00:00" "b" 1.50 2"#,
        ]
    );
    let interest = Interest { columns: vec!["n".into()], ..wanting("id=gte.2") };
    assert_eq!(table.rows(&interest).await, [r#"- "a" null 2"#, r#"- "b" 1.50 2"#]);
    let relation = table.snapshots.snapshot(&table.topic, &interest).await.unwrap().relation;
    let columns: Vec<_> =
        relation.columns().iter().map(|c| (&*c.name, &*c.type_name, c.key)).collect();
    assert_eq!(
        columns,
        [
            ("at", "timestamp with time zone", false),
            ("name", "text", true),
            ("n", "numeric", false),
            ("id", "integer", true),
        ]
    );
}

#[tokio::test]
async fn odd_names_are_only_names() {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute(
        "CREATE SCHEMA \"Snap\"\"; DROP\"; CREATE TABLE \"Snap\"\"; DROP\".\"a.b'c\" \
         (\"i\"\"d\" int PRIMARY KEY, \"we ird,=.\" text); \
         INSERT INTO \"Snap\"\"; DROP\".\"a.b'c\" VALUES (1, 'x'), (2, ''';--')",
    )
    .await
    .unwrap();
    let snapshots = snapshots(&target(&cluster), SnapshotLimits::default());
    let topic = Topic::table("Snap\"; DROP.a.b'c").unwrap();
    let interest = wanting("\"we ird,=.\"=eq.';--,\"i\\\"d\"=gt.0");
    assert_eq!(shown(&snapshots.snapshot(&topic, &interest).await.unwrap()), [r#"2 "';--""#]);
}

#[tokio::test]
async fn what_the_rows_contain_is_told_by_transaction() {
    let cluster = cluster();
    let table = Table::new(&cluster, "snapshot_seen", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let insert = "INSERT INTO t SELECT 1 RETURNING pg_current_xact_id()::text::bigint";
    let before: i64 = table.sql.query_one(insert, &[]).await.unwrap().get(0);
    let other = sql(&cluster).await;
    other.batch_execute("BEGIN").await.unwrap();
    let insert =
        "INSERT INTO snapshot_seen.t SELECT 2 RETURNING pg_current_xact_id()::text::bigint";
    let during: i64 = other.query_one(insert, &[]).await.unwrap().get(0);
    let rows = table.snapshots.snapshot(&table.topic, &everything()).await.unwrap();
    assert_eq!(shown(&rows), ["1"]);
    assert!(rows.seen.contains(before.unsigned_abs()));
    assert!(!rows.seen.contains(during.unsigned_abs()));
    other.batch_execute("COMMIT").await.unwrap();
    let rows = table.snapshots.snapshot(&table.topic, &everything()).await.unwrap();
    assert_eq!(shown(&rows), ["1", "2"]);
    assert!(rows.seen.contains(during.unsigned_abs()));
}

#[tokio::test]
async fn parts_count_where_their_changes_do() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (id int) PARTITION BY RANGE (id); \
                 CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10); \
                 CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (20); \
                 INSERT INTO t VALUES (5), (15)";
    let table = Table::new(&cluster, "snapshot_parts", setup).await;
    let mut rows = table.rows(&everything()).await;
    rows.sort();
    assert_eq!(rows, ["15", "5"]);
    let setup = "CREATE TABLE t (id int); CREATE TABLE child () INHERITS (t); \
                 INSERT INTO t VALUES (1); INSERT INTO child VALUES (2)";
    let table = Table::new(&cluster, "snapshot_child", setup).await;
    assert_eq!(table.rows(&everything()).await, ["1"]);
}

#[tokio::test]
async fn too_much_is_refused_with_what_to_do() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, body text); \
                 INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) n";
    let limits = SnapshotLimits { rows: 1_000, bytes: 200_000, ..SnapshotLimits::default() };
    let table = Table::with(&cluster, "snapshot_large", setup, limits).await;
    for interest in [
        everything(),
        wanting("id=lte.300"),
        Interest { columns: vec!["id".into()], ..wanting("id=lte.1001") },
    ] {
        let (code, message) = table.refused(&interest).await;
        assert_eq!(code, Code::TooLarge, "{interest:?}");
        assert!(message.contains("1000 rows or 200000 bytes: narrow the filter"), "{message}");
    }
    assert_eq!(table.rows(&wanting("id=lte.150")).await.len(), 150);
    let most = Interest { columns: vec!["id".into()], ..wanting("id=lte.1000") };
    assert_eq!(table.rows(&most).await.len(), 1_000);
    let none = table.rows(&wanting("id=eq.0")).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_row_of_many_megabytes_is_refused_and_the_next_question_answered() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, body text); \
                 INSERT INTO t VALUES (1, repeat('x', 64 * 1024 * 1024)), (2, 'small')";
    let table = Table::new(&cluster, "snapshot_wide", setup).await;
    assert_eq!(table.refused(&everything()).await.0, Code::TooLarge);
    assert_eq!(table.rows(&wanting("id=eq.2")).await, [r#"2 "small""#]);
}

#[tokio::test]
async fn equal_questions_share_an_answer_and_none_is_older_than_its_question() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (id int PRIMARY KEY); \
                 INSERT INTO t SELECT generate_series(1, 2000)";
    let table = Table::new(&cluster, "snapshot_shared", setup).await;
    let ask = || {
        let (snapshots, topic) = (table.snapshots.clone(), table.topic.clone());
        tokio::spawn(async move { snapshots.snapshot(&topic, &everything()).await.unwrap() })
    };
    let crowd: Vec<_> = (0..300).map(|_| ask()).collect();
    let mut answers = Vec::new();
    for one in crowd {
        answers.push(one.await.unwrap());
    }
    let mut distinct: Vec<_> = answers.iter().map(|rows| Arc::as_ptr(&rows.rows)).collect();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() <= 3, "{} queries for 300 listeners", distinct.len());

    let background = tokio::spawn({
        let (snapshots, topic) = (table.snapshots.clone(), table.topic.clone());
        async move {
            loop {
                snapshots.snapshot(&topic, &everything()).await.unwrap();
            }
        }
    });
    for id in 3_000..3_050 {
        table.sql.execute("INSERT INTO t VALUES ($1)", &[&id]).await.unwrap();
        let rows = ask().await.unwrap();
        assert_eq!(rows.rows.last().unwrap().json(0), Some(&*id.to_string()));
    }
    background.abort();
}

#[tokio::test]
async fn a_table_that_was_altered_is_read_as_it_is_now() {
    let cluster = cluster();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 7)";
    let table = Table::new(&cluster, "snapshot_altered", setup).await;
    assert_eq!(table.rows(&wanting("a=eq.7")).await, ["1 7"]);
    table.sql.batch_execute("ALTER TABLE t ALTER a TYPE text, ADD b bool").await.unwrap();
    assert_eq!(table.rows(&wanting("a=eq.7")).await, [r#"1 "7" null"#]);
    table.sql.batch_execute("ALTER TABLE t RENAME a TO c").await.unwrap();
    let (code, message) = table.refused(&wanting("a=eq.7")).await;
    assert_eq!(code, Code::BadField);
    assert!(message.contains("has no column \"a\""), "{message}");
    table.sql.batch_execute("DROP TABLE t").await.unwrap();
    assert_eq!(table.refused(&everything()).await.0, Code::NotFound);
}

#[tokio::test]
async fn a_table_that_is_locked_for_long_is_unavailable_and_nothing_stays_open() {
    let cluster = own_cluster();
    let limits = SnapshotLimits { time: Duration::from_millis(300), ..SnapshotLimits::default() };
    let table = Table::with(&cluster, "snapshot_locked", "CREATE TABLE t (id int)", limits).await;
    table.sql.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let (code, message) = table.refused(&everything()).await;
    assert_eq!(code, Code::Unavailable, "{message}");
    table.sql.batch_execute("COMMIT").await.unwrap();
    assert!(table.rows(&everything()).await.is_empty());
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    let open: i64 = table.sql.query_one(open, &[]).await.unwrap().get(0);
    assert_eq!(open, 0);
}

#[tokio::test]
async fn a_role_that_may_not_read_the_table_is_told_what_to_grant() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE t (id int); CREATE ROLE reader LOGIN; \
                 GRANT USAGE ON SCHEMA snapshot_rights TO reader";
    let table = Table::new(&cluster, "snapshot_rights", setup).await;
    // The cluster trusts everyone on its socket.
    let url = cluster.socket_url().unwrap();
    let (_, place) = url.split_once('@').unwrap();
    let target: Target = format!("postgresql://reader@{place}").parse().unwrap();
    let snapshots = snapshots(&target, SnapshotLimits::default());
    let refusal = snapshots.snapshot(&table.topic, &everything()).await.err().unwrap();
    assert_eq!(refusal.code, Code::NotConfigured);
    assert!(refusal.message.contains("grant SELECT"), "{}", refusal.message);
}

#[tokio::test]
async fn a_database_that_is_down_is_unavailable() {
    let cluster = own_cluster();
    let table = Table::new(&cluster, "snapshot_down", "CREATE TABLE t (id int)").await;
    assert!(table.rows(&everything()).await.is_empty());
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
    assert_eq!(table.refused(&everything()).await.0, Code::Unavailable);
}

#[tokio::test]
async fn what_jsonb_cannot_hold_is_told_as_it_was_written() {
    let cluster = cluster();
    let setup = r#"CREATE TABLE t (id int PRIMARY KEY, doc json);
                   INSERT INTO t VALUES (1, '{"a" : "\u0000"}'), (2, '{"b":"\ud800"}'), (3, '[1e1]')"#;
    let table = Table::new(&cluster, "snapshot_json", setup).await;
    assert_eq!(
        table.rows(&everything()).await,
        [r#"1 {"a" : "\u0000"}"#, r#"2 {"b":"\ud800"}"#, "3 [10]"]
    );
}

#[tokio::test]
async fn casts_that_the_owner_of_a_table_made_never_run() {
    let cluster = cluster();
    let setup = "CREATE TYPE mood AS ENUM ('calm', 'cross');
        CREATE TYPE pair AS (a int, b mood);
        CREATE FUNCTION evil(mood) RETURNS json LANGUAGE plpgsql
          AS $$BEGIN RAISE EXCEPTION 'evil ran as %', current_user; END$$;
        CREATE FUNCTION evil_text(mood) RETURNS text LANGUAGE plpgsql
          AS $$BEGIN RAISE EXCEPTION 'evil ran as %', current_user; END$$;
        CREATE FUNCTION evil_in(text) RETURNS mood LANGUAGE plpgsql
          AS $$BEGIN RAISE EXCEPTION 'evil ran as %', current_user; END$$;
        CREATE CAST (mood AS json) WITH FUNCTION evil(mood) AS IMPLICIT;
        CREATE CAST (mood AS text) WITH FUNCTION evil_text(mood) AS ASSIGNMENT;
        CREATE CAST (text AS mood) WITH FUNCTION evil_in(text) AS ASSIGNMENT;
        CREATE TABLE t (id int PRIMARY KEY, feels mood, two pair, list mood[]);
        INSERT INTO t VALUES (1, 'calm', ROW(1, 'cross'), '{calm,cross}'), (2, NULL, NULL, NULL)";
    let table = Table::new(&cluster, "snapshot_casts", setup).await;
    let first = r#"1 "calm" {"a": 1, "b": "cross"} ["calm", "cross"]"#;
    assert_eq!(table.rows(&everything()).await, [first, "2 null null null"]);
    for filter in ["feels=eq.calm", "feels=in.(calm,cross)", "feels=lt.cross", "feels=not.is.null"]
    {
        assert_eq!(table.rows(&wanting(filter)).await, [first], "{filter}");
    }
    let (code, message) = table.refused(&wanting("feels=eq.happy")).await;
    assert_eq!(code, Code::BadField);
    assert!(message.contains("\"happy\" is not a value of type snapshot_casts.mood"), "{message}");
}

#[tokio::test]
async fn policies_make_a_snapshot_fail_instead_of_hiding_rows() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);
                 CREATE FUNCTION evil(int) RETURNS boolean LANGUAGE plpgsql
                   AS $$BEGIN RAISE EXCEPTION 'evil ran as %', current_user; END$$;
                 CREATE POLICY few ON t USING (evil(id)); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
                 CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA snapshot_policy TO reader;
                 GRANT SELECT ON t TO reader";
    let table = Table::new(&cluster, "snapshot_policy", setup).await;
    let url = cluster.socket_url().unwrap();
    let (_, place) = url.split_once('@').unwrap();
    let target: Target = format!("postgresql://reader@{place}").parse().unwrap();
    let refused = snapshots(&target, SnapshotLimits::default());
    let refusal = refused.snapshot(&table.topic, &everything()).await.err().unwrap();
    assert_eq!(refusal.code, Code::NotConfigured);
    assert!(refusal.message.contains("BYPASSRLS"), "{}", refusal.message);
    // The superuser is under no policy, and runs none.
    assert_eq!(table.rows(&everything()).await, ["1", "2"]);
}
