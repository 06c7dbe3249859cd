//! Who embeds: the built-in model, or a provider and one of its models.

use clap::Args;

use super::ConfigError;
use super::provider::{Provider, ProviderArgs};

/// The model used where none is named.
const DEFAULT_MODEL: &str = "text-embedding-3-small";
/// Names the built-in model.
pub const LOCAL_MODEL: &str = "local";

/// Who embeds: a provider and its model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbedderArgs {
    /// The provider.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// Model [default: `text-embedding-3-small`]; `local` is the built-in one, which needs no key
    #[arg(long, env = "EMBEDDING_MODEL", value_name = "NAME")]
    embedding_model: Option<String>,

    /// Length of the vectors [default: the model's own]; where given, the API is asked for it
    #[arg(long, env = "EMBEDDING_DIMENSIONS", value_name = "NUMBERS", value_parser = clap::value_parser!(u32).range(1..=16_000))]
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
        /// Where it is and how it is reached.
        provider: Box<Provider>,
        /// The model.
        model: String,
        /// Length of the vectors to ask for.
        dimensions: Option<u32>,
    },
}

impl EmbedderArgs {
    /// A model of a provider, whatever the environment says of models. `local` is the built-in one.
    pub fn of_model(provider: ProviderArgs, model: String, dimensions: Option<u32>) -> Self {
        Self { provider, embedding_model: Some(model), embedding_dimensions: dimensions }
    }

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
    /// A missing key, a file that cannot be read, a header that cannot be sent, or dimensions asked
    /// of the local model.
    pub fn choose(&self, own_database: bool) -> Result<EmbedderChoice, ConfigError> {
        let provider = self.provider.read()?;
        let model = self.embedding_model.as_deref().filter(|name| !name.is_empty());
        let nothing_given = provider.is_none() && model.is_none();
        if model == Some(LOCAL_MODEL) || (own_database && nothing_given) {
            if self.embedding_dimensions.is_some() {
                return Err(ConfigError(
                    "EMBEDDING_DIMENSIONS cannot be set for the local model: it has 256".into(),
                ));
            }
            return Ok(EmbedderChoice::Local { fallback: model.is_none() });
        }
        let Some(provider) = provider else {
            return Err(ConfigError(
                "no API key: set OPENAI_API_KEY (or OPENAI_API_KEY_FILE), or OPENAI_BASE_URL for a server \
                 that needs none, or EMBEDDING_MODEL=local for the built-in model"
                    .into(),
            ));
        };
        Ok(EmbedderChoice::OpenAi {
            provider: Box::new(provider),
            model: model.unwrap_or(DEFAULT_MODEL).to_owned(),
            dimensions: self.embedding_dimensions,
        })
    }
}
