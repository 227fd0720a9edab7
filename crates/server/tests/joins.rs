//! The oracle for snapshot and stream through the whole server: while writers write, hundreds of
//! clients join at random moments, with filters and columns. In the end the copy of each is what
//! PostgreSQL's own SELECT with the same condition says.

mod copy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use copy::{Copy, Rows, id, object};
use serde_json::{Value, json};
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{
    Client, Dice, PATIENCE, Psql, Server, client, newer_cluster, own_cluster, seed,
};

const TABLE: &str = "\
CREATE TYPE mood AS ENUM ('calm', 'glad', 'wild'); \
CREATE TABLE goods (id int PRIMARY KEY, price numeric, name text COLLATE \"C\", stock int, \
  mood mood, made date); \
ALTER TABLE goods REPLICA IDENTITY FULL; \
INSERT INTO goods SELECT i, i * 1.5, 'name ' || i, i % 7, 'calm', NULL \
  FROM generate_series(0, 150, 3) i";

/// Filters, and the conditions that mean the same in SQL.
const FILTERS: [(Option<&str>, &str); 10] = [
    (None, "true"),
    (Some("stock=eq.3"), "stock = 3"),
    (Some("mood=eq.glad"), "mood = 'glad'"),
    (Some("stock=in.(1,5,6)"), "stock IN (1, 5, 6)"),
    (Some("price=gte.40,price=lt.400.25"), "price >= 40 AND price < 400.25"),
    (Some("name=like.name 1*"), "name LIKE 'name 1%'"),
    (Some("name=not.like.*2*"), "name NOT LIKE '%2%'"),
    (Some("made=is.null"), "made IS NULL"),
    (Some("or=(made.gt.2024-02-10,mood.gt.calm)"), "made > '2024-02-10' OR mood > 'calm'"),
    (Some("id=gt.60,stock=isdistinct.2"), "id > 60 AND stock IS DISTINCT FROM 2"),
];

/// What clients want to be told of a row.
const COLUMNS: [&[&str]; 3] = [&[], &["price", "name"], &["mood"]];

const CLIENTS: usize = 200;
const WRITERS: u64 = 5;

/// Of each writer, the long ones included.
const TRANSACTIONS: usize = 70;

/// A long transaction lasts until the others have done so many, or are locked out by it for long.
const LONG: (usize, Duration) = (15, Duration::from_millis(300));

/// How many transactions were done.
type Progress = Arc<watch::Sender<usize>>;

async fn check(cluster: PrivateCluster, source: &str) {
    let seed = seed();
    let url = cluster.socket_url().expect("a short path");
    let mut psql = Psql::open(&url);
    psql.sql(TABLE).await;
    let keys = [("source", source), ("history.events", "100000"), ("history.bytes", "100MiB")];
    let server = Server::of(&url, &keys).await;
    // Listened to from the start: a source that is only just asked for waits for long transactions.
    let mut first = client(server.address).await;
    first.subscribe(json!({"table": "public.goods"})).await;

    let progress: Progress = Arc::new(watch::channel(0).0);
    let mut writers = JoinSet::new();
    for writer in 1..=WRITERS {
        writers.spawn(write(Psql::quiet(&url), Dice::of(seed, writer), Arc::clone(&progress)));
    }
    let (truth, told) = watch::channel(None);
    let mut clients = JoinSet::new();
    let mut dice = Dice::of(seed, 0);
    for _ in 0..CLIENTS {
        let listener = Listener::new(&mut dice, server.address);
        clients.spawn(listener.run(progress.subscribe(), told.clone()));
    }
    writers.join_all().await;
    truth.send_replace(Some(Arc::new(select_all(&mut psql).await)));
    let told: Vec<_> = clients.join_all().await;
    let (changes, moves): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    let (changes, moves) = (changes.iter().sum::<usize>(), moves.iter().sum::<usize>());
    println!("{CLIENTS} joins were told {changes} changes, {moves} rows entered or left");
    assert!(changes > 50 * CLIENTS && moves > CLIENTS, "too little to prove anything");
}

/// What each filter admits in the end.
async fn select_all(psql: &mut Psql) -> Vec<Rows> {
    let mut all = Vec::new();
    for (_, condition) in FILTERS {
        let sql = format!("SELECT to_jsonb(goods) FROM goods WHERE {condition}");
        let rows = psql.sql(&sql).await;
        let rows = rows.lines().map(|row| object(&serde_json::from_str(row).expect("JSON")));
        all.push(rows.map(|row| (id(&row), row)).collect());
    }
    all
}

/// One client: when it joins, and what it wants.
struct Listener {
    address: SocketAddr,
    moment: usize,
    filter: usize,
    columns: &'static [&'static str],
    copy: Copy,
}

impl Listener {
    fn new(dice: &mut Dice, address: SocketAddr) -> Self {
        let mut roll = |sides: usize| usize::try_from(dice.roll(sides as u64)).expect("few");
        let all = usize::try_from(WRITERS).expect("few") * TRANSACTIONS;
        let (moment, filter) = (roll(all), roll(FILTERS.len()));
        let columns = COLUMNS[roll(COLUMNS.len())];
        let wish = format!("{:?}, {columns:?}, from {moment}", FILTERS[filter].0);
        Self { address, moment, filter, columns, copy: Copy::new(wish, columns) }
    }

