//! Publishing to NATS on TCP, where nothing is answered.

use super::{Heard, Speech};
use crate::inbound::{Broken, nats, through};

#[derive(Default)]
pub(super) struct Nats {
    left: Vec<u8>,
}

impl Speech for Nats {
    fn hello(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n");
    }

    fn put(&mut self, out: &mut Vec<u8>, topic: &str, payload: &str) {
        let line = format!("PUB {topic} {}\r\n{payload}\r\n", payload.len());
        out.extend_from_slice(line.as_bytes());
    }

    fn is_answered(&self) -> bool {
        false
    }

    fn hear(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Heard),
    ) -> Result<(), Broken> {
        let mut refused = Ok(());
        through(&mut self.left, bytes, |bytes| {
            nats::scan(bytes, |line| match line {
                b"PONG\r\n" => tell(Heard::Ready),
                b"PING\r\n" => out.extend_from_slice(b"PONG\r\n"),
                line if line.starts_with(b"-ERR") => refused = Err(Broken("NATS refuses")),
                _ => {}
            })
        })?;
        refused
    }
}
