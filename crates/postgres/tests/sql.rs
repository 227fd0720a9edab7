//! What is installed in a database, and how it comes and goes.

mod publish;
mod strangers;
mod triggers;

use tidewire_postgres::Target;
use tidewire_postgres::sql::{self, InstallOptions, Sink, SqlError};
use tokio_postgres::Client;

use crate::support::{cluster, connect, database, database_url};

/// Everything in the database that is not PostgreSQL's own.
async fn objects(client: &Client) -> Vec<String> {
    const SQL: &str = "\
        SELECT 'schema ' || nspname FROM pg_namespace
          WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL SELECT 'relation ' || c.oid::regclass::text FROM pg_class c
          JOIN pg_namespace n ON n.oid = relnamespace
          WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p
          JOIN pg_namespace n ON n.oid = pronamespace
          WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger ORDER BY 1";
    client.query(SQL, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn install(target: &Target) {
    sql::install(target, &InstallOptions::default()).await.unwrap();
}

#[tokio::test]
async fn installing_again_changes_nothing_and_uninstalling_leaves_nothing() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_again").await;
    client.batch_execute("CREATE TABLE items (id int PRIMARY KEY)").await.unwrap();
    let before = objects(&client).await;
    assert_eq!(sql::installation(&target).await.unwrap(), None);
    install(&target).await;
    client.batch_execute("SELECT enable_realtime('public', 'items')").await.unwrap();
    let installed = objects(&client).await;
    install(&target).await;
    assert_eq!(objects(&client).await, installed);
    let found = sql::installation(&target).await.unwrap().unwrap();
    assert_eq!((found.version, found.schema.as_str()), (sql::VERSION, "public"));
    sql::uninstall(&target).await.unwrap();
    assert_eq!(objects(&client).await, before);
    // A user's write needs nothing of ours.
    client.batch_execute("INSERT INTO items VALUES (1)").await.unwrap();
    sql::uninstall(&target).await.unwrap();
}

#[tokio::test]
async fn several_may_install_at_the_same_time() {
    let cluster = cluster();
    let (target, _client) = database(&cluster, "sql_together").await;
    let options = InstallOptions::default();
    let all = (0..4).map(|_| sql::install(&target, &options));
    for outcome in futures_util::future::join_all(all).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn what_is_printed_is_what_is_run() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_printed").await;
    client.batch_execute(&sql::print(&InstallOptions::default())).await.unwrap();
    assert!(sql::installation(&target).await.unwrap().is_some());
}

#[tokio::test]
async fn the_query_of_the_readme_lists_tables_that_are_on() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_readme").await;
    let long = "x".repeat(63);
    client
        .batch_execute(&format!(
            "CREATE TABLE products (id int); CREATE TABLE \"Odd \"\" name's\" (id int); \
             CREATE SCHEMA \"Other\"; CREATE TABLE \"Other\".{long} (id int)"
        ))
        .await
        .unwrap();
    install(&target).await;
    for call in [
        "SELECT enable_realtime('public', 'products')".to_owned(),
        "SELECT enable_realtime('Odd \" name''s')".to_owned(),
        format!("SELECT enable_realtime('Other', '{long}')"),
        format!("SELECT enable_realtime('\"Other\".{long}')"),
    ] {
        client.batch_execute(&call).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    const README: &str = "SELECT trigger_schema, event_object_table AS table_name, trigger_name \
        FROM information_schema.triggers WHERE trigger_name LIKE '%_notify_change'";
    let listed = client.query(&format!("SELECT DISTINCT * FROM ({README}) q"), &[]).await.unwrap();
    assert_eq!(listed.len(), 3);
    let name: String = client
        .query_one(&format!("{README} AND event_object_table = 'products' LIMIT 1"), &[])
        .await
        .unwrap()
        .get(2);
    assert_eq!(name, "products_notify_change");
    let on = client.query("SELECT * FROM realtime_enabled_tables", &[]).await.unwrap();
    assert_eq!(on.len(), 3);
    client
        .batch_execute(
            "SELECT disable_realtime('products'), disable_realtime('public', 'Odd \" name''s')",
        )
        .await
        .unwrap();
    let on = client.query("SELECT * FROM realtime_enabled_tables", &[]).await.unwrap();
    assert_eq!(on.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_refused").await;
    client.batch_execute("CREATE VIEW seen AS SELECT 1 AS id").await.unwrap();
    install(&target).await;
    for (call, words) in [
        ("SELECT enable_realtime('public', 'nothing')", "no table"),
        ("SELECT enable_realtime('nothing')", "no table"),
        ("SELECT enable_realtime('seen')", "not an ordinary table"),
        ("SELECT enable_realtime('pg_catalog', 'pg_class')", "cannot be followed"),
    ] {
        let error = client.batch_execute(call).await.unwrap_err();
        let said = error.as_db_error().unwrap().message().to_owned();
        assert!(said.contains(words), "{call}: {said}");
    }
}

#[tokio::test]
async fn functions_of_somebody_else_are_left_alone_unless_they_are_to_be_replaced() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_foreign").await;
    client
        .batch_execute(
            "CREATE TABLE items (id int PRIMARY KEY); \
             CREATE FUNCTION notify_table_change() RETURNS trigger LANGUAGE plpgsql \
             AS 'BEGIN RAISE EXCEPTION ''old''; END'; \
             CREATE TRIGGER items_notify_change AFTER INSERT OR UPDATE OR DELETE ON items \
             FOR EACH ROW EXECUTE FUNCTION notify_table_change()",
        )
        .await
        .unwrap();
    let refused = sql::install(&target, &InstallOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("--replace"), "{refused}");
    let elsewhere = InstallOptions { schema: "My \"Own\"".to_owned(), ..Default::default() };
    client.batch_execute("CREATE SCHEMA \"My \"\"Own\"\"\"").await.unwrap();
    sql::install(&target, &elsewhere).await.unwrap();
    sql::uninstall(&target).await.unwrap();
    sql::install(&target, &InstallOptions { replace: true, ..Default::default() }).await.unwrap();
    // The trigger that was there feeds ours.
    client.batch_execute("INSERT INTO items VALUES (1)").await.unwrap();
    let rows = client.query("SELECT * FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_newer_version_is_not_written_over() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_newer").await;
    install(&target).await;
    client.batch_execute("INSERT INTO tidewire.versions (version) VALUES (99)").await.unwrap();
    let refused = sql::install(&target, &InstallOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("newer"), "{refused}");
}

#[tokio::test]
async fn an_owner_without_other_rights_installs_and_writers_need_none() {
    let cluster = cluster();
    let (_, admin) = database(&cluster, "sql_owner").await;
    admin
        .batch_execute(
            "CREATE ROLE sql_owner_app LOGIN; CREATE ROLE sql_owner_writer LOGIN; \
             ALTER DATABASE sql_owner OWNER TO sql_owner_app",
        )
        .await
        .unwrap();
    let url = database_url(&cluster, "sql_owner");
    let as_role =
        |role: &str| url.replacen("postgresql://postgres@", &format!("postgresql://{role}@"), 1);
    let writer_target: Target = as_role("sql_owner_writer").parse().unwrap();
    let refused = sql::install(&writer_target, &InstallOptions::default()).await.unwrap_err();
    assert!(matches!(refused, SqlError::Right { .. }), "{refused}");
    assert!(refused.to_string().contains("tidewire sql"), "{refused}");

    let target: Target = as_role("sql_owner_app").parse().unwrap();
    install(&target).await;
    let app = connect(&as_role("sql_owner_app")).await;
    app.batch_execute(
        "CREATE TABLE items (id int PRIMARY KEY); GRANT INSERT ON items TO sql_owner_writer; \
         SELECT enable_realtime('items')",
    )
    .await
    .unwrap();
    let writer = connect(&as_role("sql_owner_writer")).await;
    writer.batch_execute("INSERT INTO items VALUES (1)").await.unwrap();
    for forbidden in [
        "SELECT * FROM tidewire.outbox",
        "SELECT tidewire.publish('t', 'x')",
        "SELECT enable_realtime('items')",
        "SELECT tidewire.prune()",
    ] {
        assert!(writer.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
    let rows = app.query("SELECT * FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    sql::uninstall(&target).await.unwrap();
}

#[tokio::test]
async fn publishing_checks_the_topic_and_follows_the_source_in_use() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_publish").await;
    sql::set_sink(&target, Sink::Wal).await.unwrap();
    install(&target).await;
    for bad in ["''", "repeat('x', 256)", "E'a\\nb'", "NULL"] {
        let call = format!("SELECT tidewire.publish({bad}, 'x')");
        assert!(client.batch_execute(&call).await.is_err(), "{bad}");
    }
    sql::set_sink(&target, Sink::Wal).await.unwrap();
    client
        .batch_execute("SELECT pg_create_logical_replication_slot('sql_publish', 'test_decoding')")
        .await
        .unwrap();
    // Decoding reads what is flushed.
    client.batch_execute("SET synchronous_commit = on").await.unwrap();
    client
        .batch_execute("SELECT tidewire.publish('room', '{\"a\": 1}'::jsonb, 'said'), tidewire.publish('room', 'hi')")
        .await
        .unwrap();
    const READ: &str = "SELECT data FROM pg_logical_slot_get_changes('sql_publish', NULL, NULL) \
                        WHERE data ~ 'prefix: tidewire'";
    let said: Vec<String> =
        client.query(READ, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    client.batch_execute("SELECT pg_drop_replication_slot('sql_publish')").await.unwrap();
    assert_eq!(said.len(), 2);
    assert!(
        said[0].contains(r#"{"topic" : "room", "event" : "said", "json" : {"a": 1}}"#),
        "{said:?}"
    );
    assert!(said[1].contains(r#"{"topic" : "room", "event" : null, "text" : "hi"}"#), "{said:?}");
}

#[tokio::test]
async fn a_write_survives_whatever_happens_to_the_outbox() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_survives").await;
    install(&target).await;
    client
        .batch_execute(
            "CREATE TABLE items (id int PRIMARY KEY, body json); SELECT enable_realtime('items')",
        )
        .await
        .unwrap();
    // A json value that jsonb cannot hold.
    client.batch_execute("INSERT INTO items VALUES (1, '\"\\u0000\"')").await.unwrap();
    let op: String =
        client.query_one("SELECT op::text FROM tidewire.outbox", &[]).await.unwrap().get(0);
    assert_eq!(op, "E");
    client.batch_execute("DROP TABLE tidewire.outbox CASCADE").await.unwrap();
    client.batch_execute("INSERT INTO items VALUES (2); TRUNCATE items").await.unwrap();
    install(&target).await;
    client.batch_execute("INSERT INTO items VALUES (3)").await.unwrap();
    let rows = client.query("SELECT * FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn writers_remove_what_nobody_reads() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "sql_prunes").await;
    install(&target).await;
    client
        .batch_execute(
            "CREATE TABLE items (id int); SELECT enable_realtime('items'); \
             UPDATE tidewire.settings SET retention = '0 seconds'",
        )
        .await
        .unwrap();
    for _ in 0..20 {
        client.batch_execute("INSERT INTO items SELECT generate_series(1, 256)").await.unwrap();
    }
    let left: i64 =
        client.query_one("SELECT count(*) FROM tidewire.outbox", &[]).await.unwrap().get(0);
    assert!(left <= 1024, "{left} of 5120 rows are left");
}

#[tokio::test]
async fn the_grants_of_the_documentation_are_enough() {
    let cluster = cluster();
    let (target, admin) = database(&cluster, "sql_grants").await;
    install(&target).await;
    let documentation = include_str!("../../../docs/sql.md");
    let grants = documentation.split("```sql\n").find(|block| block.contains("TO app_owner"));
    let (grants, _) = grants.and_then(|block| block.split_once("```")).expect("a block of grants");
    admin
        .batch_execute(
            "CREATE ROLE app_owner LOGIN; CREATE ROLE app LOGIN; CREATE ROLE tidewire_server LOGIN; \
             GRANT CREATE ON SCHEMA public TO app_owner",
        )
        .await
        .unwrap();
    admin.batch_execute(grants).await.unwrap();
    let url = database_url(&cluster, "sql_grants");
    let as_role =
        async |role: &str| connect(&url.replacen("//postgres@", &format!("//{role}@"), 1)).await;
    let owner = as_role("app_owner").await;
    owner
        .batch_execute(
            "CREATE TABLE mine (id int PRIMARY KEY); SELECT enable_realtime('mine'); \
             SELECT * FROM realtime_enabled_tables; SELECT disable_realtime('public', 'mine')",
        )
        .await
        .unwrap();
    let app = as_role("app").await;
    app.batch_execute("SELECT tidewire.publish('t', 'x'), tidewire.publish('t', '1'::jsonb)")
        .await
        .unwrap();
    assert!(app.batch_execute("SELECT * FROM tidewire.outbox").await.is_err());
    let server = as_role("tidewire_server").await;
    let rows = server.query("SELECT * FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
}
