//! Which embedder the settings choose, and whether it works.

use std::sync::Arc;

use anyhow::Context;

use super::Database;
use crate::config::{CaBundle, EmbedderArgs, EmbedderChoice, Header, LOCAL_MODEL, Provider};
use crate::domain::failure::Failure;
use crate::embedders::local::{self, LocalEmbedder};
use crate::embedders::openai::{Ceiling, OpenAiEmbedder, OpenAiSettings};
use crate::embedders::traced::TracedEmbedder;
use crate::ports::{Embedder, Model};
use crate::postgres::{ModelError, ModelInUse, ModelState, StoredModel};

/// An embedder and the model that it speaks for.
pub struct Embedding {
    /// Turns texts into vectors.
    pub embedder: Arc<dyn Embedder>,
    /// The model, under the name by which the provider knows it.
    pub model: Model,
    /// Requests that may be in flight at most.
    pub requests_in_flight: usize,
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
        let requests_in_flight = args.provider.requests_in_flight.into();
        match args.choose(own_database)? {
            EmbedderChoice::Local { fallback } => {
                if fallback {
                    tracing::info!(
                        "no API key: embedding with the built-in local model, which is for trying things out"
                    );
                }
                let embedder = Arc::new(LocalEmbedder::load()?);
                let embedder = Arc::new(TracedEmbedder::new(embedder, LocalEmbedder::provider()));
                let dimensions = local::DIMENSIONS as u32;
                let model = Model { name: local::STORED_MODEL.into(), dimensions };
                Ok(Self { embedder, model, requests_in_flight })
            }
            EmbedderChoice::OpenAi { provider, model, dimensions } => {
                let host = provider.address();
                let settings = openai_settings(args, *provider, &model, dimensions);
                let provider = settings.provider();
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
                let embedder = Arc::new(TracedEmbedder::new(Arc::new(embedder), provider));
                Ok(Self { embedder, model: Model { name: model, dimensions }, requests_in_flight })
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
        ceiling: Ceiling {
            requests_per_minute: args.provider.requests_per_minute,
            tokens_per_minute: args.provider.tokens_per_minute,
        },
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

/// The embedder of a worker, and the model that it works for. Settings that name a model which
/// another one replaced are followed with a warning. Nothing is written before the embedder has
/// answered and its model fits what is stored.
///
/// With `patient`, a worker may start while the API is down.
///
/// # Errors
/// The settings choose no embedder, it does not answer, or the database is on another model.
pub async fn embedding_of_worker(
    database: &Database,
    args: &EmbedderArgs,
    patient: bool,
) -> anyhow::Result<(Embedding, ModelInUse)> {
    let models = database.store.models().await?;
    let (name, dimensions) = match args.choose(database.is_own())? {
        EmbedderChoice::Local { .. } => (local::STORED_MODEL.to_owned(), None),
        EmbedderChoice::OpenAi { model, dimensions, .. } => (model, dimensions),
    };
    let named: Vec<&StoredModel> = models
        .iter()
        .filter(|stored| stored.provider_name == name)
        .filter(|stored| dimensions.is_none_or(|asked| asked == stored.model.dimensions))
        .collect();
    let live = named.iter().copied().find(|stored| !is_retired(stored));
    let current = models.iter().find(|stored| stored.state == ModelState::Current);
    let replaced = ModelState::Retired { replaced: true };
    if let (None, Some(current)) = (live, current)
        && named.iter().any(|stored| stored.state == replaced)
    {
        // The provider may not even have the old one any more.
        return follow(database, args, current, patient).await;
    }
    let known = live.or(current).filter(|_| patient).map(|stored| stored.model.dimensions);
    let embedding = Embedding::choose(args, database.is_own(), known).await?;
    match database.store.use_model(&embedding.model).await {
        Ok(in_use) => Ok((embedding, in_use)),
        Err(ModelError::Replaced { current, .. }) => {
            follow(database, args, &current, patient).await
        }
        Err(error) => Err(with_way_out(error)),
    }
}

fn is_retired(stored: &StoredModel) -> bool {
    matches!(stored.state, ModelState::Retired { .. })
}

async fn follow(
    database: &Database,
    args: &EmbedderArgs,
    current: &StoredModel,
    patient: bool,
) -> anyhow::Result<(Embedding, ModelInUse)> {
    let settings = settings_of(current);
    tracing::warn!(
        model = current.provider_name,
        dimensions = current.model.dimensions,
        "this database went over to another model, and this service follows it: set {settings}"
    );
    let (model, asked) = match current.provider_name.as_str() {
        local::STORED_MODEL => (LOCAL_MODEL, None),
        name => (name, Some(current.model.dimensions)),
    };
    let args = EmbedderArgs::of_model(args.provider.clone(), model.to_owned(), asked);
    let known = Some(current.model.dimensions).filter(|_| patient);
    let embedding =
        Embedding::choose(&args, database.is_own(), known).await.with_context(|| {
            format!("this database went over to another model; set {settings} and what it needs")
        })?;
    let in_use = database.store.use_model(&embedding.model).await.map_err(with_way_out)?;
    Ok((embedding, in_use))
}

/// The settings that choose a model.
pub(super) fn settings_of(stored: &StoredModel) -> String {
    match stored.provider_name.as_str() {
        local::STORED_MODEL => format!("EMBEDDING_MODEL={LOCAL_MODEL}"),
        name => {
            let dimensions = stored.model.dimensions;
            format!("EMBEDDING_MODEL={name} and EMBEDDING_DIMENSIONS={dimensions}")
        }
    }
}

/// Says how to go on with the model that is stored, or how to change it.
pub(super) fn with_way_out(error: ModelError) -> anyhow::Error {
    match &error {
        ModelError::Changed { stored: current, .. } | ModelError::Replaced { current, .. } => {
            let settings = settings_of(current);
            anyhow::anyhow!(
                "{error}. Set {settings}, change the model with `embedding-recovery reembed`, or use \
                 another database"
            )
        }
        ModelError::Forbidden { .. } | ModelError::Database(_) => error.into(),
    }
}
