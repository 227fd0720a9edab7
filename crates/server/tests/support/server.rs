//! A server inside the test.

use std::net::SocketAddr;

use tidewire_server::config::{Override, Settings, Written};
use tidewire_server::{Reloads, Server as Inner};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{get, until};

/// A running server on a port of its own; cut off when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    reloads: mpsc::Sender<Settings>,
}

/// Settings that the test asks a running server to take on.
struct Requested(mpsc::Receiver<Settings>);

impl Reloads for Requested {
    async fn next(&mut self) -> anyhow::Result<Settings> {
        match self.0.recv().await {
            Some(settings) => Ok(settings),
            None => std::future::pending().await,
        }
    }
}

fn settings(keys: &[(&'static str, &str)]) -> Settings {
    let listen = [("listen", "127.0.0.1:0")];
    let flags = listen.iter().chain(keys).map(|(path, text)| Override {
        path,
        flag: path,
        text: (*text).to_owned(),
    });
    let written = Written { flags: flags.collect(), ..Written::default() };
    Settings::load(&written).expect("good settings")
}

impl Server {
    /// Starts a server with the keys of the configuration that are given.
    pub(crate) async fn start(keys: &[(&'static str, &str)]) -> Self {
        let server = Inner::start(settings(keys)).await.expect("a server");
        let address = server.addresses()[0];
        let stop = CancellationToken::new();
        let (reloads, requested) = mpsc::channel(1);
        let task = tokio::spawn(server.run(stop.clone(), Requested(requested)));
        Self { address, stop, task, reloads }
    }

    /// Asks it to take on other keys of the configuration while it runs, as a signal does.
    pub(crate) async fn reload(&self, keys: &[(&'static str, &str)]) {
        self.reloads.send(settings(keys)).await.expect("the server runs");
    }

    /// Starts a server of a database, and waits until it listens to it.
    pub(crate) async fn of(url: &str, keys: &[(&'static str, &str)]) -> Self {
        let mut all = vec![("postgres.url", url)];
        all.extend_from_slice(keys);
        let server = Self::start(&all).await;
        server.is_ready_soon().await;
        server
    }

    pub(crate) async fn is_ready_soon(&self) {
        until("a server that is ready", async || get(self.address, "/ready").await.status == 200)
            .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}
