//! The accept loop: sockets to HTTP connections, and nothing of what is said on them.
//!
//! Every socket is taken in at once: where there are too many, the registry (`sockets`) says which
//! is cut for it, so that clients who connect and send nothing hold up nobody. Until its first
//! request has been read a socket has a deadline. Stopping lets requests in flight end.

mod body;
mod flight;
mod full;
mod metrics;
mod patience;
mod plain;
mod prefixed;
mod sockets;
mod threads;
mod tls;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
use tidewire::budget::{self, Budget, Network, Principal};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::metrics::ListeningMetrics;
pub(crate) use self::patience::{GivenUp, Patient};
pub(crate) use self::prefixed::Prefixed;
pub(crate) use self::sockets::SocketPlace;
use self::sockets::{Bounds, Over, Sockets};
pub use self::threads::Threads;
pub use self::tls::{Tls, TlsError};
use crate::app::App;

/// First pause after an accept failed for want of descriptors or memory.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Longest such pause: a second later some connection has usually ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a kept-alive connection may be silent between requests, and between pings on HTTP/2.
///
/// Over the 60 s for which common proxies keep connections to their upstream, so that they, not
/// we, end them.
const KEPT_ALIVE: Duration = Duration::from_secs(75);

/// Silence after which the kernel asks whether the peer still exists, and how often it asks.
///
/// With the kernel's nine tries a vanished peer of an HTTP connection is found in under four
/// minutes; WebSockets have their own pings.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How connections are taken in.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Certificate and key; plain TCP without. HTTP/2 and HTTP/1.1 are offered by ALPN.
    pub tls: Option<Tls>,
    /// Time from the connection to the end of its first request's headers, TLS included; 10 s.
    pub handshake_timeout: Duration,
    /// Time for one request's body; 30 s.
    pub body_timeout: Duration,
    /// A client that takes no byte of an answer for this long is cut off; 30 s.
    pub write_timeout: Duration,
    /// Sockets at the same time; 100,000. To be well below the limit of open files.
    pub sockets: usize,
    /// The threads that connections are served on; without, the runtime that calls [`serve`].
    pub threads: Option<Threads>,
    /// Where connections are counted.
    pub metrics: ListeningMetrics,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            tls: None,
            handshake_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            sockets: 100_000,
            threads: None,
            metrics: ListeningMetrics::default(),
        }
    }
}

/// Serves `app` on every listener until `stop`, then lets requests in flight end.
///
/// Returns when the last HTTP connection has ended. Streams in flight end when their sessions do,
/// so call [`Node::shutdown`](tidewire::Node::shutdown) meanwhile. Dropping the future cuts all
/// HTTP connections off; WebSockets belong to [`Transports`](crate::Transports), and to the
/// [`Threads`] they run on.
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: App,
    listening: Listening,
    stop: CancellationToken,
) {
    let door = Arc::new(Door {
        sockets: Sockets::default(),
        http: full::speaker(&listening),
        app,
        listening,
        stop,
    });
    let mut loops = JoinSet::new();
    for listener in listeners {
        tune(&listener);
        match &door.listening.threads {
            None => loops.spawn(Arc::clone(&door).accept_all(listener)),
            Some(threads) => {
                loops.spawn_on(Arc::clone(&door).accept_moved(listener), threads.first())
            }
        };
    }
    while loops.join_next().await.is_some() {}
}

/// What all connections share.
struct Door {
    sockets: Sockets,
    http: Builder<TokioExecutor>,
    app: App,
    listening: Listening,
    stop: CancellationToken,
}

impl Door {
    /// The same on a thread of ours, whose own poller is to tell of connections.
    async fn accept_moved(self: Arc<Self>, listener: TcpListener) {
        match listener.into_std().and_then(TcpListener::from_std) {
            Ok(listener) => self.accept_all(listener).await,
            Err(error) => tracing::error!(%error, "a listener cannot be moved to its thread"),
        }
    }

