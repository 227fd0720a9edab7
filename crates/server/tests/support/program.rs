//! The program itself, as a process of its own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::{soon, until};

/// The program with these words and variables, and no others.
fn command(words: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(words).env_clear().kill_on_drop(true).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value))));
    command
}

/// Runs the program to its end.
pub(crate) async fn run_program(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let output = command(words, variables).output();
    soon("the end of the program", output).await.expect("the program")
}

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts the program.
    pub(crate) fn start(words: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::of(command(words, variables))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let printed = collect(child.stdout.take().expect("a pipe"));
        let logged = collect(child.stderr.take().expect("a pipe"));
        Self { child, printed, logged }
    }

    /// Starts the program where it may open so many files: at first, and if it asks for more.
    pub(crate) fn start_with_open_files(soft: u32, hard: u32, words: &[&str]) -> Self {
        let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tidewire")]).args(words);
        command.env_clear().kill_on_drop(true).stdin(Stdio::null());
        Self::of(command)
    }

    /// Starts a server, and waits until it serves.
    pub(crate) async fn serve(words: &[&str], variables: &[(&str, &str)]) -> (Self, SocketAddr) {
        let program = Self::start(words, variables);
        let line = program.logged("serving address=").await;
        let (_, address) = line.split_once("address=").expect("the line names the address");
        let address = address.trim().parse().expect("an address");
        (program, address)
    }

    /// Waits for a line of the log that has the text.
    pub(crate) async fn logged(&self, text: &str) -> String {
        self.line_of(&self.logged, text).await
    }

    /// Waits for the first line of the log.
    pub(crate) async fn first_logged(&self) -> String {
        self.logged("").await
    }

    /// Waits for a line of standard output that has the text.
    pub(crate) async fn printed(&self, text: &str) -> String {
        self.line_of(&self.printed, text).await
    }

    /// All that was printed so far.
    pub(crate) fn all_printed(&self) -> Vec<String> {
        self.printed.lock().clone()
    }

    /// How many lines of the log so far have the text.
    pub(crate) fn count_logged(&self, text: &str) -> usize {
        self.logged.lock().iter().filter(|line| line.contains(text)).count()
    }

    async fn line_of(&self, lines: &Mutex<Vec<String>>, text: &str) -> String {
        let find = || lines.lock().iter().find(|line| line.contains(text)).cloned();
        until(&format!("a line with {text:?}"), async || find().is_some()).await;
        find().expect("it was there just now")
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().expect("it runs") as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the end of the program", self.child.wait()).await.expect("a status")
    }

    /// Bytes of memory it has resident.
    pub(crate) fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux has it");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<usize>().expect("a number") * 1_024
    }
}

fn collect(output: impl AsyncRead + Send + Unpin + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&lines);
    tokio::spawn(async move {
        let mut output = BufReader::new(output).lines();
        while let Ok(Some(line)) = output.next_line().await {
            collected.lock().push(line);
        }
    });
    lines
}
