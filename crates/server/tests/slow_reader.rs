//! A client that never reads costs itself only.

use std::net::SocketAddr;

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, Program, client, get, post, soon};

/// Clients that read.
const READERS: usize = 99;

/// Messages said.
const COUNT: usize = 3_000;

/// Bytes of one message's data: all together are more than a socket, at most 4 MiB on Linux, and a
/// mailbox, 1 MiB, hold.
const BYTES: usize = 2_000;

/// Memory that all of this may take: each client's megabyte would be far more.
const GROWTH: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ninety_nine_hear_everything_while_one_never_reads() {
    // All of it is kept, so that those who read are never too late, however busy the machine is.
    let kept = [("TIDEWIRE_HISTORY_EVENTS", "10000"), ("TIDEWIRE_HISTORY_BYTES", "16MiB")];
    let (program, address) = Program::serve(&["-w", "127.0.0.1:0"], &kept).await;
    let _deaf = deaf(address).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = client(address).await;
        reader.subscribe(json!({ "topic": "flood" })).await;
        readers.push(tokio::spawn(read_all(reader)));
    }
    let before = program.resident_bytes();
    for first in (0..COUNT).step_by(100) {
        let batch = (first..first + 100).map(|number| {
            let data = format!("{number} {}", "x".repeat(BYTES));
            json!({ "topic": "flood", "data": data })
        });
        post(address, "/v1/publish", &batch.collect::<Value>()).await.good().await;
    }
    for reader in readers {
        soon("a reader", reader).await.expect("everything was heard");
    }
    let metrics = get(address, "/metrics").await.rest().await;
    let fell_behind = metrics.lines().find(|line| line.starts_with("tidewire_fell_behind_total"));
    assert_ne!(fell_behind, Some("tidewire_fell_behind_total 0"), "the deaf one at least");
    let growth = program.resident_bytes().saturating_sub(before);
    println!("memory grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH, "memory grew by {growth} bytes");
}

/// Hears all messages in order.
async fn read_all(mut reader: Client) {
    for number in 0..COUNT {
        let frame = reader.try_hear().await.expect("the connection lives");
        // Parsing JSON a few hundred thousand times would be most of this test.
        let said = format!("\"data\":\"{number} x");
        assert!(frame.contains(&said), "{number}: {frame}");
    }
}

/// A subscribed client with small buffers that reads nothing any more.
async fn deaf(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    socket.connect(&SockAddr::from(address)).expect("a connection");
    socket.set_nonblocking(true).expect("a socket for tokio");
    let mut socket = TcpStream::from_std(socket.into()).expect("a socket");
    let upgrade = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).await.expect("sent");
    let mut subscribe = br#"{"type":"subscribe","id":1,"topic":"flood"}"#.to_vec();
    // A mask of zeros leaves the text as it is.
    let mut frame = vec![0x81, 0x80 | subscribe.len() as u8, 0, 0, 0, 0];
    frame.append(&mut subscribe);
    socket.write_all(&frame).await.expect("sent");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("subscribed") {
        soon("the subscription", socket.read_buf(&mut heard)).await.expect("the connection lives");
    }
    socket
}