    async fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                biased;
                // 1. Shutdown closes the listener, so that others may have the port.
                () = self.stop.cancelled() => break,
                // 2. Ended connections are let go of.
                Some(_) = connections.join_next() => {}
                // 3. Someone connects.
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        pause = FIRST_PAUSE;
                        self.listening.metrics.accepted.inc();
                        if let Some(place) = self.place(peer) {
                            self.assign(&mut connections, socket, peer, place);
                        }
                    }
                    Err(error) => {
                        self.listening.metrics.accept_failures.inc();
                        tokio::time::sleep(pause_after(&error, &mut pause)).await;
                    }
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// A place for a socket of this address, for which others may be cut; `None` when it is to be
    /// closed.
    fn place(&self, peer: SocketAddr) -> Option<SocketPlace> {
        let transports = self.app.transports();
        let node = transports.node();
        let budgets = &node.limits().budgets;
        let bounds = Bounds {
            all: self.listening.sockets,
            each: budgets.address_sockets,
            new: budgets.handshakes,
            each_new: budgets.address_handshakes,
        };
        // Without authentication clients are not told apart; those of a proxy cannot be.
        let is_shared = !node.has_authentication() || transports.proxies().contain(peer.ip());
        let entered = self.sockets.enter(Network::of(peer.ip()), is_shared, &bounds);
        for (network, over) in entered.over {
            let budget = match over {
                Over::Sockets => Budget::Sockets,
                Over::New => Budget::Handshakes,
            };
            budget::exceeded(budget, &Principal::Network(network), node.metrics());
        }
        entered.place
    }

    /// Who sent a request that came from `peer`.
    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        self.app.transports().proxies().client(peer, headers)
    }

    /// Gives the connection a task, on the thread whose turn it is.
    fn assign(
        self: &Arc<Self>,
        connections: &mut JoinSet<()>,
        socket: TcpStream,
        peer: SocketAddr,
        place: SocketPlace,
    ) {
        let door = Arc::clone(self);
        let Some(thread) = self.listening.threads.as_ref().and_then(Threads::next) else {
            connections.spawn(door.take_in(socket, peer, place));
            return;
        };
        // The thread's own poller is to tell of its bytes.
        let moved = async move {
            match socket.into_std().and_then(TcpStream::from_std) {
                Ok(socket) => door.take_in(socket, peer, place).await,
                Err(error) => tracing::error!(%error, "a connection cannot be given to a thread"),
            }
        };
        connections.spawn_on(moved, thread);
    }

    async fn take_in(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, place: SocketPlace) {
        let place = Arc::new(place);
        // Pinned where it is: a future that is moved into the select takes its room twice.
        let mut served = pin!(self.serve_any(socket, peer, &place));
        tokio::select! {
            biased;
            // 1. The connection ends by itself, or becomes a session's.
            () = &mut served => {}
            // 2. Its first request did not come in time.
            () = overdue(&place, self.listening.handshake_timeout) => {
                self.listening.metrics.cut_off.inc();
                tracing::debug!(%peer, "no request in time, the connection is cut off");
            }
            // 3. It has to go for another.
            () = place.cut() => tracing::debug!(%peer, "cut for another connection"),
        }
    }

    async fn serve_any(&self, socket: TcpStream, peer: SocketAddr, place: &Arc<SocketPlace>) {
        match &self.listening.tls {
            None => self.serve_plain(socket, peer, place).await,
            Some(tls) => self.serve_tls(tls, socket, peer, place).await,
        }
    }

    /// Boxed, so that connections without TLS have no room for it.
    fn serve_tls<'all>(
        &'all self,
        tls: &'all Tls,
        socket: TcpStream,
        peer: SocketAddr,
        place: &'all Arc<SocketPlace>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'all>> {
        Box::pin(async move {
            match tls.acceptor().accept(socket).await {
                Ok(stream) => self.serve_http(stream, peer, place).await,
                Err(error) => {
                    self.listening.metrics.tls_failures.inc();
                    tracing::debug!(%peer, %error, "a TLS handshake failed");
                }
            }
        })
    }

    /// Most connections need no more than [`plain`] offers, and then no room for more.
    async fn serve_plain(&self, socket: TcpStream, peer: SocketAddr, place: &Arc<SocketPlace>) {
        if let Some(left) = plain::serve(self, socket, peer, place).await {
            let io = Prefixed::new(left.socket, left.read);
            let serving = Box::pin(self.serve_http(io, peer, place));
            serving.await;
        }
    }
}

/// Ends when no request came in time; never when one did.
async fn overdue(place: &SocketPlace, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if !place.is_new() {
        std::future::pending::<()>().await;
    }
}

/// Has connections send small frames at once, and find out about peers that vanished.
///
/// What is set on the listener each accepted socket has from the beginning, which saves four
/// system calls for each (socket(7) and tcp(7) of Linux; the BSDs do the same).
fn tune(listener: &TcpListener) {
    let keepalive =
        TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE_INTERVAL);
    let listener = SockRef::from(listener);
    let set = listener.set_tcp_nodelay(true).and_then(|()| listener.set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::warn!(%error, "the options of TCP cannot be set; small frames may be held back");
    }
}

/// How long to wait before the next accept; none when only this one connection went away.
fn pause_after(error: &std::io::Error, pause: &mut Duration) -> Duration {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let only_this_one = [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted];
    if only_this_one.contains(&error.kind()) {
        return Duration::ZERO;
    }
    if *pause == FIRST_PAUSE {
        // Most often the limit of open files; said once until a connection is accepted again.
        tracing::error!(%error, "no connection can be accepted; raise the limit of open files");
    }
    let now = *pause;
    *pause = LONGEST_PAUSE.min(now * 2);
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_is_waited_out_longer_and_longer() {
        let mut pause = FIRST_PAUSE;
        let full = std::io::Error::from_raw_os_error(24);
        let pauses: Vec<Duration> = (0..12).map(|_| pause_after(&full, &mut pause)).collect();
        assert_eq!(pauses[..3], [5, 10, 20].map(Duration::from_millis));
        assert_eq!(pauses[11], LONGEST_PAUSE);
    }

    #[test]
    fn a_connection_that_was_reset_does_not_hold_up_the_next() {
        let mut pause = FIRST_PAUSE;
        let reset = std::io::ErrorKind::ConnectionReset.into();
        assert_eq!(pause_after(&reset, &mut pause), Duration::ZERO);
    }
}
