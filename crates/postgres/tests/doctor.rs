//! What the doctor finds in databases that are well and in others.

use tidewire_postgres::doctor::{self, Outcome, Report};
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tidewire_postgres::sql::{self, InstallOptions};
use tidewire_postgres::{SlotKind, Target, WalOptions};

use crate::support::{cluster, database, database_url, target};

/// The outcome of one check and what was found.
fn of<'r>(report: &'r Report, name: &str) -> (Outcome, &'r str) {
    let check = report.checks.iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("{name} is not in:\n{}", report.text()));
    (check.outcome, &check.found)
}

#[tokio::test]
async fn a_database_that_is_well_is_well_before_and_after_installing() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "doctor_well").await;
    client.batch_execute("CREATE TABLE a (id int PRIMARY KEY)").await.unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert_eq!(report.outcome(), Outcome::Ok, "{}", report.text());
    sql::install(&target, &InstallOptions::default()).await.unwrap();
    client.batch_execute("SELECT enable_realtime('a')").await.unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert_eq!(report.outcome(), Outcome::Ok, "{}", report.text());
    assert_eq!(of(&report, "triggers").1, "on 1 tables");
    for name in ["connection", "version", "notify", "clock", "wal level", "replication", "reader"] {
        assert_eq!(of(&report, name).0, Outcome::Ok, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_well_comes_with_what_to_do() {
    let options = Options::default().setting("wal_level", "replica");
    let cluster = PrivateCluster::temporary(options.setting("max_wal_senders", "0")).unwrap();
    let (target, client) = database(&cluster, "doctor_ill").await;
    client
        .batch_execute(
            "CREATE TABLE keyless (id int); CREATE TABLE secret (id int PRIMARY KEY); \
             ALTER TABLE secret ENABLE ROW LEVEL SECURITY; CREATE ROLE doctor_app LOGIN",
        )
        .await
        .unwrap();
    sql::install(&target, &InstallOptions::default()).await.unwrap();
    client
        .batch_execute(
            "SELECT enable_realtime('secret'); \
             ALTER TABLE secret DISABLE TRIGGER secret_notify_truncate",
        )
        .await
        .unwrap();
    let url = database_url(&cluster, "doctor_ill");
    let app: Target = url.replacen("//postgres@", "//doctor_app@", 1).parse().unwrap();
    let report = doctor::examine(&app, &WalOptions::default()).await;
    for name in ["wal level", "replication", "wal senders", "outbox", "replica identity"] {
        assert_eq!(of(&report, name).0, Outcome::Warn, "{name}: {}", report.text());
    }
    assert!(of(&report, "row security").1.contains("public.secret"));
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert!(
        of(&report, "triggers").1.contains("switched off on public.secret"),
        "{}",
        report.text()
    );
    assert!(report.checks.iter().all(|c| (c.outcome == Outcome::Ok) == c.advice.is_none()));
    assert_eq!(of(&report, "tables"), (Outcome::Ok, "2 of 2 can be followed by this role"));
    client.batch_execute("SELECT disable_realtime('secret')").await.unwrap();
    let report = doctor::examine(&app, &WalOptions::default()).await;
    assert_eq!(of(&report, "tables"), (Outcome::Warn, "0 of 2 can be followed by this role"));
}

#[tokio::test]
async fn the_slot_and_the_publication_that_are_configured_are_looked_at() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "doctor_slot").await;
    let (other, _) = database(&cluster, "doctor_slot_elsewhere").await;
    let slot = SlotKind::Persistent { name: "doctor_eyes".to_owned(), failover: false };
    let options = WalOptions { slot, ..WalOptions::default() };
    let report = doctor::examine(&target, &options).await;
    assert_eq!(of(&report, "publication"), (Outcome::Ok, "none named doctor_eyes yet"));
    assert!(of(&report, "slot").1.contains("doctor_eyes is not there yet"), "{}", report.text());
    // It will stay, and the server would keep its log for it without end.
    assert_eq!(of(&report, "slot limit").0, Outcome::Warn);
    for statement in [
        "CREATE TABLE a (id int PRIMARY KEY); CREATE PUBLICATION seen FOR TABLE a",
        "SELECT pg_create_logical_replication_slot('doctor_eyes', 'pgoutput')",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let options = WalOptions { publication: Some("seen".to_owned()), ..options };
    let report = doctor::examine(&target, &options).await;
    assert_eq!(of(&report, "publication"), (Outcome::Ok, "seen (1 tables)"));
    let expected = "doctor_eyes, persistent, not in use, reserved, 0 MB behind";
    assert_eq!(of(&report, "slot"), (Outcome::Ok, expected));
    let report = doctor::examine(&other, &options).await;
    assert_eq!(of(&report, "slot").0, Outcome::Warn);
    assert!(of(&report, "slot").1.ends_with("of database doctor_slot"), "{}", report.text());
    client.batch_execute("SELECT pg_drop_replication_slot('doctor_eyes')").await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_fails() {
    let mut cluster = PrivateCluster::temporary(Options::default()).unwrap();
    let target = target(&cluster);
    cluster.stop();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert_eq!(report.outcome(), Outcome::Fail);
    assert_eq!(of(&report, "connection").0, Outcome::Fail);
}

#[tokio::test]
async fn tables_tell_how_they_are_followed_and_why_not() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "doctor_tables").await;
    sql::install(&target, &InstallOptions::default()).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int); \
             CREATE UNLOGGED TABLE c (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY); \
             CREATE PUBLICATION tidewire_doctor FOR TABLE d; SELECT enable_realtime('a')",
        )
        .await
        .unwrap();
    let tables = doctor::tables(&target, &WalOptions::default()).await.unwrap();
    let live: Vec<_> = tables.iter().map(|table| (table.table.as_str(), table.live())).collect();
    assert_eq!(live, [("a", vec!["outbox"]), ("b", vec![]), ("c", vec![]), ("d", vec!["wal"])]);
    assert!(tables[0].obstacles().is_empty());
    assert!(
        tables[1].obstacles()[0].contains("ALTER TABLE \"public\".\"b\" REPLICA IDENTITY FULL")
    );
    assert!(tables[2].obstacles()[0].contains("SET LOGGED"));
}

