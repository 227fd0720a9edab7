//! A server inside another program, with the names that users of Alle know.

use tokio_util::sync::CancellationToken;

use crate::config::{Override, Settings, Written};
use crate::server::{Never, Server};

/// What a [`Bridge`] connects, and where it listens.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    written: Vec<Override>,
}

impl BridgeConfig {
    /// Bridges the NOTIFY channels of a database to WebSocket, Server-Sent Events and long-poll
    /// clients of `bind_address`.
    ///
    /// Neither is looked at here; [`Bridge::run`] says what is wrong with them.
    #[must_use]
    pub fn new(postgres_url: String, bind_address: String) -> Self {
        Self { written: Vec::new() }.with("postgres.url", "postgres_url", postgres_url).with(
            "listen",
            "bind_address",
            bind_address,
        )
    }

    /// Channels to listen to from the start, whoever subscribes.
    #[must_use]
    pub fn with_channels(self, channels: Vec<String>) -> Self {
        // JSON, since a name may hold the comma that separates names otherwise.
        let list = serde_json::Value::from(channels).to_string();
        self.with("postgres.listen_channels", "with_channels", list)
    }

    /// The SQL function that is asked about tokens; without one, every client may do everything
    /// and `bind_address` must be an address of this machine alone.
    #[must_use]
    pub fn with_auth_function(self, function: String) -> Self {
        self.with("auth.function", "with_auth_function", function)
    }

    /// Listens beyond this machine although every client may do everything.
    #[must_use]
    pub fn insecure(self) -> Self {
        self.with("insecure", "insecure", "true".to_owned())
    }

    fn with(mut self, path: &'static str, flag: &'static str, text: String) -> Self {
        self.written.push(Override { path, flag, text });
        self
    }
}

/// A server inside another program; cheap to clone.
///
/// ```no_run
/// use anyhow::Result;
/// use tidewire_server::{Bridge, BridgeConfig};
///
/// #[tokio::main]
/// async fn main() -> Result<()> {
///     let config = BridgeConfig::new(
///         "postgresql://localhost/postgres".to_string(),
///         "127.0.0.1:8080".to_string(),
///     )
///     .with_channels(vec!["channel1".to_string(), "channel2".to_string()]);
///
///     let bridge = Bridge::new(config);
///     bridge.run().await?;
///
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Bridge {
    config: BridgeConfig,
    stop: CancellationToken,
}

impl Bridge {
    /// A server that is not running yet.
    #[must_use]
    pub fn new(config: BridgeConfig) -> Self {
        Self { config, stop: CancellationToken::new() }
    }

    /// Serves until [`Bridge::terminate`]; clients are then told to come back.
    ///
    /// Environment variables and files are not read. Dropping the future cuts all clients off.
    ///
    /// # Errors
    /// What in the configuration cannot be used, or an address that is taken. A database that is
    /// down is no error: it is tried again.
    pub async fn run(self) -> anyhow::Result<()> {
        let flags = self.config.written;
        let settings = Settings::load(&Written { flags, ..Written::default() })?;
        Server::start(settings).await?.run(self.stop, Never).await;
        Ok(())
    }

    /// Ends [`Bridge::run`] of this bridge and all its clones.
    pub fn terminate(&self) {
        self.stop.cancel();
    }

    /// Cancelled by [`Bridge::terminate`], or to be cancelled in its place.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}
