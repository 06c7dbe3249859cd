//! Which embedder the settings choose, and whether it works.

use std::sync::Arc;

use anyhow::Context;

use crate::config::{EmbedderArgs, EmbedderChoice, LOCAL_MODEL};
use crate::domain::failure::Failure;
use crate::embedders::local::{self, LocalEmbedder};
use crate::embedders::openai::{OpenAiEmbedder, OpenAiSettings};
use crate::ports::{Embedder, Model};
use crate::postgres::ModelError;

/// An embedder and the model that it speaks for.
pub struct Embedding {
    /// Turns texts into vectors.
    pub embedder: Arc<dyn Embedder>,
    /// What its vectors are stored under.
    pub model: Model,
}

impl Embedding {
    /// Builds the chosen embedder and asks it for one vector: a wrong key, model or dimension shows
    /// here, before anything is written.
    ///
    /// `known_dimensions` are those of the vectors stored already: with them a service can start
    /// while the API is down.
    ///
    /// # Errors
    /// The settings choose none, or what they choose does not answer.
    pub async fn choose(
        args: &EmbedderArgs,
        own_database: bool,
        known_dimensions: Option<u32>,
    ) -> anyhow::Result<Self> {
        match args.choose(own_database)? {
            EmbedderChoice::Local { fallback } => {
                if fallback {
                    tracing::info!(
                        "no API key: embedding with the built-in local model, which is for trying things out"
                    );
                }
                let embedder = Arc::new(LocalEmbedder::load()?);
                let dimensions = local::DIMENSIONS as u32;
                Ok(Self { embedder, model: Model { name: local::STORED_MODEL.into(), dimensions } })
            }
            EmbedderChoice::OpenAi { base_url, api_key, model, dimensions } => {
                let settings = OpenAiSettings {
                    requests_in_flight: args.provider.requests_in_flight.into(),
                    dimensions,
                    ..OpenAiSettings::new(base_url.clone(), api_key, model.clone())
                };
                let embedder = OpenAiEmbedder::new(settings.clone())?;
                let (embedder, dimensions) = match (embedder.probe().await, known_dimensions) {
                    (Ok(probed), _) => {
                        (embedder, probed.vectors.first().map_or(0, Vec::len) as u32)
                    }
                    (Err(failure), Some(known)) if may_start_without(&failure) => {
                        tracing::warn!(error = %failure, "the embedding API does not work yet");
                        // Nothing was learnt from it, so it is asked for what is stored.
                        let dimensions = Some(dimensions.unwrap_or(known));
                        (OpenAiEmbedder::new(OpenAiSettings { dimensions, ..settings })?, known)
                    }
                    (Err(failure), _) => {
                        let broken = format!("the embedding API at {base_url} does not work");
                        return Err(failure).context(broken);
                    }
                };
                let embedder = Arc::new(embedder);
                Ok(Self { embedder, model: Model { name: model, dimensions } })
            }
        }
    }
}

/// The embedder for a question to a database of `stored` vectors, not asked yet: the question itself
/// will tell whether it works. The stored model is the default; another one is refused.
///
/// # Errors
/// The settings choose none, or another model.
pub(super) fn for_question(
    args: &EmbedderArgs,
    own_database: bool,
    stored: &Model,
) -> anyhow::Result<Arc<dyn Embedder>> {
    let default = match stored.name.as_str() {
        local::STORED_MODEL => LOCAL_MODEL,
        name => name,
    };
    let (embedder, asked): (Arc<dyn Embedder>, Model) =
        match args.or_model(default).choose(own_database)? {
            EmbedderChoice::Local { .. } => {
                let dimensions = local::DIMENSIONS as u32;
                let model = Model { name: local::STORED_MODEL.into(), dimensions };
                (Arc::new(LocalEmbedder::load()?), model)
            }
            EmbedderChoice::OpenAi { base_url, api_key, model, dimensions } => {
                let settings = OpenAiSettings {
                    dimensions,
                    ..OpenAiSettings::new(base_url, api_key, model.clone())
                };
                let dimensions = dimensions.unwrap_or(stored.dimensions);
                (Arc::new(OpenAiEmbedder::new(settings)?), Model { name: model, dimensions })
            }
        };
    match asked == *stored {
        true => Ok(embedder),
        false => Err(with_way_out(ModelError::Changed { stored: stored.clone(), asked })),
    }
}

/// Says how to go on with the model that is stored.
pub(super) fn with_way_out(error: ModelError) -> anyhow::Error {
    let ModelError::Changed { stored, .. } = &error else { return error.into() };
    let settings = match stored.name.as_str() {
        local::STORED_MODEL => format!("EMBEDDING_MODEL={LOCAL_MODEL}"),
        name => format!("EMBEDDING_MODEL={name} and EMBEDDING_DIMENSIONS={}", stored.dimensions),
    };
    anyhow::anyhow!("{error}. Set {settings}, or use another database")
}

/// A service may start while the provider is down; a wrong key or model is told at once.
fn may_start_without(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::ProviderUnavailable { .. }
            | Failure::RateLimited { .. }
            | Failure::QuotaExhausted { .. }
    )
}
