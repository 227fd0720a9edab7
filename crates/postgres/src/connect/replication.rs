//! A connection that speaks PostgreSQL's protocol by hand, for what tokio-postgres does not do: the
//! replication protocol, and text that is not UTF-8.
//!
//! Hosts, TLS and passwords follow the same rules as every other connection of the [`Target`]: the
//! modes are tried in the order of `sslmode`, and the first host that lets us in is used. What is
//! said once we are in is the business of [`wal`](crate::wal).

mod frame;
mod login;
mod plug;
mod said;
mod socket;

use std::time::Duration;

use bytes::{BufMut, BytesMut};
pub(crate) use frame::{Frame, Frames};
pub(crate) use plug::Plug;
use postgres_protocol::message::frontend;
pub(crate) use said::Said;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;

use super::{ConnectError, ErrorKind, Host, Place, Target, error, settings};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Replication,
    Statements,
}

/// A connection, logged in and idle.
pub(crate) struct Line {
    pub(crate) plug: Plug,
    pub(crate) frames: Frames,
    /// Where it leads, for messages.
    pub(crate) place: String,
    /// The server process at the other end.
    pub(crate) pid: i32,
}

/// Why a line failed.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The server said so.
    Said(Said),
    /// The connection broke, or makes no sense.
    Broken(std::io::Error),
    /// TLS is impossible or its certificate not trusted.
    Tls(String),
    /// It cannot be done the way the connection string wants it.
    Refused(ConnectError),
}

impl From<std::io::Error> for LineError {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

impl LineError {
    /// In words, with the fix.
    pub(crate) fn explain(self, place: &str) -> ConnectError {
        match self {
            Self::Said(said) => {
                let (kind, fix) = error::judge_code(&said.code);
                ConnectError::new(kind, format!("PostgreSQL at {place}: {said}{fix}"))
            }
            Self::Broken(error) => ConnectError::new(
                ErrorKind::Unreachable,
                format!(
                    "PostgreSQL at {place}: {error} (check that it runs there and that no \
                     firewall is between)"
                ),
            ),
            Self::Tls(words) => ConnectError::new(
                ErrorKind::Tls,
                format!(
                    "PostgreSQL at {place}: {words} (check sslmode, sslrootcert and the host's \
                     name)"
                ),
            ),
            Self::Refused(error) => error,
        }
    }

    fn allows_another_way(&self) -> bool {
        match self {
            Self::Said(said) => said.code == "28000",
            Self::Tls(_) => true,
            Self::Broken(_) | Self::Refused(_) => false,
        }
    }
}

/// Rows of text.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

impl Line {
    /// Carries out one command and takes its rows. Not cancel safe: close the line when dropped.
    ///
    /// # Errors
    /// What the server said, after which the line can still be used; or that the line broke.
    pub(crate) async fn ask(&mut self, command: &str) -> Result<Rows, LineError> {
        self.send(|out| frontend::query(command, out)).await?;
        let (mut rows, mut failed) = (Rows::new(), None);
        loop {
            let frame = self.next().await?;
            match frame.tag {
                b'D' => rows.push(frame.columns()?),
                b'E' => failed = Some(Said::read(&frame.body)),
                b'Z' => return failed.map_or(Ok(rows), |said| Err(LineError::Said(said))),
                _ => {}
            }
        }
    }

    /// Says a command that begins the copying in both directions, in the encoding of the session.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub(crate) async fn begin_copy(&mut self, command: &[u8]) -> Result<(), LineError> {
        const COPY_BOTH: u8 = b'W';
        self.send(|out| query(command, out)).await?;
        let mut failed = None;
        loop {
            let frame = self.next().await?;
            match frame.tag {
                COPY_BOTH => return Ok(()),
                b'E' => failed = Some(Said::read(&frame.body)),
                b'Z' => {
                    let refused = || std::io::Error::other("the server began no copying");
                    return Err(failed.map_or_else(|| refused().into(), LineError::Said));
                }
                _ => {}
            }
        }
    }

