//! A cluster for all tests, an ear that hears what a source publishes, and a proxy that can be
//! made to misbehave.

pub(crate) mod changes;
mod ear;
pub(crate) mod moody;
mod proxy;
mod waiting;

use std::sync::{Arc, Weak};

pub(crate) use ear::{Ear, Heard, topic};
use parking_lot::Mutex;
pub(crate) use proxy::{Mood, Proxy};
use tidewire_postgres::Target;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tokio_postgres::{Client, NoTls};
pub(crate) use waiting::{PATIENCE, comes_true, until};

static SHARED: Mutex<Weak<PrivateCluster>> = Mutex::new(Weak::new());

/// A running cluster that tests of this process share while they overlap. Channels and functions
/// must be named after the test.
pub(crate) fn cluster() -> Arc<PrivateCluster> {
    let mut shared = SHARED.lock();
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let fresh = Arc::new(own_cluster());
    *shared = Arc::downgrade(&fresh);
    fresh
}

/// A cluster for a test that stops it or changes its settings.
pub(crate) fn own_cluster() -> PrivateCluster {
    PrivateCluster::temporary(Options::default()).expect("a private PostgreSQL")
}

/// A cluster of the newer PostgreSQL that `scripts/install-postgres-next.sh` puts aside, or whose
/// programs are in the directory that `TIDEWIRE_POSTGRES_NEXT` names. Without it the test that
/// asks is skipped, and says so.
pub(crate) fn newer_cluster() -> Option<PrivateCluster> {
    newer_cluster_with(Options::default())
}

/// The same with settings.
pub(crate) fn newer_cluster_with(options: Options) -> Option<PrivateCluster> {
    let bin = std::env::var_os("TIDEWIRE_POSTGRES_NEXT").map_or_else(
        || {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            root.join(".tidewire/postgres-18/bin")
        },
        std::path::PathBuf::from,
    );
    if !bin.join("postgres").is_file() {
        println!("skipped: no newer PostgreSQL here, see scripts/install-postgres-next.sh");
        return None;
    }
    let bin = bin.canonicalize().expect("the directory is there");
    Some(PrivateCluster::temporary(options.bin_dir(bin)).expect("a newer PostgreSQL"))
}

/// The cluster over its socket, where no password is hashed: quick.
pub(crate) fn target(cluster: &PrivateCluster) -> Target {
    cluster.socket_url().expect("a short path").parse().unwrap()
}

/// A connection for statements of the test itself.
pub(crate) async fn sql(cluster: &PrivateCluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.socket_url().unwrap(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// An empty database of the test's own, and a connection to it.
pub(crate) async fn database(cluster: &PrivateCluster, name: &str) -> (Target, Client) {
    let admin = sql(cluster).await;
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = database_url(cluster, name);
    (url.parse().unwrap(), connect(&url).await)
}

/// The address of a database of the cluster.
pub(crate) fn database_url(cluster: &PrivateCluster, name: &str) -> String {
    let url = cluster.socket_url().expect("a short path");
    format!("{}/{name}", url.strip_suffix("/postgres").expect("the superuser's database"))
}

/// One more connection.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
