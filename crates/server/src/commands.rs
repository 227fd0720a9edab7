//! What the program does, one file for each of its commands.

mod serve;

mod dev;

mod listen;

mod plain;

mod publish;

mod remote;

mod token;

mod key;

mod sql;

mod tables;

mod doctor;

use std::io::Write as _;

use crate::args::{Args, Command, KeyCommand};
use crate::config::{self, Settings};

pub use plain::chain;

/// Carries out what the command line asks.
///
/// # Errors
/// What the person at the terminal should read.
pub fn run(args: &Args) -> anyhow::Result<()> {
    warn_of_secrets(args);
    match args.chosen() {
        Command::Serve(_) => serve::run(&args.written()),
        Command::Dev(flags) => dev::run(args, &flags),
        Command::Listen(flags) => listen::run(args, flags),
        Command::Publish(flags) => publish::run(args, &flags),
        Command::Token(flags) => token::run(&Settings::load(&args.written())?, flags),
        Command::Key { command: KeyCommand::New { name } } => key::new(&name),
        Command::Sql { command } => sql::run(args, command),
        Command::Tables(flags) => tables::run(args, &flags),
        Command::Doctor(flags) => doctor::run(args, &flags),
        Command::Config(flags) if flags.docs => print(&config::documentation()),
        Command::Config(_) => print(&Settings::load(&args.written())?.to_toml()),
    }
}

/// Says that what stands on a command line is no secret; where there is a log, the server says it
/// there.
fn warn_of_secrets(args: &Args) {
    if matches!(args.chosen(), Command::Serve(_) | Command::Config(_)) {
        return;
    }
    let instead = [
        (has_password(args), "password in --postgres-url", "TIDEWIRE_POSTGRES_URL"),
        (args.has_token(), "token in --token", "TIDEWIRE_TOKEN"),
    ];
    for (is_there, what, variable) in instead {
        if is_there {
            eprintln!(
                "tidewire: the {what} can be read by every user of this machine: set {variable} \
                 instead"
            );
        }
    }
}

fn has_password(args: &Args) -> bool {
    let url = args.global.postgres_url.as_deref().map(config::PostgresUrl::parse);
    url.is_some_and(|url| url.is_ok_and(|url| url.to_string() != url.expose()))
}

/// Prints to standard output, where a reader that went away is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// The database that the command line, the environment or the configuration names.
fn database(args: &Args) -> anyhow::Result<tidewire_postgres::Target> {
    let settings = Settings::load(&args.written())?;
    let Some(postgres) = settings.postgres else {
        anyhow::bail!("no database is named: add --postgres-url URL, or set TIDEWIRE_POSTGRES_URL");
    };
    Ok(postgres.url.expose().parse()?)
}

/// A runtime for the commands that are clients: one thread is plenty.
fn small_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
