//! Where the provider is and how patiently it is asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::domain::concurrency::LIMIT_MAX;
use crate::embedders::ceiling::Ceiling;
use crate::telemetry::spans::Provider;

/// Waits before a request that failed for a passing reason is repeated, by default. Longer trouble
/// is for the breaker and the queue.
pub const RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];

/// OpenAI's own.
const OPENAI_HOST: &str = "api.openai.com";
/// Domains of Azure's clouds: the public one, the US government's, and China's.
const AZURE_DOMAINS: [&str; 3] = [".azure.com", ".azure.us", ".azure.cn"];
/// The parameter of a URL by which Azure is told a version of its API.
const API_VERSION: &str = "api-version";

/// Where and how to ask.
#[derive(Clone)]
pub struct OpenAiSettings {
    /// Where the API begins, for example `https://api.openai.com/v1`. A query is kept.
    pub base_url: Url,
    /// Sent as a bearer token, to Azure in the header `api-key`; `None` for a server without keys.
    pub api_key: Option<SecretString>,
    /// Azure's `api-version`; one in the base URL gives way to it.
    pub api_version: Option<String>,
    /// Sent with each request: names, and values that may be secrets.
    pub headers: Vec<(String, SecretString)>,
    /// A PEM file and what it holds: certificates to trust besides the system's.
    pub ca: Option<(PathBuf, Vec<u8>)>,
    /// Name of the model, as the server knows it.
    pub model: String,
    /// Length of the vectors to ask for. Without it the model's own is learnt from the first
    /// answer; every later one must match.
    pub dimensions: Option<u32>,
    /// Requests under way at once, of the whole process, where the provider takes so many. At least 1.
    pub requests_in_flight: usize,
    /// What all replicas together may send.
    pub ceiling: Ceiling,
    /// Time to look up, connect and shake hands.
    pub connect_timeout: Duration,
    /// Time to wait for the next bytes of an answer, the first ones included.
    pub read_timeout: Duration,
    /// Waits before a request that failed for a passing reason is repeated; see [`RETRY_DELAYS`].
    pub retry_delays: Vec<Duration>,
}

/// Settings with which nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiSettingsError {
    /// Not `http` or `https`, or without a host.
    #[error("the provider's base URL must begin with http:// or https://")]
    BaseUrl,
    /// The key cannot stand in a header.
    #[error("the provider's key has a line break or another character that no key has")]
    Key,
    /// A header's name or value has a character that it cannot have.
    #[error("the header {name:?} cannot be sent")]
    Header {
        /// Which.
        name: String,
    },
    /// Two values for one header, the one that the key goes into included.
    #[error("the header {name} has two values (the API key goes into one too): keep one of them")]
    HeaderTwice {
        /// Which.
        name: String,
    },
    /// A file of certificates that holds none, or broken ones.
    #[error("the certificates in {} cannot be used: {problem}", file.display())]
    CaFile {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No request could ever be sent.
    #[error("at least one request must be allowed in flight")]
    RequestsInFlight,
    /// The HTTP client cannot start, for example because the host has no root certificates.
    #[error("cannot start the HTTP client: {0}")]
    Client(String),
}

impl OpenAiSettings {
    /// Settings with the usual patience: connecting takes 10 s at most, and a large request may be
    /// worked on for a minute before its first byte comes.
    pub fn new(base_url: Url, api_key: Option<SecretString>, model: String) -> Self {
        Self {
            base_url,
            api_key,
            api_version: None,
            headers: Vec::new(),
            ca: None,
            model,
            dimensions: None,
            requests_in_flight: LIMIT_MAX.into(),
            ceiling: Ceiling::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            retry_delays: RETRY_DELAYS.to_vec(),
        }
    }

    /// Where requests are sent.
    ///
    /// # Errors
    /// [`OpenAiSettingsError::BaseUrl`].
    pub(super) fn embeddings_url(&self) -> Result<Url, OpenAiSettingsError> {
        let mut url = self.base_url.clone();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(OpenAiSettingsError::BaseUrl);
        }
        url.path_segments_mut()
            .map_err(|()| OpenAiSettingsError::BaseUrl)?
            .pop_if_empty()
            .push("embeddings");
        if let Some(version) = &self.api_version {
            let others: Vec<(String, String)> =
                url.query_pairs().into_owned().filter(|(name, _)| name != API_VERSION).collect();
            url.query_pairs_mut().clear().extend_pairs(others).append_pair(API_VERSION, version);
        }
        Ok(url)
    }

    /// Whether the provider is Azure, which takes its key in a header of its own. A gateway before
    /// it is told by the version that it is asked for.
    pub(super) fn is_azure(&self) -> bool {
        let host = self.base_url.host_str().unwrap_or_default();
        self.api_version.is_some()
            || self.base_url.query_pairs().any(|(name, _)| name == API_VERSION)
            || AZURE_DOMAINS.iter().any(|domain| host.ends_with(domain))
    }

    /// Who the provider is, in the words of OpenTelemetry's conventions (`gen_ai.provider.name`); of
    /// one that they do not know, its host.
    pub(super) fn provider_name(&self) -> &str {
        match self.base_url.host_str().unwrap_or_default() {
            _ if self.is_azure() => "azure.ai.openai",
            OPENAI_HOST => "openai",
            host => host,
        }
    }

    /// Who is asked, as spans tell it.
    pub fn provider(&self) -> Provider {
        let host = self.base_url.host_str().unwrap_or_default().to_owned();
        let server = Some((host, self.base_url.port_or_known_default()));
        Provider { name: self.provider_name().to_owned(), model: self.model.clone(), server }
    }

    /// What no message may repeat: the key and the headers' values.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let headers = self.headers.iter().map(|(_, value)| value);
        self.api_key.iter().chain(headers).map(|secret| secret.expose_secret()).collect()
    }

    /// Whether the provider is on this host.
    pub(super) fn is_loopback(&self) -> bool {
        match self.base_url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

impl fmt::Debug for OpenAiSettings {
    /// Without the key and the headers' values, and without those that may stand in the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiSettings")
            .field("host", &self.base_url.host_str())
            .field("path", &self.base_url.path())
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("api_version", &self.api_version)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("ca", &self.ca.as_ref().map(|(file, _)| file))
            .field("model", &self.model)
            .field("dimensions", &self.dimensions)
            .field("requests_in_flight", &self.requests_in_flight)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("retry_delays", &self.retry_delays)
            .finish()
    }
}