    /// Has the server send text as the database stores it, unless that is UTF-8: it fails a whole
    /// stream or notification for one character that it cannot convert.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub(crate) async fn take_raw_text(&mut self) -> Result<bool, LineError> {
        // In SQL_ASCII nothing is converted, but what is not UTF-8 fails as well.
        let rows = self.ask("SELECT pg_catalog.getdatabaseencoding()").await?;
        let is_raw = rows.first().and_then(|row| row.first()?.as_deref()) != Some("UTF8");
        if is_raw {
            self.ask("SET client_encoding TO SQL_ASCII").await?;
        }
        Ok(is_raw)
    }

    async fn send(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), LineError> {
        let mut out = BytesMut::new();
        message(&mut out)?;
        self.plug.write_all(&out).await?;
        Ok(self.plug.flush().await?)
    }

    /// The next message that is not about settings.
    async fn next(&mut self) -> Result<Frame, LineError> {
        loop {
            if let Some(frame) = self.frames.next()? {
                match frame.tag {
                    b'S' => {}
                    b'N' => tracing::debug!(notice = %Said::read(&frame.body), "from PostgreSQL"),
                    _ => return Ok(frame),
                }
            } else if self.plug.read_buf(self.frames.input()).await? == 0 {
                return Err(closed().into());
            }
        }
    }

    /// Says goodbye; the server then ends the session and drops its temporary slots.
    pub(crate) async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // A server that is gone already needs no goodbye.
        let _ = self.plug.write_all(&out).await;
        let _ = self.plug.shutdown().await;
    }
}

/// Writes the message of a command, which need not be UTF-8.
pub(crate) fn query(command: &[u8], out: &mut BytesMut) -> std::io::Result<()> {
    let length = u32::try_from(command.len() + 5).map_err(std::io::Error::other)?;
    out.put_u8(b'Q');
    out.put_u32(length);
    out.put_slice(command);
    out.put_u8(0);
    Ok(())
}

/// The other side hung up.
pub(crate) fn closed() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

impl Target {
    /// Opens a connection for replication to the first host that lets us in.
    ///
    /// # Errors
    /// Of the last host tried, with its name.
    pub(crate) async fn connect_for_replication(&self) -> Result<Line, (String, LineError)> {
        self.connect_by_hand(Purpose::Replication).await
    }

    /// Opens a connection for statements, and for notifications in any encoding, to the first host
    /// that lets us in.
    ///
    /// # Errors
    /// Of the last host tried.
    pub(crate) async fn connect_for_notifications(&self) -> Result<Line, ConnectError> {
        let connected = self.connect_by_hand(Purpose::Statements).await;
        connected.map_err(|(place, error)| error.explain(&place))
    }

    async fn connect_by_hand(&self, purpose: Purpose) -> Result<Line, (String, LineError)> {
        let mut last = None;
        for host in &self.0.hosts {
            let place = host.to_string();
            match timeout(self.0.timeout, self.open_line(host, purpose)).await {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(error)) => last = Some((place, error)),
                Err(_) => {
                    let error = LineError::Refused(silence(&place, self.0.timeout));
                    last = Some((place, error));
                }
            }
        }
        Err(last.expect("a target has at least one host"))
    }

    async fn open_line(&self, host: &Host, purpose: Purpose) -> Result<Line, LineError> {
        let attempts: &[bool] = match host.place {
            Place::Unix(_) => &[false],
            Place::Tcp { .. } => self.0.tls.mode().attempts(),
        };
        let (last, before) = attempts.split_last().expect("there is at least one way");
        for &with_tls in before {
            match self.log_in(host, with_tls, purpose).await {
                Err(error) if error.allows_another_way() => {}
                outcome => return outcome,
            }
        }
        self.log_in(host, *last, purpose).await
    }

    async fn log_in(
        &self,
        host: &Host,
        with_tls: bool,
        purpose: Purpose,
    ) -> Result<Line, LineError> {
        let plug = plug::open(host, &self.0, with_tls).await?;
        let place = host.to_string();
        let mut line = Line { plug, frames: Frames::default(), place, pid: 0 };
        login::log_in(&mut line, &self.0.base, purpose).await?;
        if purpose == Purpose::Statements {
            line.ask(settings::LISTENING).await?;
        }
        if self.0.base.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
            refuse_standby(&mut line).await?;
        }
        Ok(line)
    }
}

async fn refuse_standby(line: &mut Line) -> Result<(), LineError> {
    let rows = line.ask("SELECT pg_catalog.pg_is_in_recovery()").await?;
    let standby = rows.first().and_then(|row| row.first()?.as_deref()) == Some("t");
    if !standby {
        return Ok(());
    }
    let message = format!("PostgreSQL at {} is a standby", line.place);
    Err(LineError::Refused(ConnectError::new(ErrorKind::Standby, message)))
}

fn silence(place: &str, patience: Duration) -> ConnectError {
    ConnectError::new(
        ErrorKind::Unreachable,
        format!(
            "PostgreSQL at {place}: no answer within {} s (check that it runs there and that no \
             firewall is between)",
            patience.as_secs()
        ),
    )
}
