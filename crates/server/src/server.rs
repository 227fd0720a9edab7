//! One server's life: bind, serve, reload on request, drain.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tidewire_axum::Threads;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::assemble::Parts;
use crate::config::{Settings, changes};

/// Time for HTTP requests in flight after their sessions have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted; the kernel cuts it to its own limit, which is 4,096 on
/// Linux. With tokio's 1,024, a thousandfold reconnect waits for lost handshakes to be repeated.
const BACKLOG: u32 = 16_384;

/// A server that is bound and whose parts run.
pub struct Server {
    settings: Settings,
    parts: Parts,
    /// Last to go: sessions live on them.
    threads: Threads,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// Those of operators alone.
    operators: Vec<TcpListener>,
}

impl Server {
    /// Starts all parts and binds every address. Clients are served by [`Server::run`].
    ///
    /// # Errors
    /// What in the settings cannot be used, or an address that is taken.
    #[expect(clippy::unused_async, reason = "sockets can be made inside a runtime only")]
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let _ = *crate::api::STARTED;
        let listeners = listen_on(&settings.listen)?;
        let operators = listen_on(&settings.listen_operators)?;
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let parts = Parts::start(&settings)?;
        let threads = Threads::start(settings.connection_threads.get());
        let threads = threads.context("starting the threads that serve connections")?;
        Ok(Self { settings, parts, threads, listeners, addresses, operators })
    }

    /// Where it listens; real ports where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators find it, besides; real ports where 0 was asked for.
    pub fn operator_addresses(&self) -> Vec<SocketAddr> {
        self.operators.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The engine of this server.
    pub fn node(&self) -> &tidewire::Node {
        &self.parts.node
    }

    /// Serves until `stop` is cancelled, then stops accepting, tells every client to come back,
    /// and waits until they are gone or the grace time has passed.
    ///
    /// `reload` is asked for new settings each time `reloads` yields, see [`Reloads`].
    pub async fn run(mut self, stop: CancellationToken, mut reloads: impl Reloads) {
        let listening = self.parts.listening(&self.settings, self.threads.clone());
        let (listeners, operators) =
            (std::mem::take(&mut self.listeners), std::mem::take(&mut self.operators));
        let app = self.parts.app(!operators.is_empty());
        let public = tidewire_axum::serve(listeners, app, listening.clone(), stop.clone());
        let app = self.parts.operators_app();
        let operators = tidewire_axum::serve(operators, app, listening, stop.clone());
        let serving = async {
            tokio::join!(public, operators);
        };
        let mut serving = std::pin::pin!(serving);
        let mut secured = self.parts.tables.as_ref().map(|tables| tables.secured());
        loop {
            tokio::select! {
                biased;
                // 1. The server is told to stop.
                () = stop.cancelled() => break,
                // 2. The configuration is to be read again.
                read = reloads.next() => self.reload(read),
                // 3. A key server took a key back: whoever came by it goes.
                () = self.parts.authentication.keys_removed() => self.parts.node.review(),
                // 4. A table got row level security: whoever may not see it any more is told so.
                () = switched(secured.as_mut()) => self.parts.node.review(),
                // 5. Clients are served; this ends with 1 only.
                () = &mut serving => break,
            }
        }
        self.drain(serving).await;
    }

    fn reload(&mut self, read: anyhow::Result<Settings>) {
        let applied = read.and_then(|settings| {
            let changed = changes(&self.settings, &settings);
            self.parts.reload(&settings)?;
            self.settings = settings;
            Ok(changed)
        });
        match applied {
            Ok(changed) => tracing::info!(
                changed = ?changed.live,
                needs_restart = ?changed.restart,
                "configuration read again"
            ),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "configuration not changed");
            }
        }
    }

    async fn drain(self, serving: impl Future<Output = ()>) {
        let shutdown = &self.settings.shutdown;
        tracing::info!(connections = self.parts.node.stats().connections, "stopping");
        let gone = async {
            self.parts.node.shutdown(shutdown.spread, shutdown.grace).await;
            self.parts.transports.ended().await;
        };
        // Streams of Server-Sent Events end inside `serving`, so both must go on together.
        let last = shutdown.grace + LAST_REQUESTS;
        let _ = tokio::time::timeout(last, futures_util::future::join(gone, serving)).await;
        if let Some(tables) = &self.parts.tables {
            tables.shutdown().await;
        }
        if let Some(notify) = &self.parts.notify {
            notify.shutdown().await;
        }
        if let Some(disk) = &self.parts.disk
            && let Err(error) = disk.close().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing the history");
        }
        tracing::info!("stopped");
    }
}

fn listen_on(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let listening =
        |address: &SocketAddr| listen(*address).with_context(|| format!("listening on {address}"));
    addresses.iter().map(listening).collect()
}

/// Listens with room for a crowd that comes back at once.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted server takes its port back from connections that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where a running server hears that its configuration is to be read again.
pub trait Reloads {
    /// Waits for the next time and reads. Cancel safe.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Settings>> + Send;
}

/// The configuration is never read again.
pub struct Never;

impl Reloads for Never {
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Settings>> + Send {
        std::future::pending()
    }
}

/// Returns when the count changes; never where there is none. Cancel safe.
async fn switched(count: Option<&mut watch::Receiver<u64>>) {
    if let Some(count) = count
        && count.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
