//! Where the API and the probes listen, and who may use the API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, TraceArgs};

/// A shorter token could be guessed by trying.
const TOKEN_BYTES_MIN: usize = 16;

/// Where the API and the probes listen, and who may use the API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API and page")]
pub struct AdminArgs {
    /// Where the API and its page listen; without tokens, a loopback address
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// Where `/livez`, `/readyz` and `/metrics` listen, which need no token
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_PROBE_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9464"
    )]
    pub probe_listen: SocketAddr,

    /// Token that may look and act
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    admin_token: Option<SecretString>,

    /// File that holds such a token; may be given several times. Its name is kept with each action
    ///
    /// In the variable, files are separated by commas.
    #[arg(
        long = "admin-token-file",
        env = "EMBEDDING_RECOVERY_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    admin_token_files: Vec<PathBuf>,

    /// Token that may look
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_READ_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    read_token: Option<SecretString>,

    /// File that holds such a token; may be given several times
    ///
    /// In the variable, files are separated by commas.
    #[arg(
        long = "read-token-file",
        env = "EMBEDDING_RECOVERY_READ_TOKEN_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    read_token_files: Vec<PathBuf>,

    /// What the page's links to traces are made of
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// A token and whose it is.
#[derive(Debug, Clone)]
pub struct NamedToken {
    /// Name of its file, or of what it may where it came without one.
    pub name: String,
    /// What requests carry.
    pub token: SecretString,
}

/// The tokens of the API.
#[derive(Debug, Clone, Default)]
pub struct AdminTokens {
    /// Those that may look and act.
    pub admin: Vec<NamedToken>,
    /// Those that may look.
    pub read: Vec<NamedToken>,
}

impl AdminArgs {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// A file that cannot be read, a token that is too short, or an address that others can reach
    /// and no token. The message has no token.
    pub fn tokens(&self) -> Result<AdminTokens, ConfigError> {
        let tokens = AdminTokens {
            admin: read_all("admin", self.admin_token.as_ref(), &self.admin_token_files)?,
            read: read_all("read", self.read_token.as_ref(), &self.read_token_files)?,
        };
        let none = tokens.admin.is_empty() && tokens.read.is_empty();
        if none && !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "--listen {}: others can reach that, so a token is needed: set \
                 --admin-token-file, or listen on 127.0.0.1:{}",
                self.listen,
                self.listen.port()
            )));
        }
        Ok(tokens)
    }
}

pub(super) fn read_all(
    name: &str,
    token: Option<&SecretString>,
    files: &[PathBuf],
) -> Result<Vec<NamedToken>, ConfigError> {
    // A variable that is set but empty counts as none, as it does for the others.
    let given = token.filter(|token| !token.expose_secret().is_empty());
    let mut tokens = Vec::new();
    if let Some(token) = given {
        tokens.push(named(&format!("--{name}-token"), name, token.expose_secret())?);
    }
    for file in files.iter().filter(|file| !file.as_os_str().is_empty()) {
        let setting = format!("--{name}-token-file {}", file.display());
        let text =
            fs::read_to_string(file).map_err(|error| ConfigError(format!("{setting}: {error}")))?;
        tokens.push(named(&setting, &stem(file), text.trim())?);
    }
    Ok(tokens)
}

fn named(setting: &str, name: &str, token: &str) -> Result<NamedToken, ConfigError> {
    if token.len() < TOKEN_BYTES_MIN {
        return Err(ConfigError(format!(
            "{setting}: a token has at least {TOKEN_BYTES_MIN} characters; \
             `openssl rand -hex 32` makes one"
        )));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError(format!("{setting}: a token is one word of visible characters")));
    }
    Ok(NamedToken { name: name.to_owned(), token: token.into() })
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        admin: AdminArgs,
    }

    fn tokens(args: &[&str]) -> Result<AdminTokens, ConfigError> {
        let line = [&["test"], args].concat();
        Line::try_parse_from(line).expect("flags").admin.tokens()
    }

    #[test]
    fn tokens_come_from_flags_and_files_and_are_named_after_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("grace.token");
        fs::write(&file, "grace-has-a-long-token\n").expect("written");
        let path = file.to_string_lossy();
        let read = tokens(&["--admin-token-file", &path, "--read-token", "a-token-that-reads"]);
        let AdminTokens { admin, read } = read.expect("tokens");
        assert_eq!((admin[0].name.as_str(), read[0].name.as_str()), ("grace", "read"));
        assert_eq!(admin[0].token.expose_secret(), "grace-has-a-long-token");
    }

    #[test]
    fn what_would_leave_the_api_open_is_refused_and_no_token_is_told() {
        for (args, told) in [
            (&["--listen", "0.0.0.0:8080"][..], "a token is needed"),
            (&["--listen", "[::]:8080"], "a token is needed"),
            (&["--admin-token", "secret"], "at least 16 characters"),
            (&["--read-token", "secret secret secret"], "one word"),
            (&["--read-token-file", "nowhere.token"], "nowhere.token"),
        ] {
            let message = tokens(args).expect_err("refused").to_string();
            assert!(message.contains(told), "{args:?}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(tokens(&["--listen", "[::1]:8080"]).is_ok());
    }
}