#[tokio::test]
async fn partitions_are_looked_at_with_their_table() {
    let cluster = cluster();
    let (target, client) = database(&cluster, "doctor_parts").await;
    sql::install(&target, &InstallOptions::default()).await.unwrap();
    let setup = "CREATE TABLE p (id int PRIMARY KEY, n int NOT NULL) PARTITION BY RANGE (id); \
                 CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                 SELECT enable_realtime('p'); CREATE PUBLICATION tidewire FOR TABLE p";
    client.batch_execute(setup).await.unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert_eq!(of(&report, "triggers"), (Outcome::Ok, "on 1 tables"));
    let tables = doctor::tables(&target, &WalOptions::default()).await.unwrap();
    assert_eq!((tables.len(), tables[0].live()), (1, vec!["wal", "outbox"]));
    assert_eq!(tables[0].obstacles(), [""; 0]);
    let worse = "CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20); \
                 CREATE UNIQUE INDEX p_2_n ON p_2 (n); \
                 ALTER TABLE p_2 REPLICA IDENTITY USING INDEX p_2_n";
    client.batch_execute(worse).await.unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    let found = "on 1 tables; incomplete or switched off on public.p";
    assert_eq!(of(&report, "triggers"), (Outcome::Warn, found));
    let tables = doctor::tables(&target, &WalOptions::default()).await.unwrap();
    let expected = "wal: the replica identity of public.p_2 does not tell (id), the key of its \
                    table: ALTER TABLE public.p_2 REPLICA IDENTITY DEFAULT";
    assert_eq!(tables[0].obstacles(), [expected]);
    client.batch_execute("SELECT enable_realtime('p')").await.unwrap();
    let report = doctor::examine(&target, &WalOptions::default()).await;
    assert_eq!(of(&report, "triggers").0, Outcome::Ok, "{}", report.text());
}
