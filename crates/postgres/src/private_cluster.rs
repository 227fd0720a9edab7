//! A PostgreSQL of our own, for `tidewire dev` and for tests.
//!
//! [`PrivateCluster::start`] finds the server binaries that are installed, makes a data directory,
//! runs `postgres` on a loopback port and stops it again. Nothing is downloaded and nothing that
//! already runs on the machine is touched. PostgreSQL refuses to run as root, so root hands the
//! work to the user `postgres`, or `nobody`.
//!
//! The functions here block for a second or two (`initdb`, starting, stopping); asynchronous
//! callers wrap them in `tokio::task::spawn_blocking`.
//!
//! The server must not outlive the program, not even after `kill -9`. The system call for that,
//! `PR_SET_PDEATHSIG`, has to be made by the child itself, which in Rust means the `unsafe`
//! `pre_exec`; so the child is started through `setpriv --pdeathsig` of util-linux, which makes the
//! call and then becomes `postgres`, keeping its process id. Where there is no such `setpriv`
//! (macOS), a killed program leaves its server running and the next start says so.

mod binaries;
mod error;
mod options;
mod owner;
mod postmaster;
mod statements;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use binaries::Binaries;
pub use error::ClusterError;
use error::while_doing;
pub use options::Options;
use owner::Owner;
use postmaster::Postmaster;
pub use statements::Statements;

/// The superuser of a private cluster, also the name of its database.
const SUPERUSER: &str = "postgres";

/// What is in a cluster's directory: the data, the socket, the log, the superuser's password.
const DATA: &str = "data";
const RUN: &str = "run";
const LOG: &str = "postgres.log";
const PASSWORD: &str = "password";

/// How often a free port is looked for again when another program took it first.
const PORT_ATTEMPTS: usize = 5;

/// How long to wait for a server that is just stopping, such as the one of a killed program.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(5);

/// A running PostgreSQL server in a directory of its own; stopped when dropped.
///
/// On 127.0.0.1 it asks for a password (SCRAM) that was drawn when the directory was made; on its
/// Unix socket, in a directory that only its user may enter, it trusts.
#[derive(Debug)]
pub struct PrivateCluster {
    dir: PathBuf,
    options: Options,
    binaries: Binaries,
    owner: Option<Owner>,
    password: String,
    port: u16,
    postmaster: Option<Postmaster>,
    temporary: bool,
}

impl PrivateCluster {
    /// Starts the server of `dir`, making the directory's contents first if there are none.
    ///
    /// What was stored in `dir` before is kept. When the program is root and the user it hands the
    /// work to cannot reach `dir` (below `/root`, say), a directory in `/var/tmp` named after
    /// `dir` is used instead; [`PrivateCluster::dir`] tells.
    ///
    /// Blocks until the server accepts connections.
    ///
    /// # Errors
    /// [`ClusterError`]; each message says the fix.
    pub fn start(dir: impl AsRef<Path>, options: Options) -> Result<Self, ClusterError> {
        let dir = std::path::absolute(dir.as_ref())
            .map_err(while_doing("finding the absolute path of the cluster's directory"))?;
        Self::start_in(dir, options, false)
    }

    /// Starts a new server in a directory that is removed when the server stops.
    ///
    /// # Errors
    /// As [`PrivateCluster::start`].
    pub fn temporary(options: Options) -> Result<Self, ClusterError> {
        let dir = std::env::temp_dir().join(format!("tidewire-{}", random_hex()?));
        Self::start_in(dir, options, true)
    }

    fn start_in(dir: PathBuf, options: Options, temporary: bool) -> Result<Self, ClusterError> {
        let binaries = Binaries::find(options.bin_dir.as_deref())?;
        let owner = Owner::needed()?;
        let dir = owner::reachable(dir, owner.as_ref());
        owner::make_dir(&dir, owner.as_ref())?;
        let mut cluster = Self {
            dir,
            options,
            binaries,
            owner,
            password: String::new(),
            port: 0,
            postmaster: None,
            temporary,
        };
        cluster.fill_dir()?;
        cluster.resume()?;
        Ok(cluster)
    }

