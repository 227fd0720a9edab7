//! Triggers count as on when they are whole, and an application's own are never touched.

use tidewire_postgres::doctor::{self, Outcome};
use tidewire_postgres::{OutboxOptions, OutboxSource, WalOptions};
use tidewire_protocol::{Code, Topic};
use tokio_postgres::Client;

use super::install;
use crate::support::changes::Witness;
use crate::support::{cluster, database};

/// The triggers of a table: name, function, and whether it is whole and always fires.
async fn triggers(client: &Client, table: &str) -> Vec<(String, String, bool)> {
    let rows = client
        .query(
            "SELECT tgname::text, tgfoid::regproc::text, tgenabled = 'A' AND tgqual IS NULL \
               AND cardinality(tgattr::int2[]) = 0 AND tgtype IN (29, 32) \
             FROM pg_trigger WHERE tgrelid = $1::text::regclass ORDER BY 1",
            &[&table],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn a_trigger_of_the_application_with_a_name_of_ours_is_never_touched() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "tr_app").await;
    client
        .batch_execute(
            "CREATE TABLE orders (id int PRIMARY KEY); \
             CREATE FUNCTION app() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER orders_notify_change AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION app(); \
             CREATE TRIGGER orders_notify_truncate AFTER TRUNCATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION app()",
        )
        .await
        .unwrap();
    let before = triggers(&client, "orders").await;
    install(&target).await;
    let (publisher, _witness) = Witness::new();
    let source = OutboxSource::start(target.clone(), publisher, OutboxOptions::default());
    source.add(&Topic::table("public.orders").unwrap()).await.unwrap();
    source.shutdown().await;
    let with_ours = triggers(&client, "orders").await;
    assert_eq!(with_ours.len(), 4);
    assert!(before.iter().all(|theirs| with_ours.contains(theirs)), "{with_ours:?}");
    client.batch_execute("INSERT INTO orders VALUES (1); TRUNCATE orders").await.unwrap();
    let rows = client.query("SELECT FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    tidewire_postgres::sql::uninstall(&target).await.unwrap();
    assert_eq!(triggers(&client, "orders").await, before);
}

#[tokio::test]
async fn triggers_that_leave_out_changes_are_told_refused_and_mended() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "tr_part").await;
    install(&target).await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, c int)").await.unwrap();
    let ours = "EXECUTE FUNCTION notify_table_change()";
    let whole = "t_notify_change";
    for (harm, why) in [
        (format!("CREATE TRIGGER x AFTER UPDATE OF c ON t FOR EACH ROW {ours}"), "does not fire"),
        (
            format!(
                "CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW \
                 WHEN (pg_trigger_depth() > 5) {ours}"
            ),
            "does not fire",
        ),
        (format!("CREATE TRIGGER x AFTER INSERT ON t FOR EACH STATEMENT {ours}"), "does not fire"),
        (
            format!("CREATE OR REPLACE TRIGGER {whole} AFTER UPDATE OF c ON t FOR EACH ROW {ours}"),
            "does not fire",
        ),
        (
            format!("CREATE TRIGGER x AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW {ours}"),
            "more than one",
        ),
        ("ALTER TABLE t DISABLE TRIGGER ALL".to_owned(), "switched off"),
        (format!("ALTER TABLE t ENABLE REPLICA TRIGGER {whole}"), "switched off"),
        ("DROP TRIGGER t_notify_truncate ON t".to_owned(), "no trigger for TRUNCATE"),
        (format!("DROP TRIGGER {whole} ON t"), "no trigger for its rows"),
    ] {
        client.batch_execute("SELECT enable_realtime('t')").await.unwrap();
        client.batch_execute(&harm).await.unwrap();
        let (publisher, _witness) = Witness::new();
        let options = OutboxOptions { install: false, ..OutboxOptions::default() };
        let source = OutboxSource::start(target.clone(), publisher, options);
        let refused = source.add(&Topic::table("public.t").unwrap()).await.unwrap_err();
        source.shutdown().await;
        assert_eq!(refused.code, Code::NotConfigured, "{harm}");
        assert!(refused.message.contains(why), "{harm}: {}", refused.message);
        assert!(refused.message.contains("enable_realtime('public', 't')"), "{}", refused.message);
        let report = doctor::examine(&target, &WalOptions::default()).await;
        let check = report.checks.iter().find(|check| check.name == "triggers").unwrap();
        assert_eq!(check.outcome, Outcome::Warn, "{harm}");
        assert!(report.text().contains(why), "{harm}: {}", report.text());
        let tables = doctor::tables(&target, &WalOptions::default()).await.unwrap();
        assert!(tables[0].obstacles().iter().any(|text| text.contains(why)), "{harm}");
        client.batch_execute("SELECT enable_realtime('t')").await.unwrap();
        let mended = triggers(&client, "t").await;
        assert!(mended.len() == 2 && mended.iter().all(|(.., fine)| *fine), "{harm}: {mended:?}");
    }
}

#[tokio::test]
async fn ordinary_triggers_are_told_and_made_to_fire_always_where_that_is_allowed() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "tr_always").await;
    install(&target).await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); SELECT enable_realtime('t'); \
                        ALTER TABLE t ENABLE TRIGGER ALL",
        )
        .await
        .unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert!(report.text().contains("session_replication_role"), "{}", report.text());
    let (publisher, _witness) = Witness::new();
    let source = OutboxSource::start(target.clone(), publisher, OutboxOptions::default());
    source.add(&Topic::table("public.t").unwrap()).await.unwrap();
    source.shutdown().await;
    assert!(triggers(&client, "t").await.iter().all(|(.., fine)| *fine));
    client
        .batch_execute("SET session_replication_role = replica; INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let rows = client.query("SELECT FROM tidewire.outbox", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_partition_whose_trigger_is_off_is_told_and_mended() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "tr_partition").await;
    install(&target).await;
    client
        .batch_execute(
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
             SELECT enable_realtime('p'); ALTER TABLE p1 DISABLE TRIGGER ALL",
        )
        .await
        .unwrap();
    let tables = doctor::tables(&target, &WalOptions::default()).await.unwrap();
    assert!(tables[0].obstacles().iter().any(|text| text.contains("p1")), "{tables:?}");
    assert!(!tables[0].live().contains(&"outbox"));
    client.batch_execute("SELECT enable_realtime('p')").await.unwrap();
    assert!(triggers(&client, "p1").await.iter().all(|(.., fine)| *fine));
    assert!(
        doctor::tables(&target, &WalOptions::default()).await.unwrap()[0]
            .live()
            .contains(&"outbox")
    );
}
