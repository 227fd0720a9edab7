//! A PostgreSQL of the test's own, and psql to say things in it.

use std::path::{Path, PathBuf};
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

/// A session of psql in a cluster, which lives as long.
pub(crate) struct Database {
    cluster: Arc<PrivateCluster>,
    psql: Psql,
}

impl Database {
    /// A session in a cluster that runs.
    pub(crate) fn of(cluster: Arc<PrivateCluster>) -> Self {
        let psql = Psql::open(&cluster.socket_url().expect("a short path"));
        Self { cluster, psql }
    }

    /// Where it is, over its socket: no password is hashed.
    pub(crate) fn url(&self) -> String {
        self.cluster.socket_url().expect("a short path")
    }

    /// Where it is, by way of something that is before its port.
    pub(crate) fn url_by(&self, port: u16) -> String {
        let own = format!(":{}/", self.cluster.port());
        self.cluster.url().replace(&own, &format!(":{port}/"))
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Carries out a statement; what psql prints.
    pub(crate) async fn sql(&mut self, statement: &str) -> String {
        self.psql.sql(statement).await
    }

    /// Says something on a channel.
    pub(crate) async fn notify(&mut self, channel: &str, payload: &str) {
        let quoted = |text: &str| text.replace('\'', "''");
        let (channel, payload) = (quoted(channel), quoted(payload));
        self.sql(&format!("SELECT pg_notify('{channel}', '{payload}')")).await;
    }
}

/// One session of psql.
pub(crate) struct Psql {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _psql: Child,
}

impl Psql {
    /// A session; what goes wrong in it is printed.
    pub(crate) fn open(url: &str) -> Self {
        Self::start(url, Stdio::inherit())
    }

    /// A session in which statements may fail without a word.
    pub(crate) fn quiet(url: &str) -> Self {
        Self::start(url, Stdio::null())
    }

    fn start(url: &str, errors: Stdio) -> Self {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .expect("psql, which comes with PostgreSQL");
        let input = psql.stdin.take().expect("a pipe");
        let output = BufReader::new(psql.stdout.take().expect("a pipe")).lines();
        Self { input, output, _psql: psql }
    }

    /// Carries out a statement; what psql prints.
    pub(crate) async fn sql(&mut self, statement: &str) -> String {
        self.answer(statement).await.expect("psql lives")
    }

    /// Carries out a statement, or several joined by `\;` as one; whether it succeeded, `None` when
    /// the connection was lost, and nobody knows.
    pub(crate) async fn succeeds(&mut self, statement: &str) -> Option<bool> {
        let answer = self.answer(&format!("{statement};\n\\echo :ERROR\n")).await?;
        Some(answer.lines().next_back() == Some("false"))
    }

    async fn answer(&mut self, statement: &str) -> Option<String> {
        let input = format!("{statement};\n\\echo {END}\n");
        self.input.write_all(input.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        loop {
            let line = soon("an answer of psql", self.output.next_line()).await;
            match line.expect("psql prints UTF-8")? {
                line if line == END => return Some(answer.join("\n")),
                line => answer.push(line),
            }
        }
    }
}

/// A cluster of the test's own, of the PostgreSQL that is installed.
pub(crate) async fn own_cluster(options: Options) -> PrivateCluster {
    let made = tokio::task::spawn_blocking(|| PrivateCluster::temporary(options));
    made.await.expect("it does not panic").expect("a private PostgreSQL")
}

/// The same of the newer PostgreSQL that `scripts/install-postgres-next.sh` puts aside, or whose
/// programs are in the directory that `TIDEWIRE_POSTGRES_NEXT` names; `None` without one, which is
/// said, and the test goes without.
pub(crate) async fn newer_cluster(options: Options) -> Option<PrivateCluster> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = std::env::var_os("TIDEWIRE_POSTGRES_NEXT");
    let place = place.map_or_else(|| root.join(".tidewire/postgres-18/bin"), PathBuf::from);
    if !place.join("postgres").is_file() {
        println!("skipped: no newer PostgreSQL here, see scripts/install-postgres-next.sh");
        return None;
    }
    let place = place.canonicalize().expect("it is there");
    Some(own_cluster(options.bin_dir(place)).await)
}
