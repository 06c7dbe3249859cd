//! The next model beside the current one: what can be asked of the database about it. How far it is
//! is in `reembedding_progress`, the swap in `model_swap`.

use chrono::{DateTime, Utc};

use super::connection::Session;
use super::embedding_models::{self, ModelState, StoredModel};
use super::reembedding_progress::{Estimate, Progress};
use super::{PgStore, model_swap, reembedding_progress, schema, vector_indexes};
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::ports::Model;

/// Dead letters that are listed: enough to see, few enough to read.
const DEAD_LETTERS_MAX: i64 = 100;

/// Why a re-embedding cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ReembedError {
    /// There is nothing to change from.
    #[error("nothing was embedded yet: `serve` begins with the model that you set")]
    NothingStored,
    /// The model is the current one.
    #[error(
        "search is on {} with {} dimensions already: nothing to do",
        .0.provider_name, .0.model.dimensions
    )]
    Same(StoredModel),
    /// Another model is on its way.
    #[error(
        "a re-embedding with {} ({} dimensions) is under way: let it finish, or give it up with \
         `embedding-recovery reembed --cancel`",
        .0.provider_name, .0.model.dimensions
    )]
    OtherRunning(StoredModel),
    /// The role could embed for days, and then not build the index.
    #[error(
        "only the owner of transcript_chunks can build the index of the new model: run this as the \
         role that migrated"
    )]
    NotOwner,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// So it did.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A recording that the model failed on for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The recording.
    pub key: RecordingKey,
    /// Why.
    pub reason: String,
}

impl PgStore {
    /// What a re-embedding with a model, as the provider knows it, would be. Changes nothing.
    ///
    /// # Errors
    /// It could not begin, see [`ReembedError`].
    pub async fn estimate_reembedding(&self, asked: &Model) -> Result<Estimate, ReembedError> {
        let mut connection = self.pool.acquire().await?;
        let (from, to) = allowed(&mut connection, asked).await?;
        drop(connection);
        Ok(reembedding_progress::estimate(&self.pool, from, to.as_ref()).await?)
    }

    /// Makes a model, as the provider knows it, the next one, or joins where it is already.
    /// Whoever works for it finds its tasks by reconciling.
    ///
    /// # Errors
    /// See [`ReembedError`].
    pub async fn begin_reembedding(&self, asked: &Model) -> Result<StoredModel, ReembedError> {
        let mut transaction = self.pool.begin().await?;
        embedding_models::lock(&mut transaction).await?;
        let (_, found) = allowed(&mut transaction, asked).await?;
        let begun = match found {
            Some(next) if next.state == ModelState::Next => next,
            found => register_next(&mut transaction, asked, found).await?,
        };
        transaction.commit().await?;
        Ok(begun)
    }

    /// How far the re-embedding with the model of this stored name is. `None` where it is unknown.
    ///
    /// # Errors
    /// The database's.
    pub async fn reembedding(
        &self,
        model_name: &str,
        asked_before: DateTime<Utc>,
    ) -> Result<Option<Progress>, Failure> {
        reembedding_progress::progress(&self.pool, model_name, asked_before).await
    }

    /// The dead letters of a model that keep it from taking over, the first hundred.
    ///
    /// # Errors
    /// The database's.
    pub async fn reembedding_dead_letters(
        &self,
        model_name: &str,
    ) -> Result<Vec<DeadLetter>, Failure> {
        let letters = sqlx::query!(
            r#"select q.user_id, q.recording_id, q.dead_letter_reason as "reason!"
               from reembedding_missing m
               join embedding_queue q on q.user_id = m.user_id and q.recording_id = m.recording_id
               where q.for_model = $1 and q.status = 'dead_letter'
               order by q.user_id, q.recording_id limit $2"#,
            model_name,
            DEAD_LETTERS_MAX
        )
        .map(|row| DeadLetter {
            key: RecordingKey { user_id: row.user_id, recording_id: row.recording_id },
            reason: row.reason,
        })
        .fetch_all(&self.pool)
        .await?;
        Ok(letters)
    }

