//! Writers of about a thousand changes a second, who know what they committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::account::Rows;
use crate::support::{Dice, Psql, until};

/// The table, as a client with all its rows sees it, and a row for each writer.
const TABLE: &str = "\
CREATE TABLE ledger (id int PRIMARY KEY, n int NOT NULL, note text); \
ALTER TABLE ledger REPLICA IDENTITY FULL; \
INSERT INTO ledger SELECT -i, 0, NULL FROM generate_series(1, 4) i";

/// So many write at once.
const WRITERS: u64 = 4;

/// A transaction of each writer every so often; with four changes in each it makes 1,000 a second.
const PACE: Duration = Duration::from_millis(16);

/// Keys that are written to: few, so that writers meet.
const KEYS: u64 = 400;

/// Running writers.
pub(super) struct Writers {
    url: String,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Writers {
    pub(super) async fn start(url: &str, seed: u64) -> Self {
        Psql::open(url).sql(TABLE).await;
        let (stop, committed) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for writer in 1..=WRITERS {
            let (stop, committed) = (Arc::clone(&stop), Arc::clone(&committed));
            tasks.spawn(write(url.to_owned(), writer, Dice::of(seed, writer), stop, committed));
        }
        Self { url: url.to_owned(), stop, committed, tasks }
    }

    /// Waits until so many more transactions are committed.
    pub(super) async fn commit(&self, transactions: u64) {
        let count = || self.committed.load(Ordering::Relaxed);
        let goal = count() + usize::try_from(transactions).expect("few");
        until("transactions are committed", async || count() >= goal).await;
    }

    /// Ends all; the table as it is then.
    pub(super) async fn finish(self) -> Rows {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        let rows = Psql::open(&self.url).sql("SELECT to_jsonb(ledger) FROM ledger").await;
        let rows = rows.lines().map(|row| {
            let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
            (row["id"].as_i64().expect("a number"), row)
        });
        rows.collect()
    }
}

async fn write(
    url: String,
    writer: u64,
    mut dice: Dice,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicUsize>,
) {
    let mut psql = Psql::quiet(&url);
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        match psql.succeeds(&transaction(writer, &mut dice)).await {
            Some(true) => drop(committed.fetch_add(1, Ordering::Relaxed)),
            // Two locked each other out.
            Some(false) => drop(psql.succeeds("ROLLBACK").await),
            // The server is gone. Whether the last one was committed shows in the writer's row.
            None => psql = Psql::quiet(&url),
        }
    }
}

/// A transaction in one message: rows come, change and go, some in vain; the writer's own row is
/// the last.
fn transaction(writer: u64, dice: &mut Dice) -> String {
    let mut parts = vec!["BEGIN".to_owned()];
    for _ in 0..=dice.roll(5) {
        let (id, n) = (dice.roll(KEYS), dice.roll(1_000_000));
        let is_in_vain = dice.once_in(8);
        if is_in_vain {
            parts.push("SAVEPOINT s".to_owned());
        }
        parts.push(match dice.roll(8) {
            0..4 => format!(
                "INSERT INTO ledger VALUES ({id}, {n}, repeat('{n} ', {})) \
                 ON CONFLICT (id) DO UPDATE SET n = excluded.n",
                n % 20
            ),
            4 => format!("UPDATE ledger SET n = n + 1 WHERE id BETWEEN {id} AND {id} + 4"),
            5 => format!("UPDATE ledger SET note = NULL WHERE id = {id}"),
            6 => format!("DELETE FROM ledger WHERE id BETWEEN {id} AND {id} + 1"),
            _ => format!(
                "DELETE FROM ledger WHERE id = {id}\\; INSERT INTO ledger VALUES ({id}, {n})"
            ),
        });
        if is_in_vain {
            parts.push("ROLLBACK TO s".to_owned());
        }
    }
    parts.push(format!("UPDATE ledger SET n = n + 1 WHERE id = -{writer}"));
    parts.push(if dice.once_in(10) { "ROLLBACK" } else { "COMMIT" }.to_owned());
    parts.join("\\; ")
}
