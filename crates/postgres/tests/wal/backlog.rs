//! How fast a backlog is read, beside PostgreSQL's own client. A measurement, not a test: run it
//! with `cargo nextest run --release -p tidewire-postgres --run-ignored only --no-capture backlog`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewire::{Broker, Error, Event, Inlet, Node, Topic};
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions, WalSource};
use tokio::time::Instant;

use super::table;
use crate::support::{own_cluster, sql, target};

const ROWS: u64 = 1_000_000;

/// Announces to nobody.
struct Nobody;

#[async_trait]
impl Broker for Nobody {
    fn attach(&self, _: Inlet) {}

    async fn announce(&self, _: &[Arc<Event>]) -> Result<(), Error> {
        Ok(())
    }

    async fn follow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }

    async fn unfollow(&self, _: &Topic) -> Result<(), Error> {
        Ok(())
    }
}

fn rate(took: Duration) -> f64 {
    ROWS as f64 / took.as_secs_f64()
}

/// Seconds of processor time used by somebody.
#[derive(Clone, Copy)]
struct Used {
    user: f64,
    kernel: f64,
}

impl Used {
    /// By this process; Linux counts hundredths.
    fn by_us() -> Self {
        Self::at(11)
    }

    /// By the processes that this one has started and that have ended.
    fn by_children() -> Self {
        Self::at(13)
    }

    fn at(field: usize) -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_ascii_whitespace().skip(field).take(2);
        let seconds: Vec<f64> = ticks.map(|t| t.parse().unwrap_or(0.0) / 100.0).collect();
        Self { user: seconds[0], kernel: seconds[1] }
    }

    fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, kernel: self.kernel - before.kernel }
    }
}

fn tell(who: &str, took: Duration, used: Used) {
    let per_million = |seconds: f64| seconds * 1e6 / ROWS as f64;
    let all = used.user + used.kernel;
    println!(
        "{who}: {:.0} rows/s; {:.2} s of processor per million rows ({:.2} user, {:.2} kernel), \
         {:.0} % of a core",
        rate(took),
        per_million(all),
        per_million(used.user),
        per_million(used.kernel),
        all * 100.0 / took.as_secs_f64()
    );
}

fn options() -> WalOptions {
    let slot = SlotKind::Persistent { name: "backlog".to_owned(), failover: false };
    WalOptions { slot, publication: Some("backlog".to_owned()), ..WalOptions::default() }
}

fn source(cluster: &PrivateCluster) -> WalSource {
    let prepared = Node::builder().broker(Arc::new(Nobody)).prepare();
    WalSource::start(target(cluster), prepared.publisher().clone(), options())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement that takes a minute"]
async fn backlog() {
    let cluster = own_cluster();
    let client = sql(&cluster).await;
    let setup = "CREATE TABLE backlog (id bigint PRIMARY KEY, n int, uid uuid, name text, \
                 price numeric, doc jsonb, at timestamptz)";
    client.batch_execute(setup).await.unwrap();
    let first = source(&cluster);
    first.add(&table("public.backlog")).await.unwrap();
    first.shutdown().await;
    let other = "SELECT pg_create_logical_replication_slot('recvlogical', 'pgoutput')";
    client.batch_execute(other).await.unwrap();
    for batch in 0..100 {
        let from = batch * ROWS / 100;
        let rows = format!(
            "INSERT INTO backlog SELECT n, n % 1000, gen_random_uuid(), 'name ' || n, n * 1.25, \
             jsonb_build_object('a', n, 'b', 'text'), now() \
             FROM generate_series({from}, {from} + {ROWS} / 100 - 1) n"
        );
        client.batch_execute(&rows).await.unwrap();
    }
    let before = Used::by_children();
    if let Some(took) = recvlogical(&cluster, &client).await {
        tell("pg_recvlogical", took, Used::by_children().since(before));
    }
    let (started, before) = (Instant::now(), Used::by_us());
    let reader = source(&cluster);
    while reader.metrics().changes.get() < ROWS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell("tidewire", started.elapsed(), Used::by_us().since(before));
    reader.shutdown().await;
}

/// The same backlog read by PostgreSQL's own client, if it is installed.
async fn recvlogical(
    cluster: &PrivateCluster,
    client: &tokio_postgres::Client,
) -> Option<Duration> {
    let bin = Command::new("pg_config").arg("--bindir").output().ok();
    let bin = bin.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let bin = bin.unwrap_or_else(|| "/usr/lib/postgresql/15/bin".to_owned());
    let end: String =
        client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let started = Instant::now();
    let mut command = Command::new(format!("{bin}/pg_recvlogical"));
    command.args(["--start", "--slot=recvlogical", "--dbname", &cluster.socket_url()?]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=backlog"]);
    command.args(["--endpos", &end, "--file", "/dev/null", "--no-loop"]);
    let status = tokio::task::spawn_blocking(move || command.stderr(Stdio::null()).status());
    status.await.unwrap().ok().filter(std::process::ExitStatus::success)?;
    Some(started.elapsed())
}
