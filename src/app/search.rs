//! A question to what is stored: its vector from the model that everything there is made with, then
//! one statement.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::Database;
use super::embedding::{openai_settings, settings_of, with_way_out};
use crate::config::{EmbedderArgs, EmbedderChoice, LOCAL_MODEL};
use crate::domain::checkup::IndexState;
use crate::domain::failure::Failure;
use crate::embedders::local::{self, LocalEmbedder};
use crate::embedders::openai::OpenAiEmbedder;
use crate::ports::{Embedder, Model};
use crate::postgres::{Hit, ModelError, ModelState, SearchRequest, StoredModel};

/// Time that the embedding of a question may take: somebody waits for it.
const EMBEDDING_TIMEOUT: Duration = Duration::from_secs(20);

const NOTHING_YET: &str = "nothing is embedded yet: store calls with `embedding-recovery import FILE`, \
     then run `embedding-recovery serve --exit-when-idle`";

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Why words alone were searched, where the question could not be embedded.
    pub words_only: Option<Failure>,
    /// The vectors have no valid index now, so that each of them was looked at.
    pub exact_scan: bool,
}

/// Embeds the request's text and searches. An API that does not answer is no reason to find nothing:
/// then words alone are searched, and the answer says so.
///
/// # Errors
/// Nothing is embedded yet, the settings choose no embedder or another model than the database's, or
/// the database fails.
pub async fn search(
    database: &Database,
    args: &EmbedderArgs,
    request: &SearchRequest,
) -> anyhow::Result<Found> {
    let store = &database.store;
    loop {
        let models = store.models().await?;
        let current = models.iter().find(|stored| stored.state == ModelState::Current);
        let Some(stored) = current else { bail!(NOTHING_YET) };
        let embedder = for_question(args, database.is_own(), &models, stored)?;
        let dimensions = stored.model.dimensions;
        let (embedding, words_only) = match embed(&*embedder, &request.text).await {
            Ok(vector) if vector.len() == dimensions as usize => (Some(vector), None),
            Ok(vector) => {
                let name = stored.provider_name.clone();
                let asked = Model { name, dimensions: vector.len() as u32 };
                return Err(with_way_out(ModelError::Changed { stored: stored.clone(), asked }));
            }
            Err(failure) => (None, Some(failure)),
        };
        let hits = store.search(&SearchRequest { embedding, ..request.clone() }).await?;
        // Where the model was changed meanwhile, the vector was compared with nothing.
        if store.stored_model().await?.as_ref() != Some(&stored.model) {
            continue;
        }
        if hits.is_empty() && !store.has_searchable_chunks().await? {
            bail!(NOTHING_YET);
        }
        let index = store.index_state(&stored.model).await?;
        let exact_scan = !matches!(index, IndexState::Valid | IndexState::Impossible);
        return Ok(Found { hits, words_only, exact_scan });
    }
}

async fn embed(embedder: &dyn Embedder, text: &str) -> Result<Vec<f32>, Failure> {
    let inputs = [text.to_owned()];
    let embedded = tokio::time::timeout(EMBEDDING_TIMEOUT, embedder.embed(&inputs)).await;
    let embedded = embedded.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", EMBEDDING_TIMEOUT.as_secs());
        Err(Failure::ProviderUnavailable { message })
    })?;
    embedded
        .vectors
        .into_iter()
        .next()
        .ok_or_else(|| Failure::BadAnswer { message: "no vector came back".into() })
}

/// The embedder for a question, not asked yet: the question itself will tell whether it works. The
/// `current` model is the default, and is taken in the place of one that it replaced; another one is
/// refused.
fn for_question(
    args: &EmbedderArgs,
    own_database: bool,
    models: &[StoredModel],
    current: &StoredModel,
) -> anyhow::Result<Arc<dyn Embedder>> {
    let default = match current.provider_name.as_str() {
        local::STORED_MODEL => LOCAL_MODEL,
        name => name,
    };
    let known = current.model.dimensions;
    let (embedder, asked): (Arc<dyn Embedder>, Model) =
        match args.or_model(default).choose(own_database)? {
            EmbedderChoice::Local { .. } => {
                let dimensions = local::DIMENSIONS as u32;
                let model = Model { name: local::STORED_MODEL.into(), dimensions };
                (Arc::new(LocalEmbedder::load()?), model)
            }
            EmbedderChoice::OpenAi { provider, model, dimensions } => {
                // Asked for where the same model is stored in another length than its own.
                let asked = dimensions.or_else(|| (current.model.name != model).then_some(known));
                let settings = openai_settings(args, *provider, &model, asked);
                let model = Model { name: model, dimensions: dimensions.unwrap_or(known) };
                (Arc::new(OpenAiEmbedder::new(settings)?), model)
            }
        };
    if current.is(&asked) {
        return Ok(embedder);
    }
    let replaced = ModelState::Retired { replaced: true };
    if models.iter().any(|stored| stored.provider_name == asked.name && stored.state == replaced) {
        tracing::warn!("this database went over to another model: set {}", settings_of(current));
        let dimensions = (default != LOCAL_MODEL).then_some(known);
        let provider = args.provider.clone();
        let args = EmbedderArgs::of_model(provider, default.to_owned(), dimensions);
        return for_question(&args, own_database, &[], current);
    }
    Err(with_way_out(ModelError::Changed { stored: current.clone(), asked }))
}
