//! The oracle for completeness: a table rebuilt from its changes equals PostgreSQL's, whatever its
//! writers do and whatever happens to the connection.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions};
use tidewire_protocol::change::Change;
use tokio::task::JoinSet;

use super::{Rig, quick};
use crate::support::changes::{Replica, Seen, object};
use crate::support::{newer_cluster, own_cluster, sql, target};

const SETUP: &str = "
CREATE TABLE work (id int PRIMARY KEY, n int, name text, items numeric[]);
ALTER TABLE work REPLICA IDENTITY FULL;
CREATE TABLE other (id serial PRIMARY KEY, n int)";

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// One transaction: a few statements, some of them in savepoints, perhaps all for nothing.
fn transaction(dice: &mut Dice) -> String {
    let mut sql = "BEGIN;".to_owned();
    for _ in 0..=dice.roll(5) {
        let saved = dice.roll(4) == 0;
        if saved {
            sql.push_str("SAVEPOINT s;");
        }
        let (id, n) = (dice.roll(300), dice.roll(1_000_000));
        match dice.roll(8) {
            0..4 => write!(
                sql,
                "INSERT INTO work VALUES ({id}, {n}, 'n{n}', '{{{n}.50,NULL}}') \
                 ON CONFLICT (id) DO UPDATE SET n = excluded.n;"
            ),
            4 => write!(sql, "UPDATE work SET n = {n} WHERE id % 50 = {};", id % 50),
            5 => write!(sql, "DELETE FROM work WHERE id = {id};"),
            6 => write!(
                sql,
                "UPDATE work SET name = NULL WHERE id = {id}; INSERT INTO other (n) VALUES ({n});"
            ),
            _ => write!(
                sql,
                "DELETE FROM work WHERE id = {id}; INSERT INTO work VALUES ({id}, {n});"
            ),
        }
        .unwrap();
        if saved {
            sql.push_str(if dice.roll(2) == 0 { "ROLLBACK TO s;" } else { "RELEASE s;" });
        }
    }
    sql.push_str(if dice.roll(6) == 0 { "ROLLBACK" } else { "COMMIT" });
    sql
}

/// Writers that go on until told to stop; gives how many transactions they did.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<u32>,
}

