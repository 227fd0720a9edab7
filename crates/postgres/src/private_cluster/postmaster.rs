//! One running `postgres` and the thread that keeps it.
//!
//! Linux sends the parent-death signal when the *thread* that started the child ends, so the child
//! is started by a thread that lives exactly as long as it: it starts the server, watches it,
//! signals it, and reaps it. Nobody else knows the process id, so it can never be signalled after
//! it was reaped.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::{ClusterError, while_doing};

/// How long a server may take to start; recovery after a crash is the slow case.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take before the server is told to drop everything.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often a file or process is looked at while starting and stopping.
const GLANCE: Duration = Duration::from_millis(10);

/// How often the keeper looks whether the server has ended by itself.
const WATCH: Duration = Duration::from_millis(250);

enum Order {
    Reload,
    Stop,
}

/// A running server; dropping it is a fast shutdown and waits for the end.
#[derive(Debug)]
pub(super) struct Postmaster {
    orders: SyncSender<Order>,
    keeper: Option<JoinHandle<()>>,
    running: Arc<AtomicBool>,
}

impl Postmaster {
    /// Runs `command` and waits until the server of `data` accepts connections.
    pub(super) fn start(command: Command, data: &Path, log: &Path) -> Result<Self, ClusterError> {
        let (orders, inbox) = sync_channel(4);
        let (started, outcome) = sync_channel(1);
        let running = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&running);
        let keeper = thread::Builder::new()
            .name("private-postgres".to_owned())
            .spawn(move || {
                keep(command, &started, &inbox);
                flag.store(false, Ordering::Release);
            })
            .map_err(while_doing("starting a thread"))?;
        let postmaster = Self { orders, keeper: Some(keeper), running };
        let pid = outcome
            .recv()
            .expect("the keeper reports before it ends")
            .map_err(while_doing("running postgres"))?;
        postmaster.wait_until_ready(pid, data, log)?;
        Ok(postmaster)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    pub(super) fn reload(&self) {
        // The keeper is gone only when the server is, and then there is nothing to reload.
        let _ = self.orders.send(Order::Reload);
    }

    fn wait_until_ready(&self, pid: u32, data: &Path, log: &Path) -> Result<(), ClusterError> {
        let deadline = Instant::now() + START_PATIENCE;
        while self.is_running() && Instant::now() < deadline {
            if is_ready(data, pid) {
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
        let dir = data.parent().unwrap_or(data).to_owned();
        Err(ClusterError::Start { dir, log: last_lines(log) })
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Starts the server, obeys orders, and returns when it is gone and reaped.
fn keep(mut command: Command, started: &SyncSender<io::Result<u32>>, inbox: &Receiver<Order>) {
    let spawned = command.spawn();
    let _ = started.send(spawned.as_ref().map(Child::id).map_err(|e| io::Error::from(e.kind())));
    let Ok(mut child) = spawned else { return };
    loop {
        match inbox.recv_timeout(WATCH) {
            Ok(Order::Reload) => signal(&child, Signal::SIGHUP),
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return end(&mut child),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Ok(Some(status)) = child.try_wait() {
            tracing::warn!(%status, "the private PostgreSQL ended by itself");
            return;
        }
    }
}

/// Fast shutdown, then immediate shutdown, then SIGKILL.
fn end(child: &mut Child) {
    for order in [Signal::SIGINT, Signal::SIGQUIT] {
        signal(child, order);
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = child.try_wait() {
                return;
            }
            thread::sleep(GLANCE);
        }
        tracing::warn!("the private PostgreSQL did not end after {order}");
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Signals a child that was not reaped yet, so the process id is surely its own.
fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id is a pid_t"));
    if let Err(error) = kill(pid, signal) {
        tracing::warn!(%error, %signal, "the private PostgreSQL could not be signalled");
    }
}

/// Whether the server wrote into its `postmaster.pid`, line 8, that it takes connections.
fn is_ready(data: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|status| ["ready", "standby"].contains(&status.trim()))
}

/// The process that runs the server of `data`, if it is still there after `patience`.
pub(super) fn running_in(data: &Path, patience: Duration) -> Option<i32> {
    let deadline = Instant::now() + patience;
    loop {
        let pid = pid_in(data)?;
        if !is_postgres(pid) {
            return None;
        }
        if Instant::now() >= deadline {
            return Some(pid);
        }
        thread::sleep(GLANCE);
    }
}

fn pid_in(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Whether a process lives and is a PostgreSQL; after a reboot the number may be anybody's.
fn is_postgres(pid: i32) -> bool {
    if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
        return false;
    }
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => name.trim() == "postgres",
        // No /proc here: believe the file, as PostgreSQL itself does.
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

/// The last lines of a log, in one line.
fn last_lines(log: &Path) -> String {
    /// Enough for PostgreSQL's error, detail and hint.
    const LINES: usize = 6;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().rev().take(LINES).collect();
    lines.reverse();
    lines.join("; ")
}
