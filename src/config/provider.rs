//! How the embedding API is reached: its address, the key, and what a gateway, a cloud or a company's
//! network wants besides.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::ConfigError;
use crate::domain::concurrency::LIMIT_MAX;

/// OpenAI's own endpoint (its API reference).
const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// Headers that the program writes itself: another value would break the request.
const OWN_HEADERS: [&str; 6] =
    ["connection", "content-length", "content-type", "host", "te", "transfer-encoding"];
/// How a certificate begins in a PEM file (RFC 7468).
const PEM_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Which provider embeds, and how it is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct ProviderArgs {
    /// Key of the API
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY")]
    openai_api_key: Option<SecretString>,

    /// File that holds the key, for secrets that are mounted
    #[arg(long, env = "OPENAI_API_KEY_FILE", value_name = "FILE")]
    openai_api_key_file: Option<PathBuf>,

    /// Base of an OpenAI-compatible API, up to and with its version [default:
    /// `https://api.openai.com/v1`]
    #[arg(long, env = "OPENAI_BASE_URL", hide_env_values = true, value_name = "URL")]
    openai_base_url: Option<Url>,

    /// Version to ask Azure for, as `?api-version=`; the key then goes into the header `api-key`
    ///
    /// The key goes there too where the host ends in azure.com, azure.us or azure.cn, or where the
    /// base URL has an api-version. Azure's newer endpoint, …/openai/v1, needs no version.
    #[arg(long, env = "OPENAI_API_VERSION", value_name = "VERSION")]
    openai_api_version: Option<String>,

    /// Header to send with each request, as `Name: value`; may be given several times
    ///
    /// In the variable, one header a line.
    #[arg(
        long = "openai-header",
        env = "OPENAI_HEADERS",
        hide_env_values = true,
        value_name = "HEADER",
        value_delimiter = '\n'
    )]
    openai_headers: Vec<SecretString>,

    /// Certificates (PEM) to trust besides the system's, for a company's own authority
    #[arg(long, env = "OPENAI_CA_FILE", value_name = "FILE")]
    openai_ca_file: Option<PathBuf>,

    /// API requests in flight at most
    ///
    /// How many there are within this bound follows how the API answers: more while it is quick, half
    /// as many when it slows down, refuses or fails.
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_REQUESTS_IN_FLIGHT",
        value_name = "REQUESTS",
        default_value_t = LIMIT_MAX,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub requests_in_flight: u16,

    /// Requests a minute at most, all replicas together [default: no bound of one's own]
    ///
    /// Divided by the number of replicas that are alive, and sent evenly.
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_REQUESTS_PER_MINUTE",
        value_name = "REQUESTS",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub requests_per_minute: Option<u32>,

    /// Tokens a minute at most, all replicas together [default: no bound of one's own]
    ///
    /// Estimated as bytes / 4, divided by the number of replicas that are alive, and sent evenly.
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_TOKENS_PER_MINUTE",
        value_name = "TOKENS",
        value_parser = clap::value_parser!(u32).range(1_000..)
    )]
    pub tokens_per_minute: Option<u32>,
}

/// An API and how it is reached.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Base of the API.
    pub base_url: Url,
    /// Its key; compatible servers may need none.
    pub api_key: Option<SecretString>,
    /// Azure's `api-version`.
    pub api_version: Option<String>,
    /// Sent with each request.
    pub headers: Vec<Header>,
    /// Trusted besides the system's certificates.
    pub ca: Option<CaBundle>,
}

