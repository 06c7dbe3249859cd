//! What the settings of this run are, where each value comes from, and what of it may be shown.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use url::Url;

use super::parse::Parsed;
use super::{Setting, all, setting, text};

/// Stands for a secret.
const MASK: &str = "…";
/// How the program's own variables begin; others may be meant for other programs.
const OWN_PREFIX: &str = "EMBEDDING_RECOVERY_";

/// Who gives a setting its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// The program.
    Default,
    /// Nobody: it has none.
    Unset,
}

impl Source {
    /// A stable name.
    pub fn name(self) -> &'static str {
        match self {
            Source::Flag => "flag",
            Source::Variable => "variable",
            Source::Default => "default",
            Source::Unset => "not set",
        }
    }
}

/// A setting of this run.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Value {
    /// Its flag.
    pub flag: String,
    /// Its variable.
    pub variable: String,
    /// What may be shown of its value.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

impl Value {
    /// Where it comes from, for people.
    pub fn origin(&self) -> String {
        match self.source {
            Source::Flag => format!("flag {}", self.flag),
            Source::Variable => format!("variable {}", self.variable),
            Source::Default => "default".into(),
            Source::Unset => self.variable.clone(),
        }
    }
}

/// Takes every setting of the service; what others take besides says how they print.
const SERVICE: &str = "serve";

/// The settings of the service, as the command that runs has them; those of every command first.
pub(in crate::cli) fn values(root: &Command, parsed: &Parsed) -> Vec<Value> {
    let Some((_, matches)) = parsed.matches.subcommand() else { return Vec::new() };
    let own = root.find_subcommand(SERVICE).into_iter().flat_map(Command::get_arguments);
    let globals = root.get_arguments().filter(|arg| arg.is_global_set());
    globals.chain(own).filter_map(|arg| Some(value(arg, setting(arg)?, matches))).collect()
}

fn value(arg: &Arg, setting: Setting, matches: &ArgMatches) -> Value {
    let id = arg.get_id().as_str();
    let raw: Option<Vec<String>> = matches.try_get_raw(id).ok().flatten().map(|values| {
        let values = values.map(text);
        values.map(|value| masked(&value, arg.is_hide_env_values_set())).collect()
    });
    let told = Some(setting.default.trim_matches('`').to_owned()).filter(|told| !told.is_empty());
    let (value, source) = match (matches.value_source(id), raw) {
        (Some(ValueSource::CommandLine), Some(raw)) => (Some(raw.join(",")), Source::Flag),
        (Some(ValueSource::EnvVariable), Some(raw)) => (Some(raw.join(",")), Source::Variable),
        (_, _) if told.is_some() => (told, Source::Default),
        (_, _) => (None, Source::Unset),
    };
    Value { flag: setting.flag, variable: setting.variable, value, source }
}

/// A value without what is secret of it. A URL keeps its address: passwords and queries, which hold
/// keys, go.
fn masked(value: &str, is_secret: bool) -> String {
    let url = Url::parse(value).ok().filter(|url| url.has_host() || url.scheme() == "postgres");
    match url {
        Some(mut url) => {
            if url.password().is_some() {
                let _ = url.set_password(Some("***"));
            }
            if url.query().is_some() {
                url.set_query(Some("***"));
            }
            url.set_fragment(None);
            url.to_string()
        }
        None if is_secret && !value.is_empty() => MASK.to_owned(),
        None => value.to_owned(),
    }
}

/// Variables that look like the program's own and are not: most likely mistyped.
pub(in crate::cli) fn unknown_variables(root: &Command) -> Vec<String> {
    let known: Vec<String> = all(root).into_iter().map(|setting| setting.variable).collect();
    let mut unknown: Vec<String> = std::env::vars_os()
        .map(|(name, _)| text(&name))
        .filter(|name| name.starts_with(OWN_PREFIX) && !known.contains(name))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_in_what_is_shown() {
        for (value, secret, shown) in [
            (
                "postgres://ann:s3cret@db:5432/calls?password=s3cret",
                true,
                "postgres://ann:***@db:5432/calls?***",
            ),
            ("postgres:///calls?host=/run&password=s3cret", true, "postgres:///calls?***"),
            (
                "https://api.example.com/v1?key=s3cret#s3cret",
                false,
                "https://api.example.com/v1?***",
            ),
            ("sk-s3cret", true, "…"),
            ("X-Team: s3cret", true, "…"),
            ("host=db password=s3cret", true, "…"),
            ("30s", false, "30s"),
            ("", true, ""),
        ] {
            assert_eq!(masked(value, secret), shown);
        }
    }
}
