//! Read from the write-ahead log.

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions, WalSource};
use tokio_postgres::Client;

use super::{database_in, word};
use crate::support::changes::Witness;
use crate::support::{cluster, until};
use crate::wal::{quick, table};

/// A source with a slot that stays, who hears it, and a connection for SQL.
struct Rig {
    source: WalSource,
    witness: Witness,
    sql: Client,
}

impl Rig {
    async fn new(cluster: &PrivateCluster, encoding: &str, name: &str, setup: &str) -> Self {
        Self::with(cluster, encoding, name, setup, quick()).await
    }

    async fn with(
        cluster: &PrivateCluster,
        encoding: &str,
        name: &str,
        setup: &str,
        options: WalOptions,
    ) -> Self {
        let (target, sql) = database_in(cluster, encoding, name).await;
        sql.batch_execute(setup).await.unwrap();
        let (publisher, witness) = Witness::new();
        let slot = SlotKind::Persistent { name: name.to_owned(), failover: false };
        let source = WalSource::start(target, publisher, WalOptions { slot, ..options });
        Self { source, witness, sql }
    }

    async fn add(&self, name: &str) {
        let added = self.source.add(&table(name)).await;
        added.unwrap_or_else(|refusal| panic!("{refusal:?}; {:?}", self.source.status()));
    }

    async fn run(&self, statements: &str) {
        self.sql.batch_execute(statements).await.unwrap();
    }

    /// What was published since the last call, in words; nothing was read twice for it.
    async fn said(&mut self) -> Vec<String> {
        self.source.catch_up().await.unwrap_or_else(|_| panic!("{:?}", self.source.status()));
        let metrics = self.source.metrics();
        assert_eq!(metrics.reconnects.get(), 0, "{:?}", self.source.status());
        self.witness.taken().iter().map(word).collect()
    }

    /// Ends the source with its slot, which would keep others from dropping the database.
    async fn end(self, name: &str) {
        self.source.shutdown().await;
        self.run_drop(name).await;
    }

