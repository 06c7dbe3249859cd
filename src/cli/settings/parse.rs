//! Parsing the command line. `config` and `doctor` are there to say what is wrong with the settings:
//! a variable that is refused must not keep them from it.

use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

/// Commands that go on without a variable that is refused.
const LENIENT: [&str; 2] = ["config", "doctor"];

/// The command line and the environment, read.
#[derive(Debug)]
pub(in crate::cli) struct Parsed {
    /// What they say.
    pub matches: ArgMatches,
    /// Variables that were passed over.
    pub refused: Vec<Refused>,
}

/// A variable with a value that cannot be meant.
#[derive(Debug)]
pub(in crate::cli) struct Refused {
    variable: String,
    problem: String,
}

impl fmt::Display for Refused {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.problem)
    }
}

/// Parses the arguments and the environment of this process.
///
/// # Errors
/// Wrong use, or a wish for help.
pub(in crate::cli) fn parse(mut command: Command) -> Result<Parsed, clap::Error> {
    let is_lenient = asks_for_lenient(&command);
    let mut refused = Vec::new();
    loop {
        let error = match command.clone().try_get_matches() {
            Ok(matches) => return Ok(Parsed { matches, refused }),
            Err(error) => error,
        };
        let Some(flag) = flag_of(&error).filter(|_| is_lenient) else { return Err(error) };
        let Some(variable) = variable_of(&command, &flag) else { return Err(error) };
        // The flag itself may be wrong: without its variable it then fails again, and has none.
        command = without_variable(command, &flag);
        let problem = std::error::Error::source(&error)
            .map_or_else(|| "the value cannot be meant".to_owned(), ToString::to_string);
        refused.push(Refused { variable, problem });
    }
}

fn asks_for_lenient(command: &Command) -> bool {
    let guess = command.clone().ignore_errors(true).try_get_matches();
    guess.is_ok_and(|matches| matches.subcommand_name().is_some_and(|name| LENIENT.contains(&name)))
}

/// The long flag whose value is refused.
fn flag_of(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let ContextValue::String(named) = error.get(ContextKind::InvalidArg)? else { return None };
    // `--lease-secs <SECONDS>`
    Some(named.strip_prefix("--")?.split([' ', '=']).next()?.to_owned())
}

/// The variable of a flag, where it is set.
fn variable_of(command: &Command, flag: &str) -> Option<String> {
    let below = command.get_subcommands().flat_map(Command::get_arguments);
    let arg = command.get_arguments().chain(below).find(|arg| {
        arg.get_long() == Some(flag)
            && arg.get_env().is_some_and(|name| std::env::var_os(name).is_some())
    })?;
    Some(super::text(arg.get_env()?))
}

fn without_variable(command: Command, flag: &str) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let forget = |arg: Arg| if arg.get_long() == Some(flag) { arg.env(None) } else { arg };
    let command = command.mut_args(forget);
    names
        .iter()
        .fold(command, |command, name| command.mut_subcommand(name, |below| below.mut_args(forget)))
}
