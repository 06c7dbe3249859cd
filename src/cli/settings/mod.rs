//! The settings, as the command line itself knows them: nothing of them is listed by hand.

mod parse;
mod reference;
mod values;

use std::ffi::OsStr;

use clap::{Arg, ArgAction, Command};

pub(super) use parse::{Parsed, parse};
pub(super) use reference::markdown;
pub(super) use values::{Source, Value, unknown_variables, values};

/// How a help text tells a default that is not a constant.
const DEFAULT_MARK: &str = "[default:";

/// A flag with its variable, as one or several commands take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// `--lease-secs`.
    pub flag: String,
    /// `EMBEDDING_RECOVERY_LEASE_SECS`.
    pub variable: String,
    /// Unit or kind of the value: `SECONDS`, `FILE`; or the values that there are.
    pub value: String,
    /// Empty where there is none.
    pub default: String,
    /// One sentence.
    pub help: String,
    /// What it belongs to; empty where the commands say it.
    pub heading: String,
    /// Who takes it; empty for every command.
    pub commands: Vec<String>,
}

impl Setting {
    /// Whether two commands take it alike.
    fn is_same(&self, other: &Self) -> bool {
        let alike = |setting: &Self| Self { commands: Vec::new(), ..setting.clone() };
        alike(self) == alike(other)
    }
}

/// Every setting of a command and of those below it, in the order of the help. One that several
/// commands take alike is one.
pub(super) fn all(root: &Command) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    collect(root, "", &mut settings);
    settings
}

fn collect(command: &Command, name: &str, settings: &mut Vec<Setting>) {
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(setting) = setting(arg) else { continue };
        let commands = if arg.is_global_set() { Vec::new() } else { vec![name.to_owned()] };
        match settings.iter_mut().find(|known| known.is_same(&setting)) {
            Some(known) => known.commands.extend(commands),
            None => settings.push(Setting { commands, ..setting }),
        }
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, format!("{name} {}", below.get_name()).trim(), settings);
    }
}

/// `None` where it is no setting: what has no flag is what a command works on.
fn setting(arg: &Arg) -> Option<Setting> {
    let flag = format!("--{}", arg.get_long()?);
    let variable = arg.get_env().map(text).unwrap_or_default();
    let help = arg.get_help().map(|help| help.to_string()).unwrap_or_default();
    let (help, told) = split_default(&help);
    Some(Setting {
        flag,
        variable,
        value: kind_of_value(arg),
        default: default(arg).or(told).unwrap_or_default(),
        help,
        heading: arg.get_help_heading().unwrap_or_default().to_owned(),
        commands: Vec::new(),
    })
}

fn kind_of_value(arg: &Arg) -> String {
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    match (possible.is_empty(), arg.get_value_names()) {
        (false, _) => possible.join(" or "),
        (true, Some(names)) => names.join(" "),
        (true, None) => String::new(),
    }
}

/// The default that the command line itself knows.
fn default(arg: &Arg) -> Option<String> {
    let constants: Vec<String> = arg.get_default_values().iter().map(|value| text(value)).collect();
    match (constants.is_empty(), arg.get_action()) {
        (false, _) => Some(format!("`{}`", constants.join(","))),
        (true, ArgAction::SetTrue) => Some("`false`".into()),
        (true, _) => None,
    }
}

/// A help text without the default that it tells, and that default.
fn split_default(help: &str) -> (String, Option<String>) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let split = help.split_once(DEFAULT_MARK).and_then(|(before, rest)| {
        let (told, after) = rest.split_once(']')?;
        Some((format!("{}{after}", before.trim_end()), told.to_owned()))
    });
    match split {
        Some((help, told)) => (words(&help), Some(words(&told))),
        None => (words(help), None),
    }
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}
