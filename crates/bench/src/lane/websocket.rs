//! Publishing by messages on a WebSocket, each answered in its turn.

use memchr::memmem;

use super::{Heard, Speech, filled};
use crate::inbound::{Broken, Framing, Inbound, Piece, frames};
use crate::template::{UPGRADE, WebSocketPublish};

pub(super) struct WebSocket {
    publish: WebSocketPublish,
    host: String,
    inbound: Inbound,
}

impl WebSocket {
    pub(super) fn new(publish: WebSocketPublish, host: String) -> Self {
        Self { publish, host, inbound: Inbound::default() }
    }
}

impl Speech for WebSocket {
    fn hello(&self, out: &mut Vec<u8>) {
        let Self { publish, host, .. } = self;
        let request = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n{UPGRADE}\r\n", publish.path);
        out.extend_from_slice(request.as_bytes());
    }

    fn put(&mut self, out: &mut Vec<u8>, topic: &str, payload: &str) {
        frames::put(out, false, filled(&self.publish.message, topic, payload).as_bytes());
    }

    fn hear(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        tell: &mut dyn FnMut(Heard),
    ) -> Result<(), Broken> {
        let mut ended = Ok(());
        let publish = &self.publish;
        self.inbound.feed(Framing::Websocket, bytes, |piece| match piece {
            Piece::Status(101) => tell(Heard::Ready),
            Piece::Status(_) => ended = Err(Broken("the server does not upgrade a publisher")),
            Piece::Close(_) => ended = Err(Broken("the server closed a publisher's connection")),
            Piece::Ping(payload) => frames::put_pong(out, payload),
            Piece::Message(message) => {
                if memmem::find(message, publish.answer.as_bytes()).is_some() {
                    tell(Heard::Accepted);
                } else if memmem::find(message, publish.refusal.as_bytes()).is_some() {
                    tell(Heard::Refused(String::from_utf8_lossy(message).into_owned()));
                }
            }
        })?;
        ended
    }
}
