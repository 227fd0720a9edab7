//! The program `tidewire`.

use std::process::ExitCode;

use tidewire_server::args::Args;
use tidewire_server::commands;

fn main() -> ExitCode {
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire: {}", commands::chain(&error));
            ExitCode::FAILURE
        }
    }
}
