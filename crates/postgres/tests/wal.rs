//! The write-ahead log as a source of row changes.

mod backlog;
mod basics;
mod failures;
mod keys;
mod limits;
mod login;
mod partitions;
mod pooler;
pub(crate) mod renamed;
mod restored;
mod slots;
mod streaming;
mod values;
mod workload;

use std::time::Duration;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{Target, WalOptions, WalSource};
use tidewire_protocol::Topic;
use tokio_postgres::Client;

use crate::support::changes::{Seen, Witness};
use crate::support::{comes_true, sql, target};

/// A source under test, who hears it, and a connection for SQL.
pub(crate) struct Rig {
    pub(crate) source: WalSource,
    pub(crate) witness: Witness,
    pub(crate) sql: Client,
}

/// Options with short times.
pub(crate) fn quick() -> WalOptions {
    let check_interval = Duration::from_millis(200);
    // Most tests write their messages themselves.
    WalOptions { check_interval, unsigned_messages: true, ..WalOptions::default() }
}

pub(crate) fn table(name: &str) -> Topic {
    Topic::table(name).unwrap()
}

impl Rig {
    pub(crate) async fn new(cluster: &PrivateCluster, setup: &str) -> Self {
        Self::with(cluster, target(cluster), quick(), setup).await
    }

    pub(crate) async fn with(
        cluster: &PrivateCluster,
        target: Target,
        options: WalOptions,
        setup: &str,
    ) -> Self {
        let sql = sql(cluster).await;
        sql.batch_execute(setup).await.unwrap();
        let (publisher, witness) = Witness::new();
        let source = WalSource::start(target, publisher, options);
        Self { source, witness, sql }
    }

    pub(crate) async fn add(&self, name: &str) {
        let added = self.source.add(&table(name)).await;
        added.unwrap_or_else(|refusal| panic!("{refusal:?}; {:?}", self.source.status()));
    }

    pub(crate) async fn run(&self, statements: &str) {
        self.sql.batch_execute(statements).await.unwrap();
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, mut so: impl FnMut(&WalSource) -> bool) {
        let came = comes_true(async || so(&self.source)).await;
        assert!(came, "not in time: {what}; {:?}", self.source.status());
    }

    /// Everything that was published up to now, once it is complete.
    pub(crate) async fn caught_up(&mut self) -> Vec<Seen> {
        self.source.catch_up().await.unwrap();
        self.witness.taken()
    }
}
