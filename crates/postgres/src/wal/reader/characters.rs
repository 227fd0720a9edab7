//! What bytes of text mean, in a database that is not in UTF-8.

use super::{Ended, Reader, unless};
use crate::charset::{Character, Charset};
use crate::connect::ErrorKind;
use crate::connect::replication::Line;
use crate::notify::Backoff;
use crate::wal::error::{WalError, WalErrorKind};

impl Reader {
    /// Learns the encoding of the database. Gives whether it is not UTF-8, so that the line is to
    /// send text as it is stored: PostgreSQL would end the stream at a character that it cannot
    /// convert, and again each time the stream comes to it.
    pub(super) async fn read_charset(&mut self, line: &mut Line) -> Result<bool, WalError> {
        let charset = {
            let pooled = self.shared.pool.get().await?;
            match pooled.run(Charset::read).await {
                Some(Ok(charset)) => charset,
                Some(Err(error)) => {
                    return Err(WalError::statement(error, "asking for the database's encoding"));
                }
                None => return Err(no_answer()),
            }
        };
        *self.assembly.charset() = charset;
        line.take_raw_text().await.map_err(|error| WalError::line(error, &line.place))
    }

    /// Asks what characters are. While PostgreSQL cannot be asked it is tried again: the log waits.
    pub(super) async fn learn_characters(&mut self, unknown: &[Character]) -> Result<(), Ended> {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            let asked = self.asked_characters(unknown);
            match unless(&stop, asked).await.ok_or(Ended::Stopped)? {
                Ok(()) => return Ok(()),
                Err(problem) => {
                    tracing::warn!(%problem, "what characters are cannot be asked, trying again");
                    unless(&stop, backoff.pause()).await.ok_or(Ended::Stopped)?;
                }
            }
        }
    }

    async fn asked_characters(&mut self, unknown: &[Character]) -> Result<(), WalError> {
        let pooled = self.shared.pool.get().await?;
        let charset = self.assembly.charset();
        match pooled.run(|client| charset.learn(client, unknown)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(WalError::statement(error, "asking for characters")),
            None => Err(no_answer()),
        }
    }
}

fn no_answer() -> WalError {
    WalError::new(
        WalErrorKind::Connection(ErrorKind::Unreachable),
        "PostgreSQL does not answer in time",
    )
}
