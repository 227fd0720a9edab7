//! What an idle connection costs.

use std::net::SocketAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Program, get, soon, until};

/// Connections; enough that what is there anyway does not show.
const COUNT: usize = 2_000;

/// Most that one may take in a build without optimization; the aim is 8 KiB with it.
const MOST: usize = 32 << 10;

#[tokio::test]
async fn the_memory_of_an_idle_websocket_is_small() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(most > 2 * COUNT as u64, "the limit of open files is {most}, which is too few");
    // The program inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit is allowed");
    let (program, address) = Program::serve(&["-w", "127.0.0.1:0"], &[]).await;
    // What the first connections of all need is not theirs.
    let mut sockets = vec![idle(address).await];
    let before = program.resident_bytes();
    for _ in 0..COUNT {
        sockets.push(idle(address).await);
    }
    until("all connections", async || {
        get(address, "/v1/stats").await.good().await["connections"] == sockets.len()
    })
    .await;
    let each = program.resident_bytes().saturating_sub(before) / COUNT;
    println!("an idle WebSocket takes {each} bytes");
    assert!(each < MOST, "an idle WebSocket takes {each} bytes");
}

/// A WebSocket that was welcomed and says nothing.
async fn idle(address: SocketAddr) -> TcpStream {
    let mut socket = soon("a connection", TcpStream::connect(address)).await.expect("a server");
    let upgrade = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("welcome") {
        soon("the welcome", socket.read_buf(&mut heard)).await.expect("the connection lives");
    }
    socket
}
