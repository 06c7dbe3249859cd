//! Flags and environment, parsed and validated once. Secrets are wrapped, so that no message can
//! print them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use url::Url;

use crate::domain::retry::RetryPolicy;

/// OpenAI's own endpoint (its API reference).
const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// The model used where none is named.
const DEFAULT_MODEL: &str = "text-embedding-3-small";
/// Names the built-in model.
pub const LOCAL_MODEL: &str = "local";

/// A setting that cannot be meant: wrong use, exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// With what is wrong and how to put it right.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Postgres 15 or newer with pgvector; without it, the program runs its own
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", global = true)]
    database_url: Option<String>,

    /// Where the program's own Postgres keeps its data
    #[arg(long, env = "EMBEDDING_RECOVERY_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Programs of the Postgres to run, instead of one that is searched for
    #[arg(long, env = "EMBEDDING_RECOVERY_POSTGRES_BIN_DIR", value_name = "DIR", global = true)]
    pub postgres_bin_dir: Option<PathBuf>,

    /// Connections at most
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(4..=1000),
        global = true
    )]
    pub database_connections: u32,
}

impl DatabaseArgs {
    /// The user's database, `None` for the program's own. An empty variable counts as none.
    pub fn url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }
}

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

    /// Base of an OpenAI-compatible API, up to and with its version
    #[arg(long, env = "OPENAI_BASE_URL", value_name = "URL")]
    openai_base_url: Option<Url>,

    /// API requests in flight at once
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_REQUESTS_IN_FLIGHT",
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub requests_in_flight: u16,
}

/// Who embeds: a provider and its model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbedderArgs {
    /// The provider.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// Model [default: text-embedding-3-small]; `local` is the built-in one, which needs no key
    #[arg(long, env = "EMBEDDING_MODEL", value_name = "NAME")]
    embedding_model: Option<String>,

    /// Length of the vectors; asked of the API where given, learnt from it where not
    #[arg(long, env = "EMBEDDING_DIMENSIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    embedding_dimensions: Option<u32>,
}

/// The embedder that the settings choose.
#[derive(Debug, Clone)]
pub enum EmbedderChoice {
    /// The built-in model.
    Local {
        /// Nobody asked for it: there is neither a key nor a database of the user's.
        fallback: bool,
    },
    /// An OpenAI-compatible API.
    OpenAi {
        /// Base of the API.
        base_url: Url,
        /// Its key; compatible servers may need none.
        api_key: Option<SecretString>,
        /// The model.
        model: String,
        /// Length of the vectors to ask for.
        dimensions: Option<u32>,
    },
}

impl EmbedderArgs {
    /// The same, with a model for where the user names none.
    #[must_use]
    pub fn or_model(&self, name: &str) -> Self {
        let named = self.embedding_model.clone().filter(|name| !name.is_empty());
        Self { embedding_model: named.or_else(|| Some(name.to_owned())), ..self.clone() }
    }

    /// Chooses the embedder. There is no silent downgrade: with a database of the user's, the local
    /// model runs only where it is asked for.
    ///
    /// # Errors
    /// A missing key, a key file that cannot be read, or dimensions asked of the local model.
    pub fn choose(&self, own_database: bool) -> Result<EmbedderChoice, ConfigError> {
        let api_key = self.provider.api_key()?;
        let model = self.embedding_model.as_deref().filter(|name| !name.is_empty());
        let nothing_given =
            api_key.is_none() && self.provider.openai_base_url.is_none() && model.is_none();
        if model == Some(LOCAL_MODEL) || (own_database && nothing_given) {
            if self.embedding_dimensions.is_some() {
                return Err(ConfigError(
                    "EMBEDDING_DIMENSIONS cannot be set for the local model: it has 256".into(),
                ));
            }
            return Ok(EmbedderChoice::Local { fallback: model.is_none() });
        }
        if api_key.is_none() && self.provider.openai_base_url.is_none() {
            return Err(ConfigError(
                "no API key: set OPENAI_API_KEY (or OPENAI_API_KEY_FILE), or OPENAI_BASE_URL for a server \
                 that needs none, or EMBEDDING_MODEL=local for the built-in model"
                    .into(),
            ));
        }
        let base_url = match &self.provider.openai_base_url {
            Some(url) => url.clone(),
            None => OPENAI_BASE_URL
                .parse()
                .map_err(|error| ConfigError(format!("{OPENAI_BASE_URL}: {error}")))?,
        };
        Ok(EmbedderChoice::OpenAi {
            base_url,
            api_key,
            model: model.unwrap_or(DEFAULT_MODEL).to_owned(),
            dimensions: self.embedding_dimensions,
        })
    }
}

impl ProviderArgs {
    fn api_key(&self) -> Result<Option<SecretString>, ConfigError> {
        use secrecy::ExposeSecret;
        if let Some(key) =
            self.openai_api_key.as_ref().filter(|key| !key.expose_secret().is_empty())
        {
            return Ok(Some(key.clone()));
        }
        let Some(file) = &self.openai_api_key_file else { return Ok(None) };
        let key = std::fs::read_to_string(file).map_err(|error| {
            ConfigError(format!("OPENAI_API_KEY_FILE {}: {error}", file.display()))
        })?;
        match key.trim() {
            "" => Err(ConfigError(format!("OPENAI_API_KEY_FILE {} is empty", file.display()))),
            key => Ok(Some(key.into())),
        }
    }
}

/// How hard and how long the service works.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Waits before the retries of a failed recording
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_RETRY_DELAYS",
        value_name = "TIMES",
        default_value = "30s,90s,270s",
        value_delimiter = ',',
        value_parser = humantime::parse_duration
    )]
    retry_delays: Vec<Duration>,

    /// Length of a lease; a dead worker's recordings come back after it
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_LEASE_SECS",
        value_name = "N",
        default_value_t = 120,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    lease_secs: u32,

    /// Recordings worked on at once
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_CLAIM_BATCH",
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub claim_batch: u32,

    /// Rows of the first insert; later ones follow the database's speed
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_INSERT_BATCH",
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub insert_batch: u16,

    /// When the queue is reconciled and polled, as cron in UTC
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_SCHEDULE",
        value_name = "CRON",
        default_value = "*/5 * * * *",
        value_parser = parse_schedule
    )]
    pub schedule: croner::Cron,

    /// A recording that makes no progress for this long is ended
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_STALL_SECS",
        value_name = "N",
        default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(10..=86_400)
    )]
    stall_secs: u32,

    /// Time for recordings in flight to finish when the service is told to stop
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_GRACE_SECS",
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(0..=3_600)
    )]
    grace_secs: u32,
}

fn parse_schedule(text: &str) -> Result<croner::Cron, String> {
    text.parse().map_err(|error| format!("{error}; five fields are expected, such as */5 * * * *"))
}

impl WorkArgs {
    /// When failed tasks are tried again.
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy::new(self.retry_delays.clone())
    }

    /// Length of a lease.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_secs.into())
    }

    /// Time without progress after which a recording is ended.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_secs.into())
    }

    /// Time that recordings in flight get at a stop.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_secs.into())
    }
}
