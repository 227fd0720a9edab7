//! Whole runs against a server of a few lines that can be told to make mistakes: a yardstick that
//! does not see them measures nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::*;
use crate::lane::Way;

/// What the server does wrong, once, with the tenth publication and the first subscriber.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    Lose,
    Repeat,
    /// Say it after the next.
    Swap,
    Disconnect,
}

/// Which publication it is about: one after those that make sure that everybody is there.
const TENTH: usize = 10;

struct Room {
    mistake: Mistake,
    said: usize,
    held_back: Option<Vec<u8>>,
    subscribers: Vec<TcpStream>,
}

impl Room {
    fn say(&mut self, body: &[u8]) {
        let mut frame = vec![0x81, 126];
        frame.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(body);
        self.said += 1;
        for (at, subscriber) in self.subscribers.iter_mut().enumerate() {
            let mistake = if at == 0 && self.said == TENTH { self.mistake } else { Mistake::None };
            match mistake {
                Mistake::Lose => continue,
                Mistake::Repeat => subscriber.write_all(&frame).unwrap(),
                Mistake::Swap => {
                    self.held_back = Some(frame.clone());
                    continue;
                }
                Mistake::Disconnect => subscriber.shutdown(std::net::Shutdown::Both).unwrap(),
                Mistake::None => {}
            }
            let written = subscriber.write_all(&frame);
            assert!(written.is_ok() || self.mistake == Mistake::Disconnect);
            if at == 0
                && self.said > TENTH
                && let Some(frame) = self.held_back.take()
            {
                subscriber.write_all(&frame).unwrap();
            }
        }
    }
}

/// Speaks as `peers/ws.mjs` does. Its threads end with the connections, and the last with the test.
fn server(mistake: Mistake) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let subscribers = Vec::new();
    let room = Arc::new(Mutex::new(Room { mistake, said: 0, held_back: None, subscribers }));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let room = Arc::clone(&room);
            thread::spawn(move || serve(stream.unwrap(), &room));
        }
    });
    address
}

fn serve(mut stream: TcpStream, room: &Mutex<Room>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") else {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            }
            continue;
        };
        if bytes.starts_with(b"GET") {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
            return room.lock().subscribers.push(stream);
        }
        // The head says 128, and what is small comes in one piece.
        let body: Vec<_> = bytes.drain(..end + 4 + 128).skip(end + 4).collect();
        room.lock().say(&body);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
}

fn measured(mistake: Mistake, load: Load) -> Report {
    let mut scenario = crate::scenario::named("paced").unwrap();
    scenario.subscribers = 3;
    scenario.load = load;
    scenario.way = Way::Http;
    let (server, templates) = (server(mistake), templates(&scenario, Some("ws")).unwrap());
    let effort = Effort { seconds: 0.2, handshakes: 2, patience: 0.5 };
    Run::measure(&scenario, &Server::attached(server, None), templates, effort).unwrap()
}

#[test]
fn a_server_without_mistakes_is_clean() {
    let report = measured(Mistake::None, Load::Paced(200.0));
    assert!(report.is_clean(), "{report:?}");
    assert!((38..=42).contains(&report.published), "{report:?}");
    assert_eq!(report.deliveries, report.published * 3);
    assert!(report.latency.unwrap().p50 > 0.0);
    assert_eq!(report.server_cpu_per_million, None);
}

#[test]
fn with_eight_outstanding_nothing_is_lost_either() {
    let report = measured(Mistake::None, Load::Outstanding(8));
    assert!(report.is_clean(), "{report:?}");
    assert!(report.published > 100, "{report:?}");
}

#[test]
fn a_loss_is_seen() {
    let report = measured(Mistake::Lose, Load::Paced(200.0));
    assert!(report.delivered_fraction.unwrap() < 1.0, "{report:?}");
    assert_eq!((report.duplicates, report.out_of_order), (0, 0), "{report:?}");
}

#[test]
fn a_repeat_is_seen() {
    let report = measured(Mistake::Repeat, Load::Paced(200.0));
    assert_eq!((report.duplicates, report.out_of_order), (1, 0), "{report:?}");
    assert_eq!(report.delivered_fraction, Some(1.0), "{report:?}");
}

#[test]
fn a_swap_is_seen() {
    let report = measured(Mistake::Swap, Load::Paced(200.0));
    assert_eq!((report.duplicates, report.out_of_order), (0, 1), "{report:?}");
    assert_eq!(report.delivered_fraction, Some(1.0), "{report:?}");
}

#[test]
fn a_lost_connection_is_seen() {
    let report = measured(Mistake::Disconnect, Load::Paced(200.0));
    assert_eq!(report.disconnects, 1, "{report:?}");
    assert!(!report.is_clean());
}
