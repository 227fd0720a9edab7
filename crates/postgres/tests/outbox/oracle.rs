//! Random writers, and a copy of the table that must be the table in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewire_postgres::private_cluster::PrivateCluster;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Setup;
use crate::support::changes::{Replica, Seen};
use crate::support::{cluster, connect, database_url};

/// Numbers that look random and are the same in each run of a test.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Xorshift; good enough to mix operations.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One transaction of a few statements; some roll back, some to a savepoint, some take long.
async fn transaction(client: &Client, dice: &mut Dice) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    for _ in 0..=dice.roll(4) {
        let (id, n) = (dice.roll(60), dice.roll(1000));
        let statement = match dice.roll(8) {
            0..=2 => format!(
                "INSERT INTO items VALUES ({id}, {n}, repeat('x', {n})) \
                 ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n"
            ),
            3..=4 => format!("UPDATE items SET n = n + 1 WHERE id BETWEEN {id} AND {id} + 3"),
            5 => format!("DELETE FROM items WHERE id = {id}"),
            6 => format!("SAVEPOINT s; UPDATE items SET n = {n} WHERE id = {id}; ROLLBACK TO s"),
            _ => format!("SAVEPOINT s; UPDATE items SET n = {n} WHERE id = {id}; RELEASE s"),
        };
        client.batch_execute(&statement).await?;
    }
    if dice.roll(20) == 0 {
        tokio::time::sleep(Duration::from_millis(dice.roll(300))).await;
    }
    if dice.roll(200) == 0 {
        client.batch_execute("TRUNCATE items").await?;
    }
    let end = if dice.roll(8) == 0 { "ROLLBACK" } else { "COMMIT" };
    client.batch_execute(end).await
}

async fn write(url: String, seed: u64, transactions: usize) {
    let client = connect(&url).await;
    client.batch_execute("SET deadlock_timeout = '20ms'").await.unwrap();
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
    for _ in 0..transactions {
        // Deadlocks are part of the game.
        if transaction(&client, &mut dice).await.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

/// The table as it is.
async fn truth(client: &Client) -> BTreeMap<String, BTreeMap<String, String>> {
    const SQL: &str = "SELECT id::text, key, value::text FROM items, jsonb_each(to_jsonb(items))";
    let mut rows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in client.query(SQL, &[]).await.unwrap() {
        rows.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    rows
}

/// Four writers at once; `disturb` happens meanwhile, over and over.
pub(super) async fn check(
    cluster: &PrivateCluster,
    name: &str,
    transactions: usize,
    disturb: impl AsyncFn(&Client),
) {
    let table = "CREATE TABLE items (id int PRIMARY KEY, n int, body text)";
    let mut setup = Setup::on(cluster, name, table).await;
    setup.add("public.items").await;
    let url = database_url(cluster, name);
    let mut writers = JoinSet::new();
    for seed in 1..=4 {
        writers.spawn(write(url.clone(), seed, transactions));
    }
    let (mut replica, mut open) = (Replica::default(), None);
    let mut take = |seen: Seen| {
        let Seen::Change(change) = seen else { panic!("nothing was lost, but {seen:?}") };
        // All of a transaction stands together.
        let id = change.transaction.id;
        assert!(open.is_none_or(|open| open == id), "{id} came within {open:?}");
        open = (!change.last).then_some(id);
        replica.apply(&change);
    };
    while !writers.is_empty() {
        tokio::select! {
            written = writers.join_next() => written.expect("there is one").unwrap(),
            seen = setup.witness.next() => take(seen),
            () = disturb(&setup.client) => {}
        }
    }
    // After a disturbance the source may still be on its way back.
    while setup.source.catch_up().await.is_err() {}
    setup.witness.taken().into_iter().for_each(&mut take);
    assert_eq!(replica.0, truth(&setup.client).await);
    setup.source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_from_the_changes_is_the_table() {
    check(&cluster(), "ob_oracle", 400, async |_: &Client| std::future::pending().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_reader_is_cut_off_again_and_again() {
    const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE datname = current_database() AND query LIKE '%tidewire.outbox%' AND pid <> pg_backend_pid()";
    check(&cluster(), "ob_cut", 400, async |client: &Client| {
        tokio::time::sleep(Duration::from_millis(40)).await;
        client.batch_execute(CUT).await.unwrap();
    })
    .await;
}
