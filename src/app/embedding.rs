//! Which embedder the settings choose, and whether it works.

use std::sync::Arc;

use anyhow::Context;

use crate::config::{CaBundle, EmbedderArgs, EmbedderChoice, Header, Provider};
use crate::domain::failure::Failure;
use crate::embedders::local::{self, LocalEmbedder};
use crate::embedders::openai::{OpenAiEmbedder, OpenAiSettings};
use crate::ports::{Embedder, Model};

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
            EmbedderChoice::OpenAi { provider, model, dimensions } => {
                let host = provider.address();
                let settings = openai_settings(args, *provider, &model, dimensions);
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
                        let broken = format!("the embedding API at {host} does not work");
                        return Err(failure).context(broken);
                    }
                };
                let embedder = Arc::new(embedder);
                Ok(Self { embedder, model: Model { name: model, dimensions } })
            }
        }
    }
}

/// The settings of an API, in the words of the adapter.
pub(super) fn openai_settings(
    args: &EmbedderArgs,
    provider: Provider,
    model: &str,
    dimensions: Option<u32>,
) -> OpenAiSettings {
    let Provider { base_url, api_key, api_version, headers, ca } = provider;
    OpenAiSettings {
        api_version,
        headers: headers.into_iter().map(|Header { name, value }| (name, value)).collect(),
        ca: ca.map(|CaBundle { file, pem }| (file, pem)),
        requests_in_flight: args.provider.requests_in_flight.into(),
        dimensions,
        ..OpenAiSettings::new(base_url, api_key, model.to_owned())
    }
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
