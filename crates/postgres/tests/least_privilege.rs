//! The roles that `docs/security.md` recommends, made as it is written there.

use tidewire::Upstream;
use tidewire::protocol::Interest;
use tidewire_postgres::doctor;
use tidewire_postgres::{SourceChoice, TableOptions, TableSource, Target, WalOptions};
use tidewire_protocol::Topic;

use crate::support::changes::Witness;
use crate::support::{database, own_cluster};
use crate::wal::quick;

/// The statements of the guide that make the server's role.
fn statements() -> String {
    const GUIDE: &str = include_str!("../../../docs/security.md");
    let (_, from) = GUIDE.split_once("CREATE ROLE tidewire LOGIN REPLICATION").unwrap();
    let (sql, _) = from.split_once("```").unwrap();
    format!("CREATE ROLE tidewire LOGIN REPLICATION{sql}").replace('…', "secret")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_that_the_guide_makes_follows_tables_by_the_log_and_reads_them() {
    let cluster = own_cluster();
    let (_, sql) = database(&cluster, "shop").await;
    sql.batch_execute(
        "CREATE TABLE public.orders (id int PRIMARY KEY, total numeric);
         INSERT INTO public.orders VALUES (1, 9.50)",
    )
    .await
    .unwrap();
    sql.batch_execute(&statements()).await.unwrap();
    let url = cluster.socket_url().unwrap();
    let (_, place) = url.split_once('@').unwrap();
    let place = place.strip_suffix("/postgres").unwrap();
    let target: Target = format!("postgresql://tidewire@{place}/shop").parse().unwrap();
    let wal = WalOptions { publication: Some("tidewire_orders".to_owned()), ..quick() };

    let (publisher, mut witness) = Witness::new();
    let options =
        TableOptions { source: SourceChoice::Wal, wal: wal.clone(), ..TableOptions::default() };
    let tables = TableSource::start(target.clone(), publisher, options);
    let orders = Topic::table("public.orders").unwrap();
    tables.attach(&orders).await.unwrap();
    let rows = tables.snapshot(&orders, &Interest::default()).await.unwrap();
    assert_eq!(rows.rows[0].json(1), Some("9.50"));
    witness.next().await;
    sql.batch_execute("INSERT INTO public.orders VALUES (2, 1)").await.unwrap();
    assert_eq!(witness.change().await.record.as_ref().unwrap().json(0), Some("2"));
    tables.shutdown().await;

    let found = doctor::tables(&target, &wal).await.unwrap();
    assert_eq!((found[0].live(), found[0].obstacles().len()), (vec!["wal"], 1), "{found:?}");
    assert!(found[0].obstacles()[0].starts_with("outbox: GRANT TRIGGER"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_sends_a_part_of_a_table_is_refused_and_told() {
    let cluster = own_cluster();
    let (target, sql) = database(&cluster, "partial").await;
    sql.batch_execute(
        "CREATE TABLE t (id int PRIMARY KEY, name text, secret text);
         CREATE TABLE whole (id int PRIMARY KEY)",
    )
    .await
    .unwrap();
    let wal = || WalOptions { publication: Some("live".to_owned()), ..quick() };
    let table = Topic::table("public.t").unwrap();
    for (publication, part) in [
        ("FOR TABLE t, whole WITH (publish = 'insert, update, delete')", "does not send truncate"),
        ("FOR TABLE t WHERE (id > 5), whole", "sends only some rows of public.t"),
        ("FOR TABLE t (id, name), whole", "sends only some columns of public.t"),
        ("FOR ALL TABLES WITH (publish = 'insert')", "does not send update, delete, truncate"),
        ("FOR TABLES IN SCHEMA public WITH (publish = 'update')", "does not send insert"),
    ] {
        sql.batch_execute(&format!("CREATE PUBLICATION live {publication}")).await.unwrap();
        let (publisher, _witness) = Witness::new();
        let source = tidewire_postgres::WalSource::start(target.clone(), publisher, wal());
        let refused = source.add(&table).await.unwrap_err();
        assert!(refused.message.contains(part), "{publication}: {}", refused.message);
        let listed = doctor::tables(&target, &wal()).await.unwrap();
        assert!(listed[0].obstacles().join("; ").contains(part), "{listed:?}");
        assert!(listed[0].live().is_empty(), "{listed:?}");
        let report = doctor::examine(&target, &wal()).await.text();
        assert!(report.contains("public.t"), "{report}");
        // The statement that is told mends it.
        let (_, fix) = refused.message.split_once(": ").unwrap();
        sql.batch_execute(fix).await.unwrap();
        source.add(&table).await.unwrap_or_else(|refusal| panic!("{refusal:?} after {fix}"));
        source.shutdown().await;
        sql.batch_execute("DROP PUBLICATION live").await.unwrap();
    }
}
