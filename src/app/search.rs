//! A question to what is stored: its vector from the model that everything there is made with, then
//! one statement.

use std::time::Duration;

use anyhow::bail;

use super::{Database, embedding};
use crate::config::EmbedderArgs;
use crate::domain::failure::Failure;
use crate::ports::{Embedder, Model};
use crate::postgres::{Hit, ModelError, SearchRequest};

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
        let Some(stored) = store.stored_model().await? else { bail!(NOTHING_YET) };
        let embedder = embedding::for_question(args, database.is_own(), &stored)?;
        let (embedding, words_only) = match embed(&*embedder, &request.text).await {
            Ok(vector) if vector.len() == stored.dimensions as usize => (Some(vector), None),
            Ok(vector) => {
                let asked = Model { name: stored.name.clone(), dimensions: vector.len() as u32 };
                return Err(embedding::with_way_out(ModelError::Changed { stored, asked }));
            }
            Err(failure) => (None, Some(failure)),
        };
        let hits = store.search(&SearchRequest { embedding, ..request.clone() }).await?;
        // Where the model was changed meanwhile, the vector was compared with nothing.
        if store.stored_model().await?.as_ref() != Some(&stored) {
            continue;
        }
        if hits.is_empty() && !store.has_searchable_chunks().await? {
            bail!(NOTHING_YET);
        }
        return Ok(Found { hits, words_only });
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
