//! How a private cluster is set up.

use std::path::PathBuf;

/// How a private cluster is set up.
///
/// ```
/// use tidewire_postgres::private_cluster::Options;
///
/// let options = Options::default().port(54_321).setting("max_connections", "20");
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) port: Option<u16>,
    pub(super) durable: bool,
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) settings: Vec<(String, String)>,
}

/// A free port, `fsync` off: right for tests.
impl Default for Options {
    fn default() -> Self {
        Self { port: None, durable: false, bin_dir: None, settings: Vec::new() }
    }
}

impl Options {
    /// Listens on this port of 127.0.0.1; without it, on one that is free.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Keeps what is committed through a crash of the machine (`fsync` on); costs some speed.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Uses `initdb` and `postgres` of this directory instead of looking for them.
    #[must_use]
    pub fn bin_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(dir.into());
        self
    }

    /// Adds a server setting, as `postgres -c name=value` would.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}
