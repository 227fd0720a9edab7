//! Publishing by `POST` on a connection that is kept.

use super::{Heard, Speech, filled};
use crate::inbound::chunked::Chunks;
use crate::inbound::{Broken, head, through};
use crate::template::HttpPublish;

/// Characters of a refusal that are shown.
const SHOWN: usize = 200;

pub(super) struct Http {
    publish: HttpPublish,
    host: String,
    left: Vec<u8>,
}

impl Http {
    pub(super) fn new(publish: HttpPublish, host: String) -> Self {
        Self { publish, host, left: Vec::new() }
    }
}

impl Speech for Http {
    fn hello(&self, _: &mut Vec<u8>) {}

    fn is_ready_at_once(&self) -> bool {
        true
    }

    fn put(&mut self, out: &mut Vec<u8>, topic: &str, payload: &str) {
        let HttpPublish { path, content_type, body } = &self.publish;
        let path = filled(path, topic, payload);
        let body = filled(body, topic, payload);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }

    fn hear(
        &mut self,
        bytes: &[u8],
        _: &mut Vec<u8>,
        tell: &mut dyn FnMut(Heard),
    ) -> Result<(), Broken> {
        through(&mut self.left, bytes, |bytes| {
            let mut at = 0;
            while let Some((heard, length)) = answer(&bytes[at..])? {
                at += length;
                tell(heard);
            }
            Ok(at)
        })
    }
}

/// The answer at the beginning, with the number of its bytes; `None` when it is not complete.
fn answer(bytes: &[u8]) -> Result<Option<(Heard, usize)>, Broken> {
    let Some(head) = head::read(bytes)? else { return Ok(None) };
    let rest = &bytes[head.length..];
    let mut body = Vec::new();
    let length = if head.chunked {
        let mut chunks = Chunks::default();
        let taken = chunks.feed(rest, |data| body.extend_from_slice(data))?;
        if chunks != Chunks::Done {
            return Ok(None);
        }
        taken
    } else {
        let length = head.content_length.unwrap_or(0);
        let Some(whole) = rest.get(..length) else { return Ok(None) };
        body.extend_from_slice(whole);
        length
    };
    let heard = if (200..300).contains(&head.status) {
        Heard::Accepted
    } else {
        let body: String = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
        Heard::Refused(format!("{} {body}", head.status))
    };
    Ok(Some((heard, head.length + length)))
}
