//! A server inside the test.

use std::net::SocketAddr;

use tidewire_server::config::{Override, Settings, Written};
use tidewire_server::{Never, Server as Inner};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{get, until};

/// A running server on a port of its own; cut off when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server with the keys of the configuration that are given.
    pub(crate) async fn start(keys: &[(&'static str, &str)]) -> Self {
        let listen = [("listen", "127.0.0.1:0")];
        let flags = listen.iter().chain(keys).map(|(path, text)| Override {
            path,
            flag: path,
            text: (*text).to_owned(),
        });
        let written = Written { flags: flags.collect(), ..Written::default() };
        let settings = Settings::load(&written).expect("good settings");
        let server = Inner::start(settings).await.expect("a server");
        let address = server.addresses()[0];
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone(), Never));
        Self { address, stop, task }
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
