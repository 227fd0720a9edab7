//! Roles that may not do everything.

use tidewire::Upstream;
use tidewire_postgres::sql::{self, InstallOptions};
use tidewire_postgres::{OutboxOptions, OutboxSource, TableOptions, TableSource, Target};
use tidewire_protocol::Code;

use super::table;
use crate::support::changes::Witness;
use crate::support::{cluster, database, database_url};

#[tokio::test]
async fn without_rights_the_refusal_names_the_command_and_with_few_it_works() {
    let cluster = cluster();
    let (target, admin) = database(&cluster, "ob_rights").await;
    admin
        .batch_execute("CREATE ROLE ob_reader LOGIN; CREATE TABLE a (id int PRIMARY KEY)")
        .await
        .unwrap();
    let url = database_url(&cluster, "ob_rights");
    let url = url.replacen("postgresql://postgres@", "postgresql://ob_reader@", 1);
    let reader: Target = url.parse().unwrap();
    let (publisher, mut witness) = Witness::new();
    let source = OutboxSource::start(reader, publisher, OutboxOptions::default());
    let refused = source.add(&table("public.a")).await.unwrap_err();
    assert_eq!(refused.code, Code::NotConfigured);
    assert!(refused.message.contains("tidewire sql install"), "{}", refused.message);

    sql::install(&target, &InstallOptions::default()).await.unwrap();
    admin
        .batch_execute(
            "SELECT enable_realtime('a'); GRANT USAGE ON SCHEMA tidewire TO ob_reader; \
             GRANT SELECT ON tidewire.versions, tidewire.settings, tidewire.outbox_losses TO ob_reader; \
             GRANT SELECT, DELETE ON tidewire.outbox TO ob_reader; \
             GRANT SELECT, INSERT, UPDATE ON tidewire.outbox_epoch TO ob_reader",
        )
        .await
        .unwrap();
    source.add(&table("public.a")).await.unwrap();
    witness.next().await;
    admin.batch_execute("INSERT INTO a VALUES (1)").await.unwrap();
    witness.change().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_source_that_may_not_install_says_who_can() {
    let cluster = cluster();
    let (target, admin) = database(&cluster, "ob_asks").await;
    admin.batch_execute("CREATE TABLE a (id int PRIMARY KEY)").await.unwrap();
    let (publisher, _witness) = Witness::new();
    let options = OutboxOptions { install: false, ..OutboxOptions::default() };
    let source = OutboxSource::start(target.clone(), publisher, options);
    let refused = source.add(&table("public.a")).await.unwrap_err();
    assert!(refused.message.contains("tidewire sql install"), "{}", refused.message);
    sql::install(&target, &InstallOptions::default()).await.unwrap();
    let refused = source.add(&table("public.a")).await.unwrap_err();
    assert!(refused.message.contains("enable_realtime"), "{}", refused.message);
    admin.batch_execute("SELECT enable_realtime('a')").await.unwrap();
    source.add(&table("public.a")).await.unwrap();
}

#[tokio::test]
async fn a_role_that_may_only_replicate_is_told_of_both_ways() {
    let cluster = cluster();
    let (_, admin) = database(&cluster, "ob_either").await;
    admin
        .batch_execute(
            "CREATE ROLE ob_copier LOGIN REPLICATION; CREATE TABLE a (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    let url = database_url(&cluster, "ob_either");
    let url = url.replacen("postgresql://postgres@", "postgresql://ob_copier@", 1);
    let (publisher, _witness) = Witness::new();
    let source = TableSource::start(url.parse().unwrap(), publisher, TableOptions::default());
    let refused = source.attach(&table("public.a")).await.unwrap_err();
    assert_eq!(refused.code, Code::NotConfigured);
    for fix in ["tidewire sql install", "GRANT CREATE ON DATABASE ob_either", "wal.publication"] {
        assert!(refused.message.contains(fix), "{}", refused.message);
    }
    source.shutdown().await;
}