    /// Joins and listens to the end; how many changes it was told, and how many rows entered or
    /// left.
    async fn run(
        mut self,
        mut progress: watch::Receiver<usize>,
        mut truth: watch::Receiver<Option<Arc<Vec<Rows>>>>,
    ) -> (usize, usize) {
        progress.wait_for(|done| *done >= self.moment).await.expect("writers tell");
        let mut client = self.join().await;
        let mut goal = None;
        while goal.as_ref().is_none_or(|goal| !self.copy.is_complete || self.copy.rows != *goal) {
            tokio::select! {
                frame = client.try_hear() => {
                    let frame = frame.unwrap_or_else(|| panic!("{} ended", self.copy.wish()));
                    self.copy.take(&serde_json::from_str(&frame).expect("JSON"));
                }
                Ok(all) = truth.wait_for(Option::is_some), if goal.is_none() => {
                    goal = all.as_ref().map(|all| self.goal(&all[self.filter]));
                }
                () = tokio::time::sleep(PATIENCE), if goal.is_some() => {
                    panic!("{}", self.copy.difference(goal.as_ref().expect("it is there")));
                }
            }
        }
        // What is on its way now would be too much.
        client.say(&json!({"type": "ping", "id": 9})).await;
        loop {
            match client.hear().await {
                pong if pong["type"] == "pong" => return (self.copy.changes, self.copy.moves),
                frame => self.copy.take(&frame),
            }
        }
    }

    async fn join(&self) -> Client {
        let mut client = client(self.address).await;
        let mut wish = json!({"table": "public.goods", "snapshot": true});
        if let Some(filter) = FILTERS[self.filter].0 {
            wish["filter"] = json!(filter);
        }
        if !self.columns.is_empty() {
            wish["columns"] = json!(self.columns);
        }
        let answer: Value = client.subscribe(wish).await;
        assert_eq!(answer["outcome"], "fresh", "{answer}");
        client
    }

    /// What the copy should be in the end.
    fn goal(&self, truth: &Rows) -> Rows {
        truth.iter().map(|(id, row)| (*id, self.copy.told(row.clone()))).collect()
    }
}

/// Transactions of one writer; some are undone, some are long.
async fn write(mut psql: Psql, mut dice: Dice, progress: Progress) {
    for _ in 0..TRANSACTIONS {
        let (is_long, so_far) = (dice.once_in(12), *progress.borrow());
        psql.succeeds("BEGIN").await.expect("it lives");
        for _ in 0..=dice.roll(4) {
            // Who was locked out goes on, in vain.
            psql.succeeds(&statement(&mut dice)).await.expect("it lives");
        }
        if is_long {
            let mut others = progress.subscribe();
            let enough = others.wait_for(|done| *done >= so_far + LONG.0);
            let _ = tokio::time::timeout(LONG.1, enough).await;
        }
        let end = if dice.once_in(7) { "ROLLBACK" } else { "COMMIT" };
        psql.succeeds(end).await.expect("it lives");
        progress.send_modify(|done| *done += 1);
    }
}

fn statement(dice: &mut Dice) -> String {
    let (id, n) = (dice.roll(160), dice.roll(1_000));
    let mood = ["calm", "glad", "wild"][usize::try_from(dice.roll(3)).expect("three")];
    let insert = format!(
        "INSERT INTO goods VALUES ({id}, {n}.50, 'name {n}', {}, '{mood}', \
         NULLIF(DATE '2024-01-01' + {}, '2024-01-01')) \
         ON CONFLICT (id) DO UPDATE SET price = excluded.price, mood = excluded.mood",
        n % 7,
        n % 60
    );
    let update = format!("UPDATE goods SET stock = {}, made = NULL WHERE id = {id}", n % 7);
    match dice.roll(9) {
        0..=2 => insert,
        3 => update,
        4 => format!("UPDATE goods SET price = price + 1.25 WHERE id BETWEEN {id} AND {id} + 5"),
        5 => format!("DELETE FROM goods WHERE id = {id}"),
        6 => format!("SAVEPOINT s\\; {insert}\\; ROLLBACK TO s\\; {update}"),
        7 => format!("SAVEPOINT s\\; {update}\\; RELEASE s"),
        _ => format!("UPDATE goods SET id = id + 500 WHERE id = {id}"),
    }
}

fn deadlocks_end_soon() -> Options {
    Options::default().setting("deadlock_timeout", "20ms")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_at_any_moment_ends_with_the_table_from_the_log() {
    check(own_cluster(deadlocks_end_soon()).await, "wal").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_at_any_moment_ends_with_the_table_from_the_outbox() {
    check(own_cluster(deadlocks_end_soon()).await, "outbox").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_a_newer_postgresql_ends_with_the_table_from_the_log() {
    let Some(cluster) = newer_cluster(deadlocks_end_soon()).await else { return };
    check(cluster, "wal").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_a_newer_postgresql_ends_with_the_table_from_the_outbox() {
    let Some(cluster) = newer_cluster(deadlocks_end_soon()).await else { return };
    check(cluster, "outbox").await;
}
