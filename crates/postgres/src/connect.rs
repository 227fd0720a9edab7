//! The one place that knows connection strings and TLS.
//!
//! A [`Target`] is read from what libpq takes, a URL or `key=value` words, and opens connections.
//! tokio-postgres refuses `sslmode=verify-full` and `sslrootcert`, and takes some units otherwise
//! than libpq, so all parameters are read here and handed over one by one.
//!
//! Nothing printed by this module holds a password.

mod error;
mod parameters;
mod pool;
mod reader;
pub(crate) mod replication;
pub(crate) mod settings;
mod tls;
mod verifier;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::{ConnectError, ErrorKind};
pub(crate) use error::{STANDBY_FIX, code_fails_again, fails_again};
pub(crate) use pool::{Pool, Pooled};
use reader::Reader;
pub use tls::SslMode;
use tls::Tls;

/// The stream under a [`Connection`] of this crate.
pub(crate) type TlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connection whose messages the caller must poll.
pub(crate) type Wire = Connection<Socket, TlsStream>;

/// A database and how to reach it; cheap to clone.
///
/// ```
/// use tidewire_postgres::Target;
///
/// let target: Target = "postgresql://app:secret@db.example:5433/shop?sslmode=require".parse()?;
/// assert_eq!(target.to_string(), "db.example:5433/shop");
/// # Ok::<(), tidewire_postgres::ConnectError>(())
/// ```
#[derive(Clone)]
pub struct Target(Arc<Inner>);

struct Inner {
    hosts: Vec<Host>,
    /// Everything but host, port and TLS.
    base: Config,
    tls: Tls,
    timeout: Duration,
}

/// What answered to a [`Target::probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The server's version, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Whether the connection uses TLS.
    pub encrypted: bool,
    /// Whether it is a standby, which cannot be listened to.
    pub standby: bool,
}

/// How a session begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    /// With our [`settings`].
    Ours,
    /// As the role, the database and the connection string have it.
    AsConfigured,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    place: Place,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A name, which certificates are checked for, and the address to use instead of looking it up.
    Tcp { name: String, address: Option<IpAddr> },
    /// A directory with a socket in it; TLS is never spoken there.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = ConnectError;

    /// Reads a connection string; see `docs/postgres.md` for its parameters.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] when a parameter is unknown or wrong, or a file cannot be read.
    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let mut reader = Reader::new();
        for (name, value) in parameters::parse(text.trim())? {
            reader.take(&name, &value)?;
        }
        reader.finish()
    }
}

impl Target {
    /// The mode that TLS is used in.
    pub fn ssl_mode(&self) -> SslMode {
        self.0.tls.mode()
    }

    /// The name of the database.
    pub fn dbname(&self) -> Option<&str> {
        self.0.base.get_dbname()
    }

    /// Connects once, says what answered, and closes; for checks at the start and for people.
    ///
    /// # Errors
    /// [`ConnectError`]; its message says the fix.
    pub async fn probe(&self) -> Result<Probe, ConnectError> {
        const SQL: &str = "SELECT pg_catalog.current_setting('server_version'), ssl, \
                           pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_stat_ssl \
                           WHERE pid = pg_catalog.pg_backend_pid()";
        let (client, mut wire) = self.connect().await?;
        let asked = self.within(&mut wire, client.simple_query(SQL));
        let answer = timeout(self.0.timeout, asked).await.map_err(|_| {
            ConnectError::new(ErrorKind::Unreachable, format!("PostgreSQL at {self}: no answer"))
        })??;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |at: usize| row.and_then(|row| row.get(at)).unwrap_or_default();
        Ok(Probe {
            version: column(0).to_owned(),
            encrypted: column(1) == "t",
            standby: column(2) == "t",
        })
    }

    /// Opens a connection to the first host that lets us in, with the [`settings`] of ours.
    ///
    /// The caller polls the connection. Dropping the future gives up.
    ///
    /// # Errors
    /// [`ConnectError`] of the last host tried.
    pub(crate) async fn connect(&self) -> Result<(Client, Wire), ConnectError> {
        self.connect_with(Session::Ours).await
    }

    /// The schemas in which the role looks for names by itself: what `ALTER ROLE`, `ALTER DATABASE`,
    /// the server and the `options` of the connection string make of `search_path`, without
    /// temporary ones and those that are not there.
    ///
    /// # Errors
    /// [`ConnectError`] of the last host tried.
    pub(crate) async fn own_search_path(&self) -> Result<Vec<String>, ConnectError> {
        // All that this session ever runs. Nothing in it is looked up anywhere but in pg_catalog.
        const SQL: &str = "SELECT s FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) s";
        let (client, mut wire) = self.connect_with(Session::AsConfigured).await?;
        let asked = self.within(&mut wire, client.simple_query(SQL)).await?;
        let schemas = asked.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(schemas.filter(|schema| !schema.starts_with("pg_temp")).collect())
    }

