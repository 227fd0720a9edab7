//! The one connection for listening, and its messages polled by hand.
//!
//! Nothing else runs on it, because a session that is busy or in a transaction holds up the
//! notification queue of the whole server until writers fail. Text comes as the database stores it:
//! PostgreSQL would end the session for one payload that it cannot convert, which any role may send.

use std::collections::HashSet;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use crate::charset::{Charset, Undecoded};
use crate::connect::replication::{Frame, Line, LineError, Rows, Said, closed, query};
use crate::connect::{ConnectError, ErrorKind, Pool, Target};

/// Notifications taken in one go; they become one call of the publisher.
const BURST: usize = 1024;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) channel: String,
    /// `None` for one with a character that has no Unicode form.
    pub(super) payload: Option<String>,
}

/// What came.
pub(super) enum Arrived {
    /// All notifications that are there, in order.
    Notifications(Vec<Notification>),
    /// The answer to the statements that were sent.
    Answer(Result<(), ConnectError>),
}

/// A notification as it came.
struct Raw {
    channel: Vec<u8>,
    payload: Vec<u8>,
}

/// The connection for listening.
pub(super) struct Link {
    line: Line,
    pool: Pool,
    charset: Charset,
    /// What is still to be sent.
    out: BytesMut,
    /// What came and was not handed over.
    raw: Vec<Raw>,
    /// An error of the statements that are being answered, or of the session.
    failed: Option<Said>,
    /// The statements are answered.
    answered: bool,
    /// How long an answer may take.
    patience: Duration,
}

impl Link {
    /// Connects to a server that can be listened to.
    pub(super) async fn open(
        target: &Target,
        pool: Pool,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let mut line = target.connect_for_notifications().await?;
        let place = line.place.clone();
        let raw = timeout(patience, line.take_raw_text()).await;
        raw.unwrap_or_else(|_| Err(LineError::Refused(silence(&place, patience))))
            .map_err(|error| error.explain(&place))?;
        let (out, charset) = (BytesMut::new(), read_charset(&pool, &place).await?);
        let raw = Vec::new();
        Ok(Self { line, pool, charset, out, raw, failed: None, answered: false, patience })
    }