    /// A connection URL for the superuser over TCP, with its password.
    pub fn url(&self) -> String {
        format!("postgresql://{SUPERUSER}:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// A connection URL for the superuser over the Unix socket; no password is asked there.
    ///
    /// `None` when the directory's path is too long for a socket.
    pub fn socket_url(&self) -> Option<String> {
        let dir = self.socket_dir()?;
        let host = dir.to_str()?.replace('%', "%25").replace('/', "%2F").replace(' ', "%20");
        Some(format!("postgresql://{SUPERUSER}@{host}:{}/postgres", self.port))
    }

    /// The port on 127.0.0.1; the same after [`PrivateCluster::stop`] and
    /// [`PrivateCluster::resume`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The directory that holds everything: data, log, socket, password.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// PostgreSQL's data directory, where its `pg_hba.conf` is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// The directory of the Unix socket, unless its path would be too long.
    pub fn socket_dir(&self) -> Option<PathBuf> {
        /// A socket's path has at most 107 bytes on Linux and 103 on macOS; 20 are its name's.
        const LONGEST: usize = 80;
        let dir = self.dir.join(RUN);
        (dir.as_os_str().len() <= LONGEST).then_some(dir)
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// Whether the server runs: started, and not ended by itself or by [`PrivateCluster::stop`].
    pub fn is_running(&self) -> bool {
        self.postmaster.as_ref().is_some_and(Postmaster::is_running)
    }

    /// Stops the server and waits until it is gone; its connections end, its data stays.
    ///
    /// This is PostgreSQL's *fast* shutdown (SIGINT). Only a server that does not end within ten
    /// seconds is told to do so at once.
    pub fn stop(&mut self) {
        self.postmaster = None;
    }

    /// Starts the server again after [`PrivateCluster::stop`], on the same port.
    ///
    /// # Errors
    /// As [`PrivateCluster::start`].
    pub fn resume(&mut self) -> Result<(), ClusterError> {
        self.stop();
        self.wait_for_predecessor()?;
        let fixed = self.options.port.or((self.port != 0).then_some(self.port));
        let attempts = if fixed.is_some() { 1 } else { PORT_ATTEMPTS };
        for attempt in 1..=attempts {
            self.port = fixed.map_or_else(free_port, Ok)?;
            match Postmaster::start(self.command()?, &self.data_dir(), &self.log()) {
                Ok(postmaster) => {
                    self.postmaster = Some(postmaster);
                    return Ok(());
                }
                Err(error) if attempt < attempts && says_port_taken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Tells the server to read `pg_hba.conf` and its other files again.
    pub fn reload(&self) {
        if let Some(postmaster) = &self.postmaster {
            postmaster.reload();
        }
    }

    /// Writes a file into the data directory, readable by the server alone.
    ///
    /// # Errors
    /// [`ClusterError::Io`].
    pub fn write_file(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<(), ClusterError> {
        owner::write_file(&self.dir, &[DATA, name], contents.as_ref(), self.owner.as_ref())
    }

    /// Makes data and password unless they are there, and the directory of the socket.
    fn fill_dir(&mut self) -> Result<(), ClusterError> {
        if self.socket_dir().is_some() {
            owner::make_dir_in(&self.dir, RUN, self.owner.as_ref())?;
        }
        match self.data_dir().exists() {
            true => self.check_version(),
            false => self.initdb(),
        }?;
        self.password = owner::read_file(&self.dir, &[PASSWORD])?;
        Ok(())
    }

    fn password_file(&self) -> PathBuf {
        self.dir.join(PASSWORD)
    }

    fn check_version(&self) -> Result<(), ClusterError> {
        let made_by = owner::read_file(&self.dir, &[DATA, "PG_VERSION"])?.trim().to_owned();
        let found = self.binaries.major_version()?;
        if made_by == found {
            return Ok(());
        }
        Err(ClusterError::Version { dir: self.dir.clone(), made_by, found })
    }

    /// Fills a directory beside the final one and renames it, so that an interrupted `initdb`
    /// leaves nothing that looks finished.
    fn initdb(&self) -> Result<(), ClusterError> {
        let unfinished = self.dir.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(while_doing(format!("removing {}", unfinished.display())))?;
        }
        let password = random_hex()?;
        owner::write_file(&self.dir, &[PASSWORD], password.as_bytes(), self.owner.as_ref())?;
        let output = self
            .as_owner(Command::new(self.binaries.initdb()))
            .arg("--pgdata")
            .arg(&unfinished)
            .arg("--pwfile")
            .arg(self.password_file())
            .args(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--no-sync", "--no-instructions"])
            .output()
            .map_err(while_doing("running initdb"))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            return Err(ClusterError::Initdb { dir: self.dir.clone(), output });
        }
        fs::rename(&unfinished, self.data_dir()).map_err(while_doing("naming the data directory"))
    }

    /// The command line of the server.
    fn command(&self) -> Result<Command, ClusterError> {
        let mut command = self.as_owner(binaries::ending_with_us(&self.binaries.postgres()));
        command.arg("-D").arg(self.data_dir());
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = owner::create_file(&self.dir, &[LOG], None)?;
        let copy = log.try_clone().map_err(while_doing("making the server's log"))?;
        command.stdin(std::process::Stdio::null()).stdout(log).stderr(copy);
        Ok(command)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let socket_dir = self.socket_dir().unwrap_or_default();
        let mut settings: Vec<(String, String)> = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("unix_socket_directories", &socket_dir.to_string_lossy()),
            ("wal_level", "logical"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        if !self.options.durable {
            for name in ["fsync", "full_page_writes", "synchronous_commit"] {
                settings.push((name.to_owned(), "off".to_owned()));
            }
        }
        settings.extend_from_slice(&self.options.settings);
        settings
    }

    /// The same command, run in the cluster's directory by the user that may run PostgreSQL, in a
    /// process group of its own so that Ctrl-C in a terminal reaches only the program.
    fn as_owner(&self, mut command: Command) -> Command {
        use std::os::unix::process::CommandExt;
        command.current_dir(&self.dir).process_group(0);
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn wait_for_predecessor(&self) -> Result<(), ClusterError> {
        match postmaster::running_in(&self.data_dir(), PREDECESSOR_PATIENCE) {
            None => Ok(()),
            Some(pid) => Err(ClusterError::Busy { dir: self.dir.clone(), pid }),
        }
    }
}

impl Drop for PrivateCluster {
    fn drop(&mut self) {
        self.stop();
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a private cluster was left behind");
        }
    }
}

fn random_hex() -> Result<String, ClusterError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| while_doing("drawing random bytes")(std::io::Error::other(error)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(while_doing("looking for a free port on 127.0.0.1"))
}

fn says_port_taken(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Start { log, .. } if log.contains("Address already in use"))
}
