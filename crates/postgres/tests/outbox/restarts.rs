//! A history that outlives the process: who reads next goes on where the last one was, or tells why
//! that cannot be.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidewire::{Upstream, protocol::Topic};
use tidewire_postgres::sql::{self, InstallOptions};
use tidewire_postgres::{OutboxOptions, OutboxSource, Target};
use tidewire_postgres::{SourceChoice, TableOptions, TableSource};
use tidewire_protocol::{GapReason, Payload};
use tokio::sync::watch;
use tokio_postgres::Client;

use super::failures::end;
use super::{new_row, table};
use crate::support::changes::{Seen, Witness};
use crate::support::moody::{Mood, Moody};
use crate::support::{
    cluster, connect, database, database_url, own_cluster, sql as connection, target, until,
};

/// A database, and a history that keeps marks.
struct Setup {
    target: Target,
    client: Client,
    history: Arc<Moody>,
    /// It stays well.
    _mood: watch::Sender<Mood>,
}

/// One life of a source.
struct Life {
    source: OutboxSource,
    witness: Witness,
}

impl Setup {
    async fn new(name: &str) -> Self {
        let (target, client) = database(&cluster(), name).await;
        Self::of(target, client).await
    }

    async fn of(target: Target, client: Client) -> Self {
        let tables = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)";
        client.batch_execute(tables).await.unwrap();
        let (_mood, history) = Moody::new();
        Self { target, client, history, _mood }
    }

    /// Another server's, with a history of its own.
    fn beside(&self, client: Client) -> Self {
        let (_mood, history) = Moody::new();
        Self { target: self.target.clone(), client, history, _mood }
    }

    async fn until(&self, what: &str, condition: &str) {
        let so = async || self.client.query_one(condition, &[]).await.unwrap().get(0);
        until(what, so).await;
    }

    /// What writers do now and then once the reader is gone.
    async fn writers_remove_everything(&self) {
        let condition = "SELECT NOT EXISTS (SELECT FROM tidewire.outbox) FROM \
                         (SELECT tidewire.prune() OFFSET 0) pruned";
        self.until("they removed it", condition).await;
    }

    /// Waits until the reader has said that all in the outbox was told.
    async fn all_is_told(&self) {
        let condition = "\
            SELECT NOT EXISTS (SELECT FROM tidewire.outbox o WHERE NOT EXISTS ( \
              SELECT FROM tidewire.outbox_epoch e WHERE pg_visible_in_snapshot(o.xid, e.told)))";
        self.until("all is told", condition).await;
    }

    fn live(&self) -> Life {
        self.live_with(OutboxOptions::default())
    }

    fn live_with(&self, options: OutboxOptions) -> Life {
        let (publisher, witness) = Witness::with(Arc::clone(&self.history) as _);
        Life { source: OutboxSource::start(self.target.clone(), publisher, options), witness }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

impl Life {
    /// Follows a table for the first time.
    async fn begin(&mut self, name: &str) {
        self.add(name).await;
        assert_eq!(self.witness.next().await, gap(name, GapReason::NotListening));
    }

    async fn add(&self, name: &str) {
        self.source.add(&table(name)).await.unwrap();
    }

    async fn hears(&mut self, id: &str) {
        assert_eq!(new_row(&*self.witness.change().await)[0].1, id);
    }

    /// Nothing more was told of what is committed now.
    async fn hears_nothing_more(&mut self) {
        self.source.catch_up().await.unwrap();
        assert_eq!(self.witness.taken(), []);
    }
}

fn gap(name: &str, reason: GapReason) -> Seen {
    Seen::Gap(name.to_owned(), reason)
}

#[tokio::test]
async fn what_was_written_between_two_lives_is_told_once_and_without_a_gap() {
    let _cluster = cluster();
    let setup = Setup::new("ob_lives").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    for (end_politely, ids) in [(false, ["2", "3"]), (true, ["4", "5"])] {
        if end_politely {
            life.source.shutdown().await;
        }
        drop(life);
        setup.run(&format!("INSERT INTO a VALUES ({})", ids[0])).await;
        life = setup.live();
        // Before anybody listens again.
        life.hears(ids[0]).await;
        life.add("public.a").await;
        setup.run(&format!("INSERT INTO a VALUES ({})", ids[1])).await;
        life.hears(ids[1]).await;
    }
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn a_large_transaction_is_told_on_in_the_next_life_from_where_it_was() {
    const ROWS: u32 = 900;
    let _cluster = cluster();
    let setup = Setup::new("ob_large").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("SELECT enable_realtime('b')").await;
    // One batch is taken, and the process ends in the next.
    setup.history.takes(Some(600));
    // It has an older row, and becomes visible later.
    setup.run("BEGIN; INSERT INTO a VALUES (0)").await;
    let other = connect(&database_url(&cluster(), "ob_large")).await;
    let large = format!(
        "BEGIN; INSERT INTO b VALUES (1); INSERT INTO a SELECT generate_series(1, {ROWS}); COMMIT"
    );
    other.batch_execute(&large).await.unwrap();
    setup.history.stands_still().await;
    let mut told = life.witness.taken();
    assert!(!told.is_empty() && told.len() < ROWS as usize, "{}", told.len());
    drop(life);
    setup.history.takes(None);
    setup.run("COMMIT").await;
    let mut life = setup.live();
    while told.len() <= ROWS as usize {
        told.push(life.witness.next().await);
    }
    let change = |seen: &Seen| match seen {
        Seen::Change(change) => {
            (new_row(change)[0].1.parse::<u32>().unwrap(), change.index, change.last)
        }
        other => panic!("not a change: {other:?}"),
    };
    // The change of the other table has its place.
    let large = (1..=ROWS).map(|id| (id, id, id == ROWS));
    let expected: Vec<_> = large.chain([(0, 0, true)]).collect();
    assert_eq!(told.iter().map(change).collect::<Vec<_>>(), expected);
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn messages_that_sql_says_between_two_lives_are_heard() {
    let _cluster = cluster();
    let setup = Setup::new("ob_voices").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    let said = |text: &str| Seen::Message("room".to_owned(), None, Payload::Text(text.into()));
    setup.run("SELECT tidewire.publish('room', 'one')").await;
    assert_eq!(life.witness.next().await, said("one"));
    drop(life);
    setup.run("SELECT tidewire.publish('room', 'two')").await;
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, said("two"));
    drop(life);
    setup.run("SELECT tidewire.publish('room', 'three'); TRUNCATE tidewire.outbox").await;
    let mut life = setup.live();
    let mut gaps = [life.witness.next().await, life.witness.next().await];
    gaps.sort_by_key(|gap| format!("{gap:?}"));
    let reason = GapReason::EpochChanged;
    assert_eq!(gaps, [gap("public.a", reason), gap("room", reason)]);
    drop(life);
    // Who was told, and heard nothing since, is not told again.
    setup.run("TRUNCATE tidewire.outbox").await;
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", reason));
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn what_writers_removed_unread_is_a_gap_and_what_was_told_before_is_none() {
    let _cluster = cluster();
    let setup = Setup::new("ob_away").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("UPDATE tidewire.settings SET retention = '0 seconds'").await;
    setup.run("INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    setup.all_is_told().await;
    life.source.shutdown().await;
    setup.writers_remove_everything().await;
    setup.run("INSERT INTO a VALUES (2)").await;
    let mut life = setup.live();
    life.hears("2").await;
    setup.all_is_told().await;
    life.source.shutdown().await;
    setup.run("INSERT INTO a VALUES (3)").await;
    setup.writers_remove_everything().await;
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", GapReason::ConnectionLost));
    setup.run("INSERT INTO a VALUES (4)").await;
    life.hears("4").await;
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn a_history_that_is_older_than_what_was_removed_begins_with_a_gap() {
    let _cluster = cluster();
    let setup = Setup::new("ob_backup").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    life.source.shutdown().await;
    let backup = setup.history.marks_now();
    let mut life = setup.live();
    life.add("public.a").await;
    setup.run("INSERT INTO a VALUES (2)").await;
    life.hears("2").await;
    // Rows are old enough to be removed, and the reader says that they may be gone.
    setup.run("UPDATE tidewire.outbox SET at = now() - interval '1 minute'").await;
    let is_empty = "SELECT count(*) FROM tidewire.outbox";
    while setup.client.query_one(is_empty, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        life.source.catch_up().await.unwrap();
    }
    life.source.shutdown().await;
    let newest = setup.history.marks_now();
    setup.history.put_marks(backup);
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", GapReason::ConnectionLost));
    life.source.shutdown().await;
    // The newest is as good as before.
    setup.history.put_marks(newest);
    let mut life = setup.live();
    life.add("public.a").await;
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn triggers_that_were_switched_off_and_on_between_two_lives_are_a_gap() {
    let _cluster = cluster();
    let setup = Setup::new("ob_switched").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    life.begin("public.b").await;
    for meanwhile in [
        "SELECT disable_realtime('a'); INSERT INTO a VALUES (1); SELECT enable_realtime('a')",
        "ALTER TABLE a DISABLE TRIGGER a_notify_change; INSERT INTO a VALUES (2); \
         ALTER TABLE a ENABLE ALWAYS TRIGGER a_notify_change",
        "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (3)",
    ] {
        drop(life);
        setup.run(meanwhile).await;
        life = setup.live();
        assert_eq!(life.witness.next().await, gap("public.a", GapReason::NotListening));
        life.add("public.b").await;
        life.hears_nothing_more().await;
    }
    life.begin("public.a").await;
    setup.run("INSERT INTO a VALUES (4); INSERT INTO b VALUES (5)").await;
    life.hears("4").await;
    life.hears("5").await;
}

#[tokio::test]
async fn a_table_that_nobody_came_back_to_in_time_begins_with_a_gap() {
    let _cluster = cluster();
    let setup = Setup::new("ob_deserted").await;
    let mut life = setup.live();
    life.begin("public.a").await;
    drop(life);
    setup.run("INSERT INTO a VALUES (1)").await;
    let linger = Duration::ZERO;
    let mut life = setup.live_with(OutboxOptions { linger, ..OutboxOptions::default() });
    life.source.catch_up().await.unwrap();
    assert_eq!(life.witness.taken(), []);
    life.source.shutdown().await;
    // And that is remembered.
    let mut life = setup.live();
    life.begin("public.a").await;
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn what_another_server_told_and_may_have_removed_is_a_gap() {
    let _cluster = cluster();
    let setup = Setup::new("ob_turns").await;
    let other = setup.beside(connect(&database_url(&cluster(), "ob_turns")).await);
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    life.source.shutdown().await;
    let mut standby = other.live();
    standby.begin("public.a").await;
    setup.run("INSERT INTO a VALUES (2)").await;
    standby.hears("2").await;
    setup.all_is_told().await;
    standby.source.shutdown().await;
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", GapReason::ConnectionLost));
    life.hears_nothing_more().await;
}

#[tokio::test]
async fn what_the_write_ahead_log_told_meanwhile_is_not_told_again() {
    let _cluster = cluster();
    let setup = Setup::new("ob_other_source").await;
    let a = Topic::table("public.a").unwrap();
    for (life, source) in
        [SourceChoice::Outbox, SourceChoice::Wal, SourceChoice::Outbox].into_iter().enumerate()
    {
        let (publisher, mut witness) = Witness::with(Arc::clone(&setup.history) as _);
        let options = TableOptions { source, ..TableOptions::default() };
        let tables = TableSource::start(setup.target.clone(), publisher, options);
        tables.attach(&a).await.unwrap();
        assert_eq!(witness.next().await, gap("public.a", GapReason::NotListening));
        setup.run(&format!("INSERT INTO a VALUES ({life})")).await;
        assert_eq!(new_row(&*witness.change().await)[0].1, life.to_string());
        tables.shutdown().await;
        assert_eq!(witness.taken(), []);
    }
}

#[tokio::test]
async fn a_crash_of_postgresql_between_two_lives_is_a_gap() {
    let mut cluster = own_cluster();
    let setup = Setup::of(target(&cluster), connection(&cluster).await).await;
    let mut life = setup.live();
    life.begin("public.a").await;
    setup.run("CHECKPOINT; INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    drop(life);
    end(&mut cluster, Signal::SIGQUIT);
    cluster.resume().unwrap();
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", GapReason::EpochChanged));
    life.add("public.a").await;
    life.hears_nothing_more().await;
    life.source.shutdown().await;
}

#[tokio::test]
async fn what_an_older_version_installed_is_upgraded_with_what_was_chosen() {
    let _cluster = cluster();
    let setup = Setup::new("ob_upgrade").await;
    let retention = Duration::from_secs(3_600);
    let options = InstallOptions { retention, ..InstallOptions::default() };
    sql::install(&setup.target, &options).await.unwrap();
    // As version 1 left it, with a reader of its own that has just ended.
    setup
        .run(
            "SELECT enable_realtime('a'); DELETE FROM tidewire.versions; \
             INSERT INTO tidewire.versions VALUES (1); \
             ALTER TABLE tidewire.outbox_epoch DROP COLUMN told; \
             INSERT INTO tidewire.outbox_epoch VALUES (true, gen_random_uuid(), gen_random_uuid())",
        )
        .await;
    let mut life = setup.live();
    life.begin("public.a").await;
    let installed = sql::installation(&setup.target).await.unwrap().unwrap();
    assert_eq!((installed.version, installed.retention), (sql::VERSION, retention));
    setup.run("INSERT INTO a VALUES (1)").await;
    life.hears("1").await;
    life.source.shutdown().await;
    // A server of version 1 reads for a while, and does not say what it removes.
    setup.run("UPDATE tidewire.outbox_epoch SET reader = gen_random_uuid()").await;
    let mut life = setup.live();
    assert_eq!(life.witness.next().await, gap("public.a", GapReason::ConnectionLost));
}
