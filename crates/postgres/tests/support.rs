//! A cluster for all tests, an ear that hears what a source publishes, and a proxy that can be
//! made to misbehave.

pub(crate) mod changes;
mod ear;
mod proxy;

use std::sync::{Arc, Weak};

pub(crate) use ear::{Ear, Heard, topic};
use parking_lot::Mutex;
pub(crate) use proxy::{Mood, Proxy};
use tidewire_postgres::Target;
use tidewire_postgres::private_cluster::{Options, PrivateCluster};
use tokio_postgres::{Client, NoTls};

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
