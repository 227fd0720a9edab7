//! What each parameter of a connection string means, with its default.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslNegotiation, TargetSessionAttrs};

use super::error::ConnectError;
use super::tls::Tls;
use super::{Host, Inner, Place, Target};

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
pub(super) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// The socket directories of Debian and of PostgreSQL itself, for strings without a host.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// PostgreSQL's port when none is named.
const PORT: u16 = 5432;

/// Collects parameters until all are known.
pub(super) struct Reader {
    base: Config,
    tls: Tls,
    hosts: Vec<String>,
    addresses: Vec<String>,
    ports: Vec<String>,
    fallback_name: Option<String>,
    timeout: Duration,
}

impl Reader {
    pub(super) fn new() -> Self {
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

    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<(), ConnectError> {
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

    pub(super) fn finish(mut self) -> Result<Target, ConnectError> {
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
