//! What `--help` says beyond the flags: the environment variables that do the same.
//!
//! They come from the table of keys, so that the help and `docs/config.md` cannot differ. Nothing of
//! the environment is read here.

use clap::{Arg, Command};

use crate::config::variables_of;

/// How the help of a flag names the key that it sets.
const KEY: &str = "[key ";

/// What stands at the end of the help of every command.
const ENVIRONMENT: &str = "\
Environment: every key of the configuration has a variable, such as TIDEWIRE_LISTEN for listen and
TIDEWIRE_LIMITS_CONNECTIONS for limits.connections; `tidewire config --docs` lists them, and
`tidewire config` prints what holds. Flags are stronger than variables, and these than the file.";

/// The command line with its variables named.
pub(super) fn with_variables(command: Command) -> Command {
    name_in_all(command).after_help(ENVIRONMENT)
}

fn name_in_all(command: Command) -> Command {
    command.mut_args(name_variables).mut_subcommands(name_in_all)
}

/// Adds the variables of its key to the help of a flag that sets one.
fn name_variables(flag: Arg) -> Arg {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let path = help.split_once(KEY).and_then(|(_, rest)| rest.split_once(']'));
    match path {
        Some((path, _)) => {
            let variables = variables_of(path).join(", ");
            flag.help(format!("{help} [env: {variables}]"))
        }
        None => flag,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn the_help_names_the_variables_of_each_flag() {
        let mut command = with_variables(Args::command());
        let help = command.render_long_help().to_string();
        let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "[env: TIDEWIRE_POSTGRES_URL, POSTGRES_URL]",
            "[env: TIDEWIRE_LISTEN, WS_BIND_ADDR]",
            "[env: TIDEWIRE_CONFIG]",
            "TIDEWIRE_LIMITS_CONNECTIONS",
        ] {
            assert!(joined.contains(part), "{part} in {help}");
        }
    }

    #[test]
    fn every_key_that_a_flag_names_is_one() {
        let mut commands = vec![Args::command()];
        while let Some(command) = commands.pop() {
            for flag in command.get_arguments() {
                let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
                let Some((_, rest)) = help.split_once(KEY) else { continue };
                let (path, _) = rest.split_once(']').expect("a bracket is closed");
                assert!(!variables_of(path).is_empty(), "{path}");
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
