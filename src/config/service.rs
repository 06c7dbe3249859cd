//! Which running service a command asks, and the token that it shows there.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;
use url::Url;

use super::ConfigError;
use super::admin::read_all;

/// Which running service to ask instead of the database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Running service")]
pub struct ServiceArgs {
    /// Ask the service that listens there (`serve --listen`), and leave the database alone
    #[arg(long, env = "EMBEDDING_RECOVERY_ADMIN_URL", value_name = "URL")]
    admin_url: Option<String>,

    /// Token that the service takes; to look, one that may look is enough
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    admin_token: Option<SecretString>,

    /// File that holds the token; of several, the first is shown
    ///
    /// In the variable, files are separated by commas, as for `serve`.
    #[arg(
        long = "admin-token-file",
        env = "EMBEDDING_RECOVERY_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    admin_token_files: Vec<PathBuf>,
}

/// A running service.
#[derive(Debug, Clone)]
pub struct Service {
    /// What its paths are appended to; ends with a slash.
    pub url: Url,
    /// What requests carry.
    pub token: Option<SecretString>,
}

impl ServiceArgs {
    /// The service to ask; `None` where the database is asked. An empty variable counts as none.
    ///
    /// # Errors
    /// An address that is none of HTTP, or a token that cannot be read or be one. The message has
    /// neither the address, which may hold a password, nor a token.
    pub fn service(&self) -> Result<Option<Service>, ConfigError> {
        let Some(address) = self.admin_url.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let tokens = read_all("admin", self.admin_token.as_ref(), &self.admin_token_files)?;
        let token = tokens.into_iter().next().map(|named| named.token);
        Ok(Some(Service { url: base(address)?, token }))
    }
}

fn base(address: &str) -> Result<Url, ConfigError> {
    let wrong = || {
        let expected =
            "expected http://HOST:PORT or https://HOST, as `serve` says where its page is";
        ConfigError::new(format!("--admin-url: {expected}"))
    };
    let mut url = Url::parse(address).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = "--admin-url takes no user and no password; --admin-token-file names a token";
        return Err(ConfigError::new(message));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use secrecy::ExposeSecret;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        service: ServiceArgs,
    }

    fn service(args: &[&str]) -> Result<Option<Service>, ConfigError> {
        let line = [&["test"], args].concat();
        Line::try_parse_from(line).expect("flags").service.service()
    }

    #[test]
    fn an_address_is_what_paths_are_appended_to() {
        assert!(service(&[]).expect("none").is_none());
        assert!(service(&["--admin-url", ""]).expect("none").is_none());
        for (given, base) in [
            ("http://localhost:8080", "http://localhost:8080/"),
            ("https://calls.example/embeddings//?x#y", "https://calls.example/embeddings/"),
        ] {
            let told = service(&["--admin-url", given]).expect("an address").expect("a service");
            assert_eq!(told.url.as_str(), base);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_secret_is_told() {
        for (given, told) in [
            ("localhost:8080", "http://HOST:PORT"),
            ("127.0.0.1:8080", "http://HOST:PORT"),
            ("ftp://secret", "http://HOST:PORT"),
            ("http://ann:secret@localhost", "--admin-token-file"),
        ] {
            let message = service(&["--admin-url", given]).expect_err("refused").to_string();
            assert!(message.contains(told) && !message.contains("secret"), "{given}: {message}");
        }
        let short = ["--admin-url", "http://localhost", "--admin-token", "secret"];
        let message = service(&short).expect_err("too short").to_string();
        assert!(message.contains("at least 16") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn of_the_tokens_of_a_service_that_share_its_variable_the_first_is_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{name}-is-a-long-token\n")).expect("written");
            path.to_string_lossy().into_owned()
        };
        let files = format!("{},{}", file("grace"), file("ann"));
        let told = service(&["--admin-url", "http://localhost", "--admin-token-file", &files]);
        let token = told.expect("a token").expect("a service").token.expect("a token");
        assert_eq!(token.expose_secret(), "grace-is-a-long-token");
    }
}
