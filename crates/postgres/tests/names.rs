//! Names of tables, read alike by both sources, and databases that are odd to either.

use tidewire::Upstream;
use tidewire_postgres::{SourceChoice, TableOptions, TableSource};
use tidewire_protocol::{Code, Topic};

use crate::support::changes::Witness;
use crate::support::{cluster, database};
use crate::wal::quick;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_dot_ends_the_schema_and_no_other_schema_is_reached() {
    let cluster = cluster();
    for (name, source) in [("names_wal", SourceChoice::Wal), ("names_outbox", SourceChoice::Outbox)]
    {
        let (target, sql) = database(&cluster, name).await;
        sql.batch_execute(
            "CREATE SCHEMA \"public.hidden\";
             CREATE TABLE \"public.hidden\".salaries (id int PRIMARY KEY);
             CREATE TABLE \"dotted.name\" (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
        let (publisher, _witness) = Witness::new();
        let options = TableOptions { source, wal: quick(), ..TableOptions::default() };
        let tables = TableSource::start(target, publisher, options);
        let attach = async |name: &str| tables.attach(&Topic::table(name).unwrap()).await;
        // What a grant for `table:public.*` matches is a table of schema public.
        let refused = attach("public.hidden.salaries").await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound, "{refused:?}");
        attach("public.dotted.name").await.unwrap();
        // PostgreSQL cuts names off at 63 bytes; a longer one is nobody's.
        let long = format!("public.{}", "x".repeat(64));
        assert_eq!(attach(&long).await.unwrap_err().code, Code::NotFound);
        let long = format!("{}.t", "x".repeat(100));
        assert_eq!(attach(&long).await.unwrap_err().code, Code::NotFound);
        tables.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_by_default_is_followed_all_the_same() {
    let cluster = cluster();
    for (name, source) in
        [("guarded_wal", SourceChoice::Wal), ("guarded_outbox", SourceChoice::Outbox)]
    {
        let (target, sql) = database(&cluster, name).await;
        let setup = format!(
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare ();
             ALTER DATABASE {name} SET default_transaction_read_only = on"
        );
        sql.batch_execute(&setup).await.unwrap();
        let (publisher, mut witness) = Witness::new();
        let options = TableOptions { source, wal: quick(), ..TableOptions::default() };
        let tables = TableSource::start(target, publisher, options);
        tables.attach(&Topic::table("public.t").unwrap()).await.unwrap();
        witness.next().await;
        sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(witness.change().await.record.as_ref().unwrap().json(0), Some("1"));
        let refused = tables.attach(&Topic::table("public.bare").unwrap()).await.unwrap_err();
        assert_eq!(refused.code, Code::BadTopic, "{refused:?}");
        tables.shutdown().await;
    }
}
