//! The program `tidewire`.

use std::process::ExitCode;

use tidewire_server::args::{Args, Command};
use tidewire_server::config::{self, Settings};

fn main() -> ExitCode {
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match args.chosen() {
        Command::Config(flags) if flags.docs => print!("{}", config::documentation()),
        _ => match Settings::load(&args.written()) {
            Ok(settings) => print!("{}", settings.to_toml()),
            Err(error) => {
                eprintln!("tidewire: {error}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}