    async fn run_drop(&self, name: &str) {
        let drop = format!("SELECT pg_drop_replication_slot('{name}')");
        // PostgreSQL's process that sent the log ends a moment after the source.
        until("a slot that is free", async || self.sql.batch_execute(&drop).await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_without_a_unicode_form_is_a_gap_of_its_table_and_others_go_on() {
    let (cluster, name) = (cluster(), "wal_win1252");
    let setup = "CREATE TABLE cafés (id int PRIMARY KEY, größe text); \
                 CREATE TABLE calm (id int PRIMARY KEY)";
    let mut rig = Rig::new(&cluster, "WIN1252", name, setup).await;
    rig.add("public.cafés").await;
    rig.add("public.calm").await;
    rig.said().await;
    rig.run(
        "INSERT INTO cafés VALUES (1, 'naïve €'); INSERT INTO cafés VALUES (2, chr(129)); \
         INSERT INTO calm VALUES (1); \
         BEGIN; INSERT INTO cafés VALUES (3, 'x'); INSERT INTO calm VALUES (2); \
         UPDATE cafés SET größe = 'a' || chr(141) WHERE id = 3; \
         INSERT INTO cafés VALUES (4, 'y'); COMMIT; DELETE FROM cafés WHERE id = 2",
    )
    .await;
    assert_eq!(
        rig.said().await,
        [
            "cafés größe=\"naïve €\" id=1",
            "gap of public.cafés",
            "calm id=1",
            "cafés größe=\"x\" id=3",
            "calm id=2",
            "gap of public.cafés",
            "cafés größe=\"y\" id=4",
            "cafés id=2",
        ]
    );
    assert_eq!(rig.source.metrics().unreadable.get(), 2);
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_says_is_converted_and_what_cannot_be_is_a_gap_of_its_topic() {
    let (cluster, name) = (cluster(), "wal_latin2");
    let mut rig = Rig::new(&cluster, "WIN1250", name, "SELECT 1").await;
    let say =
        |content: &str| format!("SELECT pg_logical_emit_message(true, 'tidewire', {content});");
    // Whatever anybody writes under other names is nobody's business here.
    let others = "SELECT pg_logical_emit_message(true, chr(129), chr(129)); \
                  SELECT pg_logical_emit_message(false, chr(129), 'x')";
    rig.source.catch_up().await.unwrap();
    rig.run(&format!(
        "{}{}{}{}{others}",
        say(r#"'{"topic":"město","text":"žluťoučký"}'"#),
        say(r#"'{"topic":"město","text":"' || chr(129) || '"}'"#),
        say(r#"'{"topic":"m' || chr(129) || '","text":"x"}'"#),
        say(r#"'{"topic":"město","json":{"n":1}}'"#),
    ))
    .await;
    assert_eq!(rig.said().await, ["město: žluťoučký", "gap of město", "město: {\"n\":1}"]);
    assert_eq!(rig.source.metrics().bad_messages.get(), 2);
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn characters_of_several_bytes_are_those_of_postgresql() {
    let (cluster, name) = (cluster(), "wal_euc_jp");
    let setup = "CREATE TABLE 表 (id int PRIMARY KEY, v text)";
    let mut rig = Rig::new(&cluster, "EUC_JP", name, setup).await;
    rig.add("public.表").await;
    rig.said().await;
    rig.run("INSERT INTO 表 VALUES (1, '日本語～ｱ丂'), (2, 'plain')").await;
    assert_eq!(rig.said().await, ["表 id=1 v=\"日本語～ｱ丂\"", "表 id=2 v=\"plain\""]);
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_database_without_an_encoding_text_is_what_is_utf8() {
    let (cluster, name) = (cluster(), "wal_sql_ascii");
    let setup = "CREATE TABLE bytes (id int PRIMARY KEY, v text)";
    let mut rig = Rig::new(&cluster, "SQL_ASCII", name, setup).await;
    rig.add("public.bytes").await;
    rig.said().await;
    rig.run(
        "INSERT INTO bytes VALUES (1, 'é'); INSERT INTO bytes VALUES (2, E'\\xe9'); \
             INSERT INTO bytes VALUES (3, 'x')",
    )
    .await;
    let expected = ["bytes id=1 v=\"é\"", "gap of public.bytes", "bytes id=3 v=\"x\""];
    assert_eq!(rig.said().await, expected);
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_postgresql_cannot_send_is_left_out_with_a_gap() {
    let (cluster, name) = (cluster(), "wal_gigabyte");
    let setup = "CREATE TABLE huge (id int PRIMARY KEY, v bytea); \
                 CREATE TABLE calm (id int PRIMARY KEY)";
    let mut rig = Rig::new(&cluster, "UTF8", name, setup).await;
    rig.add("public.huge").await;
    rig.add("public.calm").await;
    rig.said().await;
    // PostgreSQL prints each byte as two characters, and more than a gigabyte it cannot send.
    rig.run("INSERT INTO huge VALUES (1, repeat('x', 540000000)::bytea)").await;
    let mut gaps = [rig.witness.next().await, rig.witness.next().await].map(|seen| word(&seen));
    gaps.sort_unstable();
    assert_eq!(gaps, ["gap of public.calm", "gap of public.huge"]);
    rig.add("public.huge").await;
    rig.run("INSERT INTO calm VALUES (1)").await;
    rig.run("INSERT INTO huge VALUES (2, 'a')").await;
    for expected in ["calm id=1", "huge id=2 v=\"\\\\x61\""] {
        assert_eq!(word(&rig.witness.next().await), expected);
    }
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_or_makes_no_sense_is_a_gap_of_its_topic() {
    let (cluster, name) = (cluster(), "wal_messages");
    let mut rig = Rig::new(&cluster, "UTF8", name, "SELECT 1").await;
    rig.source.catch_up().await.unwrap();
    for content in [
        "'{\"topic\" : \"room\", \"event\" : null, \"text\" : \"' || repeat('x', 70 << 20) || '\"}'",
        "'{\"topic\":\"deep\",\"json\":' || repeat('[', 200) || repeat(']', 200) || '}'",
        "'{\"topic\":\"far\",\"json\":1e400}'",
        "'{\"topic\":\"\",\"text\":\"x\"}'",
        "'nonsense'",
        "'{\"topic\":\"room\",\"text\":\"after\"}'",
    ] {
        rig.run(&format!("SELECT pg_logical_emit_message(true, 'tidewire', {content})")).await;
    }
    let expected = ["history_trimmed of room", "gap of deep", "gap of far", "room: after"];
    assert_eq!(rig.said().await, expected);
    assert_eq!(rig.source.metrics().bad_messages.get(), 5);
    rig.end(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_name_has_no_unicode_form_stops_no_other() {
    let (cluster, name) = (cluster(), "wal_names");
    let setup = "CREATE TABLE calm (id int PRIMARY KEY); \
                 CREATE TABLE odd (id int PRIMARY KEY); \
                 DO $$BEGIN EXECUTE 'ALTER TABLE odd ADD \"c' || chr(129) || '\" int'; \
                   EXECUTE 'CREATE TABLE \"t' || chr(129) || '\" (id int PRIMARY KEY)'; END$$; \
                 CREATE PUBLICATION all_of_wal_names FOR ALL TABLES";
    let publication = Some("all_of_wal_names".to_owned());
    let options = WalOptions { publication, ..quick() };
    let mut rig = Rig::with(&cluster, "WIN1252", name, setup, options).await;
    rig.add("public.calm").await;
    rig.said().await;
    rig.run(
        "DO $$BEGIN EXECUTE 'INSERT INTO \"t' || chr(129) || '\" VALUES (1)'; END$$; \
         INSERT INTO odd VALUES (1); INSERT INTO calm VALUES (1)",
    )
    .await;
    assert_eq!(rig.said().await, ["calm id=1"]);
    rig.end(name).await;
}
