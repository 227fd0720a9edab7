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
mod tls;
mod verifier;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(crate) use error::STANDBY_FIX;
pub use error::{ConnectError, ErrorKind};
pub(crate) use pool::Pool;
pub use tls::SslMode;
use tls::Tls;

/// What this program is called in `pg_stat_activity` when the connection string does not say.
const APPLICATION_NAME: &str = "tidewire";

/// How long one host may take to let us in when the connection string has no `connect_timeout`.
///
/// A host that is reachable answers in milliseconds; TLS and SCRAM over a slow line take about a
/// second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);

/// Time between two such questions; after [`KEEPALIVE_RETRIES`] the connection is given up.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// See [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent bytes may stay unacknowledged, and so how long a pulled cable goes unnoticed.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The socket directories of Debian and of PostgreSQL itself, for strings without a host.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// PostgreSQL's port when none is named.
const PORT: u16 = 5432;

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
        const SQL: &str = "SELECT current_setting('server_version'), ssl, pg_is_in_recovery() \
                           FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let (client, wire) = self.connect().await?;
        let asked = async {
            tokio::select! {
                answer = client.simple_query(SQL) => answer,
                ended = wire => ended.map(|()| Vec::new()),
            }
        };
        let answer = timeout(self.0.timeout, asked).await.map_err(|_| {
            ConnectError::new(ErrorKind::Unreachable, format!("PostgreSQL at {self}: no answer"))
        })?;
        let answer = answer.map_err(|e| ConnectError::explain(e, &self.to_string()))?;
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

    /// Opens a connection to the first host that lets us in.
    ///
    /// The caller polls the connection. Dropping the future gives up.
    ///
    /// # Errors
    /// [`ConnectError`] of the last host tried.
    pub(crate) async fn connect(&self) -> Result<(Client, Wire), ConnectError> {
        let mut last = None;
        for host in &self.0.hosts {
            match self.connect_to(host).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a target has at least one host"))
    }

    async fn connect_to(&self, host: &Host) -> Result<(Client, Wire), ConnectError> {
        match timeout(self.0.timeout, self.attempt(host)).await {
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

    /// Tries with and without TLS as the mode says.
    async fn attempt(&self, host: &Host) -> Result<(Client, Wire), ConnectError> {
        let config = self.config_for(host);
        let attempts: &[bool] = match host.place {
            Place::Unix(_) => &[false],
            Place::Tcp { .. } => self.0.tls.mode().attempts(),
        };
        let (last, before) = attempts.split_last().expect("there is at least one way");
        for &with_tls in before {
            match self.open(&config, with_tls).await? {
                Ok(connected) => return Ok(connected),
                Err(e) if error::is_tls(&e) || error::is_refused_by_hba(&e) => {}
                Err(e) => return Err(ConnectError::explain(e, &host.to_string())),
            }
        }
        let outcome = self.open(&config, *last).await?;
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

/// Collects parameters until all are known.
struct Reader {
    base: Config,
    tls: Tls,
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
    fallback_name: Option<String>,
    timeout: Duration,
}

impl Reader {
    fn new() -> Self {
        let mut base = Config::new();
        base.keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT);
        Self {
            base,
            tls: Tls::default(),
            hosts: Vec::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            fallback_name: None,
            timeout: CONNECT_TIMEOUT,
        }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), ConnectError> {
        if self.tls.take(name, value)? || self.take_timing(name, value)? {
            return Ok(());
        }
        let list = || value.split(',').map(str::to_owned).collect();
        match name {
            "host" => self.hosts = list(),
            "hostaddr" => self.addresses = list(),
            "port" => self.ports = list(),
            "user" => {
                self.base.user(value);
            }
            "password" => {
                self.base.password(value);
            }
            "dbname" => {
                self.base.dbname(value);
            }
            "options" => {
                self.base.options(value);
            }
            "application_name" => {
                self.base.application_name(value);
            }
            "fallback_application_name" => self.fallback_name = Some(value.to_owned()),
            "target_session_attrs" => {
                self.base.target_session_attrs(session(value)?);
            }
            "channel_binding" => {
                self.base.channel_binding(binding(value)?);
            }
            "sslnegotiation" => {
                self.base.ssl_negotiation(negotiation(value)?);
            }
            "load_balance_hosts" if value == "disable" => {}
            // Always UTF-8 here, and never GSS.
            "client_encoding" if ["utf8", "utf-8", "auto"].contains(&&*value.to_lowercase()) => {}
            "gssencmode" if value != "require" => {}
            _ => {
                return Err(ConnectError::configuration(format!(
                    "the PostgreSQL connection parameter `{name}` is unknown, or not supported \
                     with this value: docs/postgres.md lists those that are"
                )));
            }
        }
        Ok(())
    }

    /// Takes a parameter about time; `Ok(false)` when it is none. Units are libpq's.
    fn take_timing(&mut self, name: &str, value: &str) -> Result<bool, ConnectError> {
        let number = || {
            value.parse::<u32>().map_err(|_| {
                ConnectError::configuration(format!(
                    "the PostgreSQL connection parameter `{name}` must be a whole number"
                ))
            })
        };
        let seconds = || number().map(|n| Duration::from_secs(u64::from(n)));
        match name {
            "connect_timeout" => match seconds()? {
                // libpq: 0 is no limit, which would hang here for ever, and 1 means 2.
                Duration::ZERO => {}
                some => self.timeout = some.max(Duration::from_secs(2)),
            },
            "keepalives" => {
                self.base.keepalives(number()? != 0);
            }
            "keepalives_idle" => {
                self.base.keepalives_idle(seconds()?);
            }
            "keepalives_interval" => {
                self.base.keepalives_interval(seconds()?);
            }
            "keepalives_count" => {
                self.base.keepalives_retries(number()?);
            }
            "tcp_user_timeout" => {
                self.base.tcp_user_timeout(Duration::from_millis(u64::from(number()?)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<Target, ConnectError> {
        if self.base.get_application_name().is_none() {
            let name = self.fallback_name.take();
            self.base.application_name(name.unwrap_or_else(|| APPLICATION_NAME.to_owned()));
        }
        let hosts = self.hosts()?;
        self.tls.validate()?;
        let Self { base, tls, timeout, .. } = self;
        Ok(Target(Arc::new(Inner { hosts, base, tls, timeout })))
    }

    /// Joins the three lists.
    fn hosts(&self) -> Result<Vec<Host>, ConnectError> {
        let count = self.hosts.len().max(self.addresses.len()).max(1);
        for (name, given) in [("host", &self.hosts), ("hostaddr", &self.addresses)] {
            if !given.is_empty() && given.len() != count {
                return Err(ConnectError::configuration(format!(
                    "the PostgreSQL connection string names {count} servers but {} of `{name}`",
                    given.len()
                )));
            }
        }
        if self.ports.len() > 1 && self.ports.len() != count {
            return Err(ConnectError::configuration(format!(
                "the PostgreSQL connection string names {count} servers but {} ports: name one \
                 port, or one for each",
                self.ports.len()
            )));
        }
        (0..count).map(|at| self.host(at)).collect()
    }

    fn host(&self, at: usize) -> Result<Host, ConnectError> {
        let port = match self.ports.get(at).or(self.ports.first()).map(String::as_str) {
            None | Some("") => PORT,
            Some(text) => text.parse().map_err(|_| {
                ConnectError::configuration("a port must be a number from 1 to 65535")
            })?,
        };
        let address: Option<IpAddr> = match self.addresses.get(at).map(String::as_str) {
            None | Some("") => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| ConnectError::configuration("hostaddr must be an IP address"))?,
            ),
        };
        let place = match (self.hosts.get(at).map_or("", String::as_str), address) {
            ("", None) => default_place(port),
            ("", Some(address)) => Place::Tcp { name: address.to_string(), address: None },
            (dir, _) if dir.starts_with('/') => Place::Unix(dir.into()),
            (name, address) => Place::Tcp { name: name.to_owned(), address },
        };
        Ok(Host { place, port })
    }
}

/// Where to look when no host is named: as libpq, the local socket; without one, localhost.
fn default_place(port: u16) -> Place {
    SOCKET_DIRS
        .iter()
        .map(Path::new)
        .find(|dir| dir.join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(
            || Place::Tcp { name: "localhost".to_owned(), address: None },
            |dir| Place::Unix(dir.to_owned()),
        )
}

fn session(word: &str) -> Result<TargetSessionAttrs, ConnectError> {
    match word {
        "any" => Ok(TargetSessionAttrs::Any),
        // A primary may be set to refuse writes, but then it is of no use to us either.
        "read-write" | "primary" => Ok(TargetSessionAttrs::ReadWrite),
        _ => Err(ConnectError::configuration(
            "target_session_attrs must be any, read-write or primary: LISTEN is impossible on a \
             standby",
        )),
    }
}

fn binding(word: &str) -> Result<ChannelBinding, ConnectError> {
    match word {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(ConnectError::configuration("channel_binding must be disable, prefer or require")),
    }
}

fn negotiation(word: &str) -> Result<SslNegotiation, ConnectError> {
    match word {
        "postgres" => Ok(SslNegotiation::Postgres),
        "direct" => Ok(SslNegotiation::Direct),
        _ => Err(ConnectError::configuration("sslnegotiation must be postgres or direct")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        let error = text.parse::<Target>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    }

    #[test]
    fn a_target_prints_where_it_is_and_never_its_password() {
        let target = read("postgresql://me:hunter2@a:1,[::1]:2/shop?sslmode=require");
        assert_eq!(target.to_string(), "a:1,[::1]:2/shop");
        for printed in [format!("{target:?}"), format!("{target:#?}"), target.to_string()] {
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }

    #[test]
    fn the_mode_is_what_libpq_makes_of_it() {
        assert_eq!(read("host=h").ssl_mode(), SslMode::Prefer);
        assert_eq!(read("host=h sslmode=allow").ssl_mode(), SslMode::Allow);
        assert_eq!(read("postgresql://h/?ssl=true").ssl_mode(), SslMode::Require);
        assert_eq!(read("host=h sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_fix() {
        for (text, expected) in [
            ("host=h sslmode=tls", "disable, allow, prefer"),
            ("host=h sslmode=verify-full", "add sslrootcert=FILE"),
            ("host=h sslmode=require sslrootcert=system", "use sslmode=verify-full"),
            ("host=h sslmode=verify-ca sslrootcert=/no/such.pem", "/no/such.pem cannot be read"),
            ("host=h sslcrl=/x", "`sslcrl` is not supported"),
            ("host=h wibble=1", "`wibble` is unknown"),
            ("host=h port=99999", "1 to 65535"),
            ("host=a,b,c port=1,2", "3 servers but 2 ports"),
            ("host=h connect_timeout=soon", "whole number"),
            ("host=h target_session_attrs=standby", "LISTEN is impossible"),
        ] {
            let told = refused(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn units_are_those_of_libpq() {
        let target = read("host=h tcp_user_timeout=1500 connect_timeout=1 keepalives_count=7");
        assert_eq!(target.0.base.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!(target.0.base.get_keepalives_retries(), Some(7));
        assert_eq!(target.0.timeout, Duration::from_secs(2));
    }

    #[test]
    fn a_dead_connection_is_noticed_without_being_asked_to() {
        let target = read("host=h");
        assert!(target.0.base.get_keepalives());
        assert_eq!(target.0.base.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(target.0.base.get_application_name(), Some("tidewire"));
    }

    #[test]
    fn a_socket_directory_and_an_address_are_told_apart_from_names() {
        let target = read("host=/run/pg,db hostaddr=,10.0.0.1 port=1,2 dbname=d");
        let expected = [
            Host { place: Place::Unix("/run/pg".into()), port: 1 },
            Host {
                place: Place::Tcp {
                    name: "db".to_owned(),
                    address: Some(IpAddr::from([10, 0, 0, 1])),
                },
                port: 2,
            },
        ];
        assert_eq!(target.0.hosts, expected);
    }
}