impl Provider {
    /// Host, and port where it is not the usual one, for messages: a whole URL may hold secrets.
    pub fn address(&self) -> String {
        let host = self.base_url.host_str().unwrap_or_default();
        match self.base_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// A header of the user's.
#[derive(Debug, Clone)]
pub struct Header {
    /// As it was given.
    pub name: String,
    /// Often a secret.
    pub value: SecretString,
}

/// Certificates of authorities.
#[derive(Debug, Clone)]
pub struct CaBundle {
    /// Where they are from.
    pub file: PathBuf,
    /// One or more, in PEM.
    pub pem: Vec<u8>,
}

impl ProviderArgs {
    /// Reads the files that are named. `None` where neither a key nor an address is given.
    ///
    /// # Errors
    /// A file that cannot be read or has the wrong content, or a header that cannot be sent. The
    /// message has no value of a secret.
    pub(super) fn read(&self) -> Result<Option<Provider>, ConfigError> {
        let api_key = self.api_key()?;
        let (headers, ca) = (self.headers()?, self.ca()?);
        let base_url = match &self.openai_base_url {
            Some(url) => url.clone(),
            None if api_key.is_none() => return Ok(None),
            None => OPENAI_BASE_URL
                .parse()
                .map_err(|error| ConfigError(format!("{OPENAI_BASE_URL}: {error}")))?,
        };
        let api_version = self.openai_api_version.clone().filter(|version| !version.is_empty());
        Ok(Some(Provider { base_url, api_key, api_version, headers, ca }))
    }

    fn api_key(&self) -> Result<Option<SecretString>, ConfigError> {
        if let Some(key) =
            self.openai_api_key.as_ref().filter(|key| !key.expose_secret().is_empty())
        {
            return Ok(Some(key.clone()));
        }
        let Some(file) = given(&self.openai_api_key_file) else { return Ok(None) };
        let key = fs::read_to_string(file).map_err(|error| {
            ConfigError(format!("OPENAI_API_KEY_FILE {}: {error}", file.display()))
        })?;
        match key.trim() {
            "" => Err(ConfigError(format!("OPENAI_API_KEY_FILE {} is empty", file.display()))),
            key => Ok(Some(key.into())),
        }
    }

    fn headers(&self) -> Result<Vec<Header>, ConfigError> {
        let lines = self.openai_headers.iter().map(|line| line.expose_secret().trim());
        lines.filter(|line| !line.is_empty()).map(header).collect()
    }

    fn ca(&self) -> Result<Option<CaBundle>, ConfigError> {
        let Some(file) = given(&self.openai_ca_file) else { return Ok(None) };
        let failed =
            |problem: String| ConfigError(format!("OPENAI_CA_FILE {}: {problem}", file.display()));
        let pem = fs::read(file).map_err(|error| failed(error.to_string()))?;
        if !String::from_utf8_lossy(&pem).contains(PEM_CERTIFICATE) {
            return Err(failed(format!("has no certificate in PEM ({PEM_CERTIFICATE})")));
        }
        Ok(Some(CaBundle { file: file.to_owned(), pem }))
    }
}

/// A variable that is set but empty counts as none, as it does for the others.
fn given(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Reads `Name: value`. A name is a token of RFC 9110, a value has visible characters and spaces.
fn header(line: &str) -> Result<Header, ConfigError> {
    let wrong = |problem: String| Err(ConfigError(format!("OPENAI_HEADERS: {problem}")));
    let Some((name, value)) = line.split_once(':') else {
        return wrong("a header without a colon; `Name: value` is expected, one a line".into());
    };
    let (name, value) = (name.trim(), value.trim());
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        // Not repeated: what stands before a colon by mistake may be the secret.
        return wrong("what stands before the colon cannot be a header's name".into());
    }
    if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return wrong(format!("{name} is written by the program itself and cannot be set"));
    }
    if value.is_empty() || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return wrong(format!(
            "the value of {name} is empty or has a character no header may have"
        ));
    }
    Ok(Header { name: name.to_owned(), value: value.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        header(line).expect_err("refused").to_string()
    }

    #[test]
    fn a_header_is_named_when_it_is_refused_and_its_value_is_not_told() {
        for (line, told) in [
            ("secret-without-colon", "without a colon"),
            ("two words: secret", "cannot be a header's name"),
            (": secret", "cannot be a header's name"),
            ("X-Team:", "X-Team is empty"),
            ("X-Team: se\u{7}cret", "X-Team is empty or has a character"),
            ("X-Team: sécret", "X-Team is empty or has a character"),
            ("Content-Type: secret", "Content-Type is written by the program itself"),
            ("HOST: secret", "HOST is written by the program itself"),
        ] {
            let message = refused(line);
            assert!(message.contains(told), "{line}: {message}");
            assert!(!message.contains("cret"), "{message}");
        }
    }

    #[test]
    fn the_value_of_a_header_may_have_colons_and_commas() {
        let read = header("x-routing:  a:1, b:2 ").expect("a header");
        assert_eq!((read.name.as_str(), read.value.expose_secret()), ("x-routing", "a:1, b:2"));
        assert!(!format!("{read:?}").contains("a:1"), "a value is printed");
    }
}
