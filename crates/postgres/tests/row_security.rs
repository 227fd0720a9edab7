//! Tables with row level security: refused to everybody who does not bypass it, by both sources, also
//! when it is switched on while somebody listens.

use std::sync::Arc;

use tidewire::protocol::Interest;
use tidewire::{Action, Allowed, Authorizer, Identity, Upstream};
use tidewire_postgres::{
    OutboxOptions, RowSecurity, SecuredTables, SourceChoice, TableOptions, TableSource,
};
use tidewire_protocol::{Code, GapReason, Refusal, Topic};

use crate::support::changes::{Seen, Witness};
use crate::support::{cluster, database, until};
use crate::wal::quick;

const SETUP: &str = "
    CREATE TABLE open (id int PRIMARY KEY);
    CREATE TABLE secret (id int PRIMARY KEY);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    ALTER TABLE parted_1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    INSERT INTO open VALUES (1); INSERT INTO secret VALUES (1)";

fn options(source: SourceChoice, row_security: Option<RowSecurity>) -> TableOptions {
    TableOptions {
        source,
        wal: quick(),
        outbox: OutboxOptions::default(),
        row_security,
        ..TableOptions::default()
    }
}

fn table(name: &str) -> Topic {
    Topic::table(name).unwrap()
}

fn role(name: &str) -> Identity {
    Identity { role: Some(name.into()), subject: Some("u".into()), ..Identity::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_row_security_is_refused_by_both_sources_and_while_it_lasts() {
    let cluster = cluster();
    for (name, source) in [("rls_wal", SourceChoice::Wal), ("rls_outbox", SourceChoice::Outbox)] {
        let (target, sql) = database(&cluster, name).await;
        sql.batch_execute(SETUP).await.unwrap();
        let (publisher, mut witness) = Witness::new();
        let tables = TableSource::start(target, publisher, options(source, None));
        for secured in ["public.secret", "public.parted"] {
            let refused = tables.attach(&table(secured)).await.unwrap_err();
            assert_eq!(refused.code, Code::Forbidden, "{refused:?}");
            assert!(refused.message.contains("row_security.bypass_roles"), "{refused:?}");
        }
        let (open, everything) = (table("public.open"), Interest::default());
        tables.attach(&open).await.unwrap();
        assert_eq!(tables.snapshot(&open, &everything).await.unwrap().rows.len(), 1);

        let mut secured = tables.secured();
        sql.batch_execute("ALTER TABLE open ENABLE ROW LEVEL SECURITY").await.unwrap();
        let refused = tables.snapshot(&open, &everything).await.err().unwrap();
        assert_eq!(refused.code, Code::Forbidden);
        secured.changed().await.unwrap();
        let gap = Seen::Gap("public.open".to_owned(), GapReason::ConnectionLost);
        until("a gap", async || witness.taken().contains(&gap)).await;
        assert_eq!(tables.attach(&open).await.unwrap_err().code, Code::Forbidden);
        // What is written now is told to nobody, and a table without it goes on.
        sql.batch_execute("INSERT INTO open VALUES (2); CREATE TABLE other (id int PRIMARY KEY)")
            .await
            .unwrap();
        tables.attach(&table("public.other")).await.unwrap();
        sql.batch_execute("INSERT INTO other VALUES (1)").await.unwrap();
        let told = loop {
            if let Seen::Change(change) = witness.next().await {
                break change;
            }
        };
        assert_eq!(&*told.relation.table, "other");

        sql.batch_execute("ALTER TABLE open DISABLE ROW LEVEL SECURITY").await.unwrap();
        until("it is followed again", async || tables.attach(&open).await.is_ok()).await;
        tables.shutdown().await;
    }
}

#[tokio::test]
async fn only_configured_roles_bypass_row_security() {
    struct Anything;
    #[async_trait::async_trait]
    impl Authorizer for Anything {
        async fn authorize(&self, _: &Identity, _: Action, _: &Topic) -> Result<Allowed, Refusal> {
            Ok(Allowed::default())
        }
    }
    let cluster = cluster();
    let (target, sql) = database(&cluster, "rls_roles").await;
    sql.batch_execute(SETUP).await.unwrap();
    let (open, secret) = (table("public.open"), table("public.secret"));
    for (bypass, identity, expected) in [
        (&[][..], Identity::everything(), false),
        (&[], role("service"), false),
        (&["service"], role("service"), true),
        (&["service"], role("authenticated"), false),
        (&["service"], Identity::anonymous(), false),
        (&["service"], Identity::everything(), false),
        (&["*"], Identity::everything(), true),
    ] {
        let rule = RowSecurity::new(&target, bypass.iter().copied());
        let authorizer = SecuredTables::new(Arc::new(Anything), rule);
        for action in [Action::Subscribe, Action::History] {
            let told = authorizer.authorize(&identity, action, &secret).await;
            assert_eq!(told.is_ok(), expected, "{bypass:?} {identity:?} {action:?}");
            authorizer.authorize(&identity, action, &open).await.unwrap();
        }
    }
    let rule = RowSecurity::new(&target, ["service"]);
    let (publisher, mut witness) = Witness::new();
    let tables = TableSource::start(target, publisher, options(SourceChoice::Wal, Some(rule)));
    tables.attach(&secret).await.unwrap();
    sql.batch_execute("INSERT INTO secret VALUES (2)").await.unwrap();
    until("a change", async || witness.taken().iter().any(|seen| matches!(seen, Seen::Change(_))))
        .await;
    tables.shutdown().await;
}
