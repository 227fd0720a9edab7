//! A server's process: started for one run and ended after it, or one that runs already.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::{self, SECOND};
use crate::lane::{Door, Login};
use crate::process::Watched;
use crate::swarm::Target;

/// For a server to take its first connection, and to say what it has to say.
const START: u64 = 60 * SECOND;

/// For a server to end after it was asked to.
const STOP: u64 = 10 * SECOND;

/// Between two looks whether it has.
const AGAIN: Duration = Duration::from_millis(20);

/// A server that can be measured.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) target: Target,
    /// Its processes, where they are known.
    pub(crate) watched: Option<Watched>,
    process: Option<Process>,
}

/// A process of ours: it ends with this value, and with this program however that ends.
struct Process {
    child: Child,
    /// What it writes.
    log: PathBuf,
    /// What it leaves behind.
    rubbish: Option<PathBuf>,
}

/// A program to be started.
pub(crate) struct Program {
    pub(crate) command: Command,
}

impl Server {
    /// One that runs already. Without its process there is nothing to say about cost.
    pub(crate) fn attached(address: SocketAddr, pid: Option<i32>) -> Self {
        let watched = pid.map(Watched::tree);
        Self { name: "attached".to_owned(), target: target(address), watched, process: None }
    }

    /// The process that was started; 0 for one that ran already.
    pub(crate) fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// Waits until the server has so many processes, which are watched from then on.
    ///
    /// # Errors
    /// When they do not come.
    pub(crate) fn await_processes(&mut self, count: usize) -> anyhow::Result<()> {
        let deadline = clock::now() + START;
        while clock::now() < deadline {
            let watched = Watched::tree(self.pid());
            if watched.count() >= count {
                self.watched = Some(watched);
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        }
        bail!("{} has fewer than {count} processes", self.name)
    }

    /// Removes a folder when the server has ended.
    pub(crate) fn remove_after(&mut self, folder: PathBuf) {
        if let Some(process) = &mut self.process {
            process.rubbish = Some(folder);
        }
    }

    /// Waits until the server has said something; what follows it on its line.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) fn await_said(&self, before: &str) -> anyhow::Result<String> {
        let log = &self.process.as_ref().context("a server that runs already says nothing")?.log;
        let deadline = clock::now() + START;
        while clock::now() < deadline {
            let said = fs::read_to_string(log).unwrap_or_default();
            let after = said.split_once(before).and_then(|(_, after)| after.split_once('\n'));
            if let Some((line, _)) = after {
                return Ok(line.to_owned());
            }
            std::thread::sleep(AGAIN);
        }
        bail!("{} never said {before:?}", self.name)
    }
}

impl Program {
    /// A program by its path, or by its name in `PATH` and where servers are. Its process ends
    /// when this one does, even if that is killed: `setpriv` of util-linux makes the system call
    /// for that, which in Rust would take unsafe code.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn new(program: &Path) -> anyhow::Result<Self> {
        let program = found(program)?;
        let setpriv = Path::new("/usr/bin/setpriv");
        if !setpriv.exists() {
            return Ok(Self { command: Command::new(program) });
        }
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        Ok(Self { command })
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not; with what it said.
    pub(crate) fn start(
        mut self,
        name: &str,
        address: SocketAddr,
        logs: &Path,
    ) -> anyhow::Result<Server> {
        let log = logs.join(format!("{name}.log"));
        let output =
            fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        self.command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = self.command.spawn().with_context(|| format!("starting {name}"))?;
        let mut process = Process { child, log, rubbish: None };
        process.await_listening(address).with_context(|| {
            let said = fs::read_to_string(&process.log).unwrap_or_default();
            format!("{name} does not start; it says: {said}")
        })?;
        let watched = Some(Watched::tree(process.pid()));
        let name = name.to_owned();
        Ok(Server { name, target: target(address), watched, process: Some(process) })
    }
}

impl Process {
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

    fn end(&mut self) {
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

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if let Some(rubbish) = &self.rubbish {
            let _ = fs::remove_dir_all(rubbish);
        }
    }
}

fn target(address: SocketAddr) -> Target {
    Target { address, publish: Door::Tcp(address), login: Login::default() }
}

fn found(program: &Path) -> anyhow::Result<PathBuf> {
    if program.components().count() > 1 {
        let missing = || format!("{} is not there; build it first", program.display());
        return program.canonicalize().with_context(missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.push(PathBuf::from("/usr/sbin"));
    let mut files = places.into_iter().map(|place| place.join(program));
    let missing = || format!("{} is not installed", program.display());
    files.find(|file| file.is_file()).with_context(missing)
}

/// An address of this machine that is free now.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}
