//! The program `tidewire`.

use std::process::ExitCode;

use tidewire_server::args::Args;
use tidewire_server::{commands, core_dumps};

fn main() -> ExitCode {
    if let Err(error) = core_dumps::switch_off() {
        eprintln!("tidewire: core dumps cannot be switched off: {error}");
    }
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire: {}", commands::chain(&error));
            ExitCode::FAILURE
        }
    }
}
