//! A way to the database that can be held up: what goes in either direction waits, as with a
//! database that does not answer, and nothing is lost.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running way; gone when dropped.
pub(crate) struct Pause {
    port: u16,
    flows: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pause {
    /// A way to a port of this machine.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (flows, flowing) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(carry(near_in, far_out, flowing.clone()));
                tokio::spawn(carry(far_in, near_out, flowing.clone()));
            }
        });
        Self { port: own, flows, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Holds everything up, or lets it go on.
    pub(crate) fn hold(&self, held: bool) {
        self.flows.send_replace(!held);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flows: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if flows.wait_for(|flows| *flows).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