    async fn connect_with(&self, session: Session) -> Result<(Client, Wire), ConnectError> {
        let mut last = None;
        for host in &self.0.hosts {
            match self.connect_to(host, session).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a target has at least one host"))
    }

    async fn connect_to(
        &self,
        host: &Host,
        session: Session,
    ) -> Result<(Client, Wire), ConnectError> {
        // Boxed: logging in takes far more room than whatever is done with the connection.
        match timeout(self.0.timeout, Box::pin(self.attempt(host, session))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::new(
                ErrorKind::Unreachable,
                format!(
                    "PostgreSQL at {host}: no answer within {} s (check that it runs there and \
                     that no firewall is between)",
                    self.0.timeout.as_secs()
                ),
            )),
        }
    }

    /// Logs in, and sees to the settings. A pooler may refuse a first message with settings: then
    /// they are set at once.
    async fn attempt(&self, host: &Host, session: Session) -> Result<(Client, Wire), ConnectError> {
        let config = self.config_for(host);
        if session == Session::AsConfigured {
            return self.log_in_to(host, &config).await;
        }
        let mut ours = config.clone();
        ours.options(settings::options(config.get_options()));
        let (client, mut wire) = match self.log_in_to(host, &ours).await {
            Err(error) if error.refuses_settings() => self.log_in_to(host, &config).await?,
            outcome => outcome?,
        };
        self.within(&mut wire, settings::ensure(&client)).await?;
        Ok((client, wire))
    }

    /// What the server answers on a connection that nobody else polls.
    async fn within<T>(
        &self,
        wire: &mut Wire,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ConnectError> {
        let answered = tokio::select! {
            answer = answer => Some(answer),
            ended = wire => ended.err().map(Err),
        };
        match answered {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(ConnectError::explain(error, &self.to_string())),
            None => Err(ConnectError::new(
                ErrorKind::Unreachable,
                format!("PostgreSQL at {self} closed the connection"),
            )),
        }
    }

    /// Tries with and without TLS as the mode says.
    async fn log_in_to(
        &self,
        host: &Host,
        config: &Config,
    ) -> Result<(Client, Wire), ConnectError> {
        let attempts: &[bool] = match host.place {
            Place::Unix(_) => &[false],
            Place::Tcp { .. } => self.0.tls.mode().attempts(),
        };
        let (last, before) = attempts.split_last().expect("there is at least one way");
        for &with_tls in before {
            match self.open(config, with_tls).await? {
                Ok(connected) => return Ok(connected),
                Err(e) if error::is_tls(&e) || error::is_refused_by_hba(&e) => {}
                Err(e) => return Err(ConnectError::explain(e, &host.to_string())),
            }
        }
        let outcome = self.open(config, *last).await?;
        outcome.map_err(|e| ConnectError::explain(e, &host.to_string()))
    }

    /// One way, one time. The outer error is a file that cannot be read any more.
    async fn open(
        &self,
        config: &Config,
        with_tls: bool,
    ) -> Result<Result<(Client, Wire), tokio_postgres::Error>, ConnectError> {
        let mut config = config.clone();
        let connector = if with_tls {
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            MakeRustlsConnect::new(self.0.tls.config()?)
        } else {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            MakeRustlsConnect::new(tls::unused())
        };
        Ok(Box::pin(config.connect(connector)).await)
    }

    /// Has the server give up the statement that runs on a connection of this target, as well as it
    /// can be reached; the connection need not live any more.
    pub(crate) async fn cancel(&self, statement: CancelToken) {
        let Ok(tls) = self.0.tls.config() else { return };
        // Used where the connection itself had TLS.
        let cancelled = statement.cancel_query(MakeRustlsConnect::new(tls));
        if let Ok(Err(error)) = timeout(self.0.timeout, cancelled).await {
            tracing::debug!(%error, "a statement that nobody waits for could not be cancelled");
        }
    }

    fn config_for(&self, host: &Host) -> Config {
        let mut config = self.0.base.clone();
        config.port(host.port);
        match &host.place {
            Place::Unix(dir) => config.host_path(dir),
            Place::Tcp { name, address } => {
                if let Some(address) = address {
                    config.hostaddr(*address);
                }
                config.host(name)
            }
        };
        config
    }
}

/// Hosts and database, never user or password: `db.example:5432/shop`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, host) in self.0.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        match self.dbname() {
            Some(dbname) => write!(f, "/{dbname}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self}, sslmode {})", self.ssl_mode().word())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Place::Unix(dir) => write!(f, "{}:{}", dir.display(), self.port),
        }
    }
}

#[cfg(test)]
mod tests;
