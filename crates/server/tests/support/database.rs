//! A PostgreSQL of the test's own, and psql to say things in it.

use std::process::Stdio;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::soon;

/// Printed by psql after each answer.
const END: &str = "-- the answer ends here --";

static SHARED: Mutex<Weak<PrivateCluster>> = Mutex::new(Weak::new());

/// A database that tests of this process share while they overlap, and a connection to it.
/// Channels and functions must be named after the test.
pub(crate) async fn database() -> Database {
    let cluster = tokio::task::spawn_blocking(shared).await.expect("a private PostgreSQL");
    Database::of(cluster)
}

fn shared() -> Arc<PrivateCluster> {
    let mut shared = SHARED.lock();
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let fresh = PrivateCluster::temporary(Options::default()).expect("a private PostgreSQL");
    let fresh = Arc::new(fresh);
    *shared = Arc::downgrade(&fresh);
    fresh
}

/// One session of psql.
pub(crate) struct Database {
    cluster: Arc<PrivateCluster>,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _psql: Child,
}

impl Database {
    /// A session in a cluster that runs.
    pub(crate) fn of(cluster: Arc<PrivateCluster>) -> Self {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .arg(cluster.socket_url().expect("a short path"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql, which comes with PostgreSQL");
        let input = psql.stdin.take().expect("a pipe");
        let output = BufReader::new(psql.stdout.take().expect("a pipe")).lines();
        Self { cluster, input, output, _psql: psql }
    }

    /// Where it is, over its socket: no password is hashed.
    pub(crate) fn url(&self) -> String {
        self.cluster.socket_url().expect("a short path")
    }

    /// Carries out a statement; what psql prints.
    pub(crate) async fn sql(&mut self, statement: &str) -> String {
        let input = format!("{statement};\n\\echo {END}\n");
        self.input.write_all(input.as_bytes()).await.expect("psql lives");
        let mut answer = Vec::new();
        loop {
            let line = soon("an answer of psql", self.output.next_line()).await;
            match line.expect("psql prints UTF-8").expect("psql lives") {
                line if line == END => return answer.join("\n"),
                line => answer.push(line),
            }
        }
    }

    /// Says something on a channel.
    pub(crate) async fn notify(&mut self, channel: &str, payload: &str) {
        let quoted = |text: &str| text.replace('\'', "''");
        let (channel, payload) = (quoted(channel), quoted(payload));
        self.sql(&format!("SELECT pg_notify('{channel}', '{payload}')")).await;
    }
}
