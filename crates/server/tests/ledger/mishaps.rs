//! What goes wrong: the server, PostgreSQL or a connection between them is killed.

use std::fs;
use std::net::SocketAddr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidewire_postgres::private_cluster::PrivateCluster;
use tokio::sync::watch;

use super::clients::Address;
use crate::support::{Program, Psql, until};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// `kill -9` of the server, which is started again on the same configuration.
    Server,
    /// `kill -9` of PostgreSQL, all its processes, which is started again.
    Postgres,
    /// PostgreSQL, while the server is away.
    Both,
    /// The connection on which changes come is ended.
    Connection,
}

/// A server and its PostgreSQL.
pub(super) struct Scene {
    cluster: Option<PrivateCluster>,
    server: Program,
    variables: Vec<(&'static str, String)>,
    address: watch::Sender<SocketAddr>,
}

impl Scene {
    pub(super) async fn new(cluster: PrivateCluster, keys: &[(&'static str, &str)]) -> Self {
        let mut variables: Vec<_> =
            keys.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        variables.push(("TIDEWIRE_POSTGRES_URL", url(&cluster)));
        variables.push(("TIDEWIRE_LISTEN", "127.0.0.1:0".to_owned()));
        // Enough for whoever is away while something starts again.
        variables.push(("TIDEWIRE_HISTORY_EVENTS", "200000".to_owned()));
        variables.push(("TIDEWIRE_HISTORY_BYTES", "200MiB".to_owned()));
        let (server, address) = start(&variables).await;
        let (address, _) = watch::channel(address);
        Self { cluster: Some(cluster), server, variables, address }
    }

    pub(super) fn url(&self) -> String {
        url(self.cluster())
    }

    pub(super) fn address(&self) -> Address {
        self.address.subscribe()
    }

    /// Something goes wrong, and what was killed runs again.
    pub(super) async fn suffer(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Server => {
                self.kill_server().await;
                self.start_server().await;
            }
            Mishap::Postgres => self.kill_postgres().await,
            Mishap::Both => {
                self.kill_server().await;
                self.kill_postgres().await;
                self.start_server().await;
            }
            Mishap::Connection => self.cut().await,
        }
    }

    async fn kill_server(&mut self) {
        self.server.signal(Signal::SIGKILL);
        self.server.ended().await;
    }

    async fn start_server(&mut self) {
        let address;
        (self.server, address) = start(&self.variables).await;
        self.address.send_replace(address);
    }

    async fn kill_postgres(&mut self) {
        let mut cluster = self.cluster.take().expect("there is one");
        let started = tokio::task::spawn_blocking(move || {
            kill_all(&cluster);
            cluster.resume().expect("PostgreSQL recovers");
            cluster
        });
        self.cluster = Some(started.await.expect("it does not panic"));
    }

    /// Ends the connection of the replication, or of whoever reads the outbox.
    async fn cut(&self) {
        const CUT: &str = "\
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'walsender' \
OR (query LIKE '%tidewire.outbox%' AND pid <> pg_backend_pid())";
        let mut psql = Psql::open(&self.url());
        until("a connection to cut", async || psql.sql(CUT).await != "0").await;
    }

    fn cluster(&self) -> &PrivateCluster {
        self.cluster.as_ref().expect("it is there between two calls")
    }
}

fn url(cluster: &PrivateCluster) -> String {
    cluster.socket_url().expect("a short path")
}

async fn start(variables: &[(&'static str, String)]) -> (Program, SocketAddr) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    Program::serve(&["serve"], &variables).await
}

/// Kills the postmaster first, so that it cannot start anything in place of what dies, and waits
/// until all are gone: another does not start while one of them holds the memory they shared.
fn kill_all(cluster: &PrivateCluster) {
    let file = cluster.data_dir().join("postmaster.pid");
    let text = fs::read_to_string(file).expect("PostgreSQL runs");
    let postmaster: i32 = text.lines().next().expect("a line").trim().parse().expect("a number");
    kill(Pid::from_raw(postmaster), Signal::SIGSTOP).expect("it runs");
    let children = children_of(postmaster);
    for process in std::iter::once(&postmaster).chain(&children) {
        // One that ended by itself meanwhile is dead too.
        let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
    }
    while children.iter().any(|child| lives(*child)) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Whether a process is there and does not only wait to be noticed as dead.
fn lives(process: i32) -> bool {
    field_of(process, "State:").is_some_and(|state| state != "Z")
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("Linux has it").flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| parent_of(*process) == Some(parent)).collect()
}

fn parent_of(process: i32) -> Option<i32> {
    field_of(process, "PPid:")?.parse().ok()
}

fn field_of(process: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}
