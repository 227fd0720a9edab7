//! The server that is measured: started for it and ended after it, or one that runs already.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{self, SECOND};
use crate::lane::Login;
use crate::process::Watched;
use crate::swarm::Target;

/// For a server to take its first connection.
const START: u64 = 60 * SECOND;

/// For a server to end after it was asked to.
const STOP: u64 = 10 * SECOND;

/// Between two looks whether it has.
const AGAIN: Duration = Duration::from_millis(20);

/// A server that can be measured.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) watched: Option<Watched>,
    /// What was started for it, last first.
    started: Vec<Started>,
}

/// A process of ours: it ends with this value, and with this program however that ends.
struct Started {
    child: Child,
}

impl Server {
    /// One that runs already. Without its process there is nothing to say about cost.
    pub(crate) fn attached(address: SocketAddr, pid: Option<i32>) -> Self {
        let target = Target { address, publish: address, login: Login::default() };
        let watched = pid.map(Watched::tree);
        Self { name: "tidewire".to_owned(), target, watched, started: Vec::new() }
    }

    /// Tidewire, with limits that allow for what is measured.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn tidewire(binary: &Path, log: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = command(binary)?;
        command.args(["serve", "--listen", &address.to_string()]);
        for (key, value) in TIDEWIRE {
            command.env(key, value);
        }
        Self::start("tidewire", command, address, log)
    }

    fn start(
        name: &str,
        mut command: Command,
        address: SocketAddr,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        let mut started = Started { child };
        started.await_listening(address).with_context(|| {
            let said = fs::read_to_string(log).unwrap_or_default();
            format!("{name} does not start; it says:\n{said}")
        })?;
        let watched = Some(Watched::tree(started.pid()));
        let target = Target { address, publish: address, login: Login::default() };
        Ok(Self { name: name.to_owned(), target, watched, started: vec![started] })
    }
}

/// What Tidewire is told: nobody is refused for being one of many, and it ends at once.
const TIDEWIRE: &[(&str, &str)] = &[
    ("TIDEWIRE_LIMITS_CONNECTIONS", "1000000"),
    ("TIDEWIRE_LIMITS_MESSAGES_PER_SECOND", "1000000000"),
    ("TIDEWIRE_LIMITS_BURST", "1000000000"),
    ("TIDEWIRE_SHUTDOWN_SPREAD", "0s"),
    ("TIDEWIRE_SHUTDOWN_GRACE", "1s"),
    ("TIDEWIRE_LOG_LEVEL", "warn"),
];

impl Started {
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    fn await_listening(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = clock::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if clock::now() > deadline {
                bail!("nothing listens on {address}");
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let deadline = clock::now() + STOP;
        while let Ok(None) = self.child.try_wait() {
            if clock::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(AGAIN);
        }
    }
}

/// A command whose process ends when this program does, even if it is killed: `setpriv` of
/// util-linux makes the system call for that, which in Rust would take unsafe code.
fn command(program: &Path) -> anyhow::Result<Command> {
    let program = found(program)?;
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    Ok(command)
}

/// A program by its path, or by its name in `PATH` and where servers are.
fn found(program: &Path) -> anyhow::Result<PathBuf> {
    if program.components().count() > 1 {
        let missing = || format!("{} is not there; build it first", program.display());
        return program.canonicalize().with_context(missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.push(PathBuf::from("/usr/sbin"));
    let files = places.into_iter().map(|place| place.join(program));
    let missing = || format!("{} is not installed", program.display());
    files.into_iter().find(|file| file.is_file()).with_context(missing)
}

/// An address of this machine that is free now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}
