//! Flags and environment, parsed and validated once. Secrets are wrapped, so that no message can
//! print them.

mod admin;
mod embedder;
mod health;
mod observability;
mod provider;
mod service;
mod traces;
mod work;

use std::path::PathBuf;

use clap::Args;

pub use admin::{AdminArgs, AdminTokens, NamedToken};
pub use embedder::{EmbedderArgs, EmbedderChoice, LOCAL_MODEL};
pub use health::HealthArgs;
pub use observability::ObservabilityArgs;
pub use provider::{CaBundle, Header, Provider, ProviderArgs};
pub use service::{Service, ServiceArgs};
pub use traces::TraceArgs;
pub use work::WorkArgs;

/// A setting that cannot be meant: wrong use, exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error with this sentence, which names the setting and the way out.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Postgres 15 or newer with pgvector [default: the program's own]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", global = true)]
    database_url: Option<String>,

    /// Straight to the server, for migrations and index builds, where --database-url leads through a
    /// transaction pooler [default: --database-url]
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_ADMIN_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        global = true
    )]
    admin_database_url: Option<String>,

    /// Where the program's own Postgres keeps its data [default: root:
    /// `/var/lib/embedding-recovery`; others: `~/.local/share/embedding-recovery`]
    #[arg(long, env = "EMBEDDING_RECOVERY_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Programs of the Postgres to run as its own [default: searched for]
    #[arg(long, env = "EMBEDDING_RECOVERY_POSTGRES_BIN_DIR", value_name = "DIR", global = true)]
    pub postgres_bin_dir: Option<PathBuf>,

    /// Connections at most
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_DATABASE_CONNECTIONS",
        value_name = "CONNECTIONS",
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

    /// The way straight to the user's database, where one was given. An empty variable counts as none.
    pub fn admin_url(&self) -> Option<&str> {
        self.admin_database_url.as_deref().filter(|url| !url.is_empty())
    }
}