    /// Carries out statements and waits for the answer. Notifications that come meanwhile are
    /// lost, so this is for the time before listening.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Rows, ConnectError> {
        let asked = timeout(self.patience, self.line.ask(sql)).await;
        let asked = asked.unwrap_or_else(|_| Err(LineError::Refused(self.silence())));
        asked.map_err(|error| error.explain(&self.line.place))
    }

    /// Sends statements, in the encoding of the database; the answer comes with
    /// [`Link::next`].
    pub(super) fn send(&mut self, sql: &[u8]) {
        query(sql, &mut self.out).expect("statements are shorter than 4 GiB");
    }

    /// The names among these that a session can listen to, with how the database stores them.
    /// In its encoding others do not exist, so nothing is ever said on them.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub(super) async fn encoded(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectError> {
        if self.charset.is_unicode() || name.is_ascii() {
            return Ok(Some(name.as_bytes().to_vec()));
        }
        let pooled = self.pool.get().await?;
        match pooled.run(|client| crate::charset::encode(client, name)).await {
            Some(Ok(name)) => Ok(Some(name).filter(|name| name.len() < NAME_BYTES)),
            Some(Err(error)) if crate::connect::fails_again(&error) => Ok(None),
            Some(Err(error)) => Err(ConnectError::explain(error, &self.line.place)),
            None => Err(self.silence()),
        }
    }

    /// Waits for what comes next. Cancel safe.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn next(&mut self) -> Result<Arrived, ConnectError> {
        if self.raw.is_empty() && !self.answered {
            self.raw = std::future::poll_fn(|cx| self.poll(cx)).await?;
        }
        if !self.raw.is_empty() {
            self.learn_characters().await?;
            let raw = std::mem::take(&mut self.raw);
            let taken = raw.iter().filter_map(|raw| self.notification(raw)).collect();
            return Ok(Arrived::Notifications(taken));
        }
        self.answered = false;
        let outcome = self.failed.take().map_or(Ok(()), |said| Err(self.explain(said)));
        Ok(Arrived::Answer(outcome))
    }

    /// Moves bytes until there are notifications, or none and an answer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Raw>, ConnectError>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(self.broken(error)));
        }
        loop {
            let taken = self.take()?;
            if !taken.is_empty() || self.answered {
                return Poll::Ready(Ok(taken));
            }
            let Line { plug, frames, .. } = &mut self.line;
            match pin!(plug.read_buf(frames.input())).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
            }
        }
    }

    /// Takes what was read, up to the next answer.
    fn take(&mut self) -> Result<Vec<Raw>, ConnectError> {
        let mut taken = Vec::new();
        while taken.len() < BURST && !self.answered {
            let frame = self.line.frames.next().map_err(|error| self.broken(error))?;
            let Some(frame) = frame else { break };
            match frame.tag {
                b'A' => taken.extend(notification(&frame)),
                b'E' => self.failed = Some(Said::read(&frame.body)),
                b'Z' => self.answered = true,
                b'N' => tracing::debug!(notice = %Said::read(&frame.body), "PostgreSQL says"),
                _ => {}
            }
        }
        Ok(taken)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.line.plug).poll_write(cx, &self.out) {
                Poll::Ready(Ok(written)) => self.out.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(&mut self.line.plug).poll_flush(cx)
    }

    /// Asks over the pool about characters that were not met before.
    async fn learn_characters(&mut self) -> Result<(), ConnectError> {
        let unknown: HashSet<_> = self.raw.iter().flat_map(|raw| self.unknown(raw)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<_> = unknown.into_iter().collect();
        let pooled = self.pool.get().await?;
        let charset = &mut self.charset;
        match pooled.run(|client| charset.learn(client, &unknown)).await {
            Some(outcome) => {
                outcome.map_err(|error| ConnectError::explain(error, &self.line.place))
            }
            None => Err(self.silence()),
        }
    }

    fn unknown(&self, raw: &Raw) -> Vec<u32> {
        let unknown = |bytes| match self.charset.decode(bytes) {
            Err(Undecoded::Unknown(characters)) => characters,
            _ => Vec::new(),
        };
        [unknown(&raw.channel), unknown(&raw.payload)].concat()
    }

    /// `None` on a channel of which the name has no Unicode form: nobody can listen to it.
    fn notification(&self, raw: &Raw) -> Option<Notification> {
        let text = |bytes| Some(self.charset.decode(bytes).ok()?.into_owned());
        Some(Notification { channel: text(&raw.channel)?, payload: text(&raw.payload) })
    }

    /// What is wrong when an answer does not come.
    pub(super) fn silence(&self) -> ConnectError {
        silence(&self.line.place, self.patience)
    }

    fn explain(&self, said: Said) -> ConnectError {
        LineError::Said(said).explain(&self.line.place)
    }

    fn broken(&self, error: std::io::Error) -> ConnectError {
        LineError::Broken(error).explain(&self.line.place)
    }

    /// The server hung up, and may have said why.
    fn ended(&mut self) -> ConnectError {
        match self.failed.take() {
            Some(said) => self.explain(said),
            None => self.broken(closed()),
        }
    }

    /// Says good-bye, so that the server does not log a lost connection.
    pub(super) async fn close(self) {
        /// Good manners are worth a moment, not more.
        const MOMENT: Duration = Duration::from_millis(500);
        let _ = timeout(MOMENT, self.line.close()).await;
    }
}

/// PostgreSQL's `NAMEDATALEN`: a longer channel is an error.
const NAME_BYTES: usize = 64;

async fn read_charset(pool: &Pool, place: &str) -> Result<Charset, ConnectError> {
    let pooled = pool.get().await?;
    match pooled.run(Charset::read).await {
        Some(outcome) => outcome.map_err(|error| ConnectError::explain(error, place)),
        None => Err(ConnectError::new(
            ErrorKind::Unreachable,
            format!("PostgreSQL at {place}: no answer in time"),
        )),
    }
}

fn silence(place: &str, patience: Duration) -> ConnectError {
    ConnectError::new(
        ErrorKind::Unreachable,
        format!(
            "PostgreSQL at {place}: no answer on the listening connection within {patience:?} (it \
             is given up and opened anew)"
        ),
    )
}

/// A process, a channel and a payload; `None` for a message that makes no sense.
fn notification(frame: &Frame) -> Option<Raw> {
    let mut texts = frame.body.get(4..)?.split(|byte| *byte == 0);
    let mut text = || Some(texts.next()?.to_vec());
    Some(Raw { channel: text()?, payload: text()? })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_notification_has_a_channel_and_a_payload_of_any_bytes() {
        let frame = |body| Frame { tag: b'A', body: Bytes::from_static(body), skipped: 0 };
        let raw = notification(&frame(b"\0\0\0\x07caf\xe9\0\x81!\0")).unwrap();
        assert_eq!((&*raw.channel, &*raw.payload), (&b"caf\xe9"[..], &b"\x81!"[..]));
        assert!(notification(&frame(b"\0\0")).is_none());
    }
}