    /// Builds the index of a model whose vectors are there. False where it can have none.
    ///
    /// # Errors
    /// The database's.
    pub async fn build_index(&self, model: &Model) -> Result<bool, Failure> {
        let mut connection = self.pool.direct().await?;
        schema::lock(&mut connection).await?;
        let indexed = vector_indexes::ensure_index(&mut connection, model).await;
        connection.close().await?;
        Ok(indexed?)
    }

    /// All recordings change over to the next model at once. False, and nothing has changed, where
    /// it is not the next one any more or where search would lose a recording; `leave_dead` lets go
    /// of those that are its dead letters.
    ///
    /// # Errors
    /// The database's; [`Failure::DatabaseUnavailable`] too where long transactions of others are
    /// in the way: try again.
    pub async fn swap_models(&self, next_name: &str, leave_dead: bool) -> Result<bool, Failure> {
        model_swap::swap(&self.pool, next_name, leave_dead).await
    }

    /// Gives the next model up. `None` where there is none.
    ///
    /// # Errors
    /// As [`PgStore::swap_models`].
    pub async fn cancel_reembedding(&self) -> Result<Option<StoredModel>, Failure> {
        model_swap::cancel(&self.pool).await
    }

    /// Drops the indexes of retired models. Their chunks go with [`crate::ports::Store::delete_dead_chunks`].
    ///
    /// # Errors
    /// The database's.
    pub async fn drop_retired_indexes(&self) -> Result<(), Failure> {
        let mut connection = self.pool.direct().await?;
        schema::lock(&mut connection).await?;
        let dropped = vector_indexes::drop_retired_indexes(&mut connection).await;
        connection.close().await?;
        Ok(dropped?)
    }
}

/// The current model, and the row of the one asked for, if it ever had one.
async fn allowed(
    connection: &mut Session,
    asked: &Model,
) -> Result<(StoredModel, Option<StoredModel>), ReembedError> {
    let all = embedding_models::all(&mut *connection).await?;
    let in_state = |state| all.iter().find(|stored| stored.state == state).cloned();
    let current = in_state(ModelState::Current).ok_or(ReembedError::NothingStored)?;
    if current.is(asked) {
        return Err(ReembedError::Same(current));
    }
    let owner = sqlx::query_scalar!(
        r#"select pg_has_role(relowner, 'USAGE') as "owner!"
           from pg_class where oid = 'transcript_chunks'::regclass"#
    )
    .fetch_one(connection)
    .await?;
    if !owner {
        return Err(ReembedError::NotOwner);
    }
    match in_state(ModelState::Next) {
        Some(next) if !next.is(asked) => Err(ReembedError::OtherRunning(next)),
        _ => Ok((current, all.iter().find(|stored| stored.is(asked)).cloned())),
    }
}

async fn register_next(
    connection: &mut Session,
    asked: &Model,
    retired: Option<StoredModel>,
) -> Result<StoredModel, ReembedError> {
    let name = match retired {
        Some(retired) => {
            sqlx::query!(
                "update embedding_models set state = 'next', state_since = clock_timestamp() where name = $1",
                retired.model.name
            )
            .execute(connection)
            .await?;
            retired.model.name
        }
        None => {
            // The name beside the vectors tells one model's lengths apart.
            sqlx::query_scalar!(
                "insert into embedding_models (name, dimensions, state, state_since, provider_name)
                 select case when taken then $1 || '@' || $2::int else $1 end, $2, 'next', clock_timestamp(),
                        case when taken then $1 end
                 from (select exists (select from embedding_models where name = $1) as taken) t
                 returning name",
                asked.name,
                asked.dimensions as i32
            )
            .fetch_one(connection)
            .await?
        }
    };
    let model = Model { name, dimensions: asked.dimensions };
    Ok(StoredModel { model, provider_name: asked.name.clone(), state: ModelState::Next })
}