impl Writers {
    async fn start(cluster: &PrivateCluster, count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for seed in 0..count {
            let (client, stop) = (sql(cluster).await, Arc::clone(&stop));
            tasks.spawn(async move {
                let (mut dice, mut done) = (Dice(seed + 1), 0);
                while !stop.load(Ordering::Relaxed) {
                    // Two that lock each other, or insert the same row, roll back: so be it.
                    if client.batch_execute(&transaction(&mut dice)).await.is_err() {
                        let _ = client.batch_execute("ROLLBACK").await;
                    }
                    done += 1;
                    if seed == 0 && done % 100 == 0 {
                        client.batch_execute("TRUNCATE work").await.unwrap();
                    }
                }
                done
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}

async fn truth(rig: &Rig) -> BTreeMap<String, BTreeMap<String, String>> {
    const SQL: &str = "SELECT id::text, (SELECT json_object_agg(key, value::text) \
                       FROM jsonb_each(to_jsonb(work)))::text FROM work";
    let rows = rig.sql.query(SQL, &[]).await.unwrap();
    let row = |row: &tokio_postgres::Row| {
        (row.get(0), serde_json::from_str(&row.get::<_, String>(1)).unwrap())
    };
    rows.iter().map(row).collect()
}

/// Checks the order of changes while they pass: transactions whole, indexes rising, `last` last.
#[derive(Default)]
struct Order(Option<Arc<Change>>);

impl Order {
    fn check(&mut self, change: &Arc<Change>) {
        if let Some(before) = self.0.replace(Arc::clone(change)) {
            let same = before.transaction == change.transaction;
            assert_eq!(before.last, !same, "{before:?} then {change:?}");
            match same {
                true => assert!(before.index < change.index),
                false => assert!(before.transaction.lsn < change.transaction.lsn),
            }
        }
    }
}

fn is_work(change: &Change) -> bool {
    &*change.relation.table == "work"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_rebuilt_from_its_changes_is_the_table() {
    rebuild(&own_cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_a_newer_postgresql_rebuilt_from_its_changes_is_the_table() {
    if let Some(cluster) = newer_cluster() {
        rebuild(&cluster).await;
    }
}

/// Changes that make a workload worth rebuilding a table from.
const ENOUGH: u64 = 20_000;

impl Rig {
    /// Waits until so many changes more were told.
    async fn passes(&self, count: u64) {
        let upto = self.source.metrics().changes.get() + count;
        self.until("changes", |source| source.metrics().changes.get() >= upto).await;
    }
}

async fn rebuild(cluster: &PrivateCluster) {
    let mut rig = Rig::new(cluster, SETUP).await;
    rig.add("public.work").await;
    rig.add("public.other").await;
    let writers = Writers::start(cluster, 4).await;
    rig.passes(ENOUGH).await;
    let done = writers.stop().await;
    let truth = truth(&rig).await;
    let (mut replica, mut order) = (Replica::default(), Order::default());
    for seen in rig.caught_up().await {
        if let Seen::Change(change) = seen
            && is_work(&change)
        {
            order.check(&change);
            replica.apply(&change);
        }
    }
    assert!(done > 200, "{done} transactions are few");
    assert_eq!(replica.0, truth);
}

/// A persistent slot tells everything exactly once through lost connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persistent_slot_has_no_gap_when_its_connection_is_killed_again_and_again() {
    let cluster = own_cluster();
    let slot = SlotKind::Persistent { name: "durable".to_owned(), failover: false };
    let options = WalOptions { slot, ..quick() };
    let mut rig = Rig::with(&cluster, target(&cluster), options, SETUP).await;
    rig.add("public.work").await;
    rig.caught_up().await;
    let writers = Writers::start(&cluster, 3).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    for round in 1..=6 {
        rig.until("a stream", |source| source.status().connected).await;
        rig.passes(100).await;
        assert_eq!(rig.sql.query(kill, &[]).await.unwrap().len(), 1);
        rig.until("a reconnect", |source| source.metrics().reconnects.get() == round).await;
    }
    writers.stop().await;
    let truth = truth(&rig).await;
    let (mut replica, mut order) = (Replica::default(), Order::default());
    for seen in rig.caught_up().await {
        match seen {
            Seen::Change(change) => {
                order.check(&change);
                replica.apply(&change);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(replica.0, truth);
}

/// With a temporary slot, what is between two gaps is complete: the state of a row that is told
/// after a gap is the one PostgreSQL had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_slot_tells_a_gap_for_each_lost_connection_before_anything_newer() {
    let cluster = own_cluster();
    let setup = "CREATE TABLE counted (id serial PRIMARY KEY)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.counted").await;
    rig.caught_up().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (client, stopped) = (sql(&cluster).await, Arc::clone(&stop));
    let writing = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            client.batch_execute("INSERT INTO counted DEFAULT VALUES").await.unwrap();
        }
    });
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    for round in 1..=5 {
        rig.until("a stream", |source| source.status().connected).await;
        rig.passes(20).await;
        rig.sql.query(kill, &[]).await.unwrap();
        rig.until("a reconnect", |source| source.metrics().reconnects.get() == round).await;
        rig.add("public.counted").await;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let newest: i32 = rig.sql.query_one("SELECT max(id) FROM counted", &[]).await.unwrap().get(0);
    let (mut last, mut gaps, mut may_miss) = (0, 0, false);
    for seen in rig.caught_up().await {
        match seen {
            Seen::Change(change) => {
                let id: i32 =
                    object(&change, change.record.as_ref().unwrap())["id"].parse().unwrap();
                assert!(id == last + 1 || (may_miss && id > last), "{id} follows {last}");
                (last, may_miss) = (id, false);
            }
            Seen::Gap(..) => (gaps, may_miss) = (gaps + 1, true),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gaps, 5);
    assert!(last == newest || may_miss, "{last} of {newest}");
}
