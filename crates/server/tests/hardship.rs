//! Bad input and bad circumstances of row changes, through the whole server: huge transactions and
//! values, a PostgreSQL without room for us, a history that cannot be written, tables and rights
//! that change under way. Each has its words, its metric and its way back, and nothing is silently
//! missing.

mod account;
mod full_disk;
mod large_rows;
mod large_transactions;
mod shortage;
mod streaming;
mod upheaval;

use std::net::SocketAddr;
use std::sync::Arc;

use account::Heard;
use serde_json::Value;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};

use crate::support::{Database, Program, get, own_cluster, until};

/// The program, as a process of its own, and a PostgreSQL of its own.
struct Scene {
    cluster: Arc<PrivateCluster>,
    database: Database,
    program: Program,
    address: SocketAddr,
    variables: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

impl Scene {
    /// Starts both, and says some SQL between.
    async fn with(options: Options, sql: &str, variables: &[(&'static str, &str)]) -> Self {
        Self::over(own_cluster(options).await, sql, variables).await
    }

    /// The same over a PostgreSQL that runs. `FOLDER` stands for a folder of this test in the
    /// values of variables.
    async fn over(cluster: PrivateCluster, sql: &str, variables: &[(&'static str, &str)]) -> Self {
        let cluster = Arc::new(cluster);
        let mut database = Database::of(Arc::clone(&cluster));
        database.sql(sql).await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let mut all = vec![
            ("TIDEWIRE_LISTEN", "127.0.0.1:0".to_owned()),
            ("TIDEWIRE_POSTGRES_URL", database.url()),
            ("TIDEWIRE_SOURCE", "wal".to_owned()),
        ];
        all.extend(variables.iter().map(|(name, value)| (*name, value.replace("FOLDER", &path))));
        let (program, address) = serve(&all).await;
        // It comes back where it was.
        all[0].1 = address.to_string();
        Self { cluster, database, program, address, variables: all, folder }
    }

    /// Ends the program by force and starts it again.
    async fn start_again(&mut self) {
        self.program.signal(nix::sys::signal::Signal::SIGKILL);
        self.program.ended().await;
        (self.program, _) = serve(&self.variables).await;
    }

    async fn sql(&mut self, statement: &str) -> String {
        self.database.sql(statement).await
    }

    /// What `/ready` says of row changes.
    async fn tables(&self) -> Value {
        get(self.address, "/ready").await.json().await["parts"]["tables"].clone()
    }

    /// Waits until `/ready` says that row changes come.
    async fn reads(&self) {
        until("row changes that come", async || self.tables().await["ready"] == true).await;
        assert_eq!(self.metric("tidewire_wal_connected").await, 1);
    }

    /// Waits until `/ready` says that none come, for a reason with these words; gives all of it.
    async fn is_held_up_by(&self, words: &str) -> String {
        let told = || async {
            let tables = self.tables().await;
            let error = tables["error"].as_str().unwrap_or_default().to_owned();
            (tables["ready"] == false && error.contains(words)).then_some(error)
        };
        until(words, async || told().await.is_some()).await;
        assert_eq!(self.metric("tidewire_wal_connected").await, 0);
        assert_eq!(get(self.address, "/health").await.status, 200, "the process itself is well");
        told().await.unwrap_or_default()
    }

    /// A counter or gauge; the sum where it has labels, 0 where it is not there yet.
    async fn metric(&self, name: &str) -> u64 {
        let text = get(self.address, "/metrics").await.rest().await;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then_some(rest.rsplit_once(' ')?.1)
        });
        samples.map(|value| value.parse::<u64>().expect("a whole number")).sum()
    }

    /// Most bytes of memory that the program ever had resident.
    fn peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.program.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux has it");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().expect("a number") * 1_024
    }
}

async fn serve(variables: &[(&'static str, String)]) -> (Program, SocketAddr) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Program::serve(&["serve"], &variables).await
}
