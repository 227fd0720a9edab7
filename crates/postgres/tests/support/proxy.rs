//! A proxy before PostgreSQL that can swallow notifications, as a pooler in transaction mode does,
//! or stop moving bytes, as a network that died does.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Everything goes through.
    Honest,
    /// Notifications do not.
    Swallowing,
    /// Nothing does, and nobody is told. Connections made later are as the mood is then.
    Dead,
}

/// A proxy on a port of its own; it ends when dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mood: watch::Sender<Mood>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn before(port: u16, mood: Mood) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, moods) = watch::channel(mood);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                connections.spawn(carry(client, server, moods.clone()));
            }
        });
        Self { address, mood, _tasks: tasks }
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.mood.send(mood).unwrap();
    }
}

async fn carry(client: TcpStream, server: TcpStream, moods: watch::Receiver<Mood>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = upwards(from_client, to_server, moods.clone());
    let down = downwards(from_server, to_client, moods);
    // A connection that ends on one side ends on the other.
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    moods: watch::Receiver<Mood>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 65_536];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        stand_still_if_dead(&moods).await;
        to.write_all(&bytes[..read]).await?;
    }
}

/// Moves whole messages: a type, a length that counts itself, and that much.
async fn downwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    moods: watch::Receiver<Mood>,
) -> std::io::Result<()> {
    const NOTIFICATION: u8 = b'A';
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut message = vec![0; length as usize - 4];
        from.read_exact(&mut message).await?;
        stand_still_if_dead(&moods).await;
        if kind == NOTIFICATION && *moods.borrow() == Mood::Swallowing {
            continue;
        }
        to.write_u8(kind).await?;
        to.write_u32(length).await?;
        to.write_all(&message).await?;
    }
}

/// A connection that met a dead network never recovers.
async fn stand_still_if_dead(moods: &watch::Receiver<Mood>) {
    if *moods.borrow() == Mood::Dead {
        std::future::pending::<()>().await;
    }
}
