//! `embedding_models`: which model search is on, and which one is built beside it.

use sqlx::PgExecutor;

use super::connection::{Pool, Session};
use super::error::forbidden;
use crate::ports::Model;

/// What a model is to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Search is on it.
    Current,
    /// It is built beside the current one, to take its place.
    Next,
    /// Its vectors are removed.
    Retired {
        /// It was the current one once; else its re-embedding was cancelled.
        replaced: bool,
    },
}

/// A model as a database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// The name beside each vector, and the length of the vectors.
    pub model: Model,
    /// What the provider calls it.
    pub provider_name: String,
    /// What it is to the database.
    pub state: ModelState,
}

/// A model that a worker may embed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInUse {
    /// Under the name that is stored beside its vectors.
    pub model: Model,
    /// It is the next one: search does not see its vectors yet.
    pub next: bool,
    /// False where it has more dimensions than an index takes. The next model's index is built when
    /// its vectors are there.
    pub indexed: bool,
    /// A backlog load is under way, which builds the index at its end.
    pub postponed: bool,
}

/// Why a model cannot be used with a database.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The database holds vectors of another model.
    #[error(
        "this database holds vectors of {} with {} dimensions, and you ask for {} with {}: \
         mixed vectors cannot be searched",
        stored.provider_name, stored.model.dimensions, asked.name, asked.dimensions
    )]
    Changed {
        /// What is stored.
        stored: StoredModel,
        /// What was asked for.
        asked: Model,
    },
    /// Another model took its place.
    #[error(
        "this database went over from {} to {} with {} dimensions",
        asked.name, current.provider_name, current.model.dimensions
    )]
    Replaced {
        /// What was asked for.
        asked: Model,
        /// What took its place.
        current: StoredModel,
    },
    /// The role lacks a right: the first start with a model builds its index.
    #[error("{message}: `embedding-recovery doctor` says what to grant")]
    Forbidden {
        /// Postgres's own words.
        message: String,
    },
    /// The database failed.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for ModelError {
    fn from(error: sqlx::Error) -> Self {
        match forbidden(&error) {
            Some(message) => Self::Forbidden { message },
            None => Self::Database(error),
        }
    }
}

struct Row {
    name: String,
    dimensions: i32,
    provider_name: String,
    state: String,
    replaced: bool,
}

impl ModelState {
    pub(super) fn of(state: &str, replaced: bool) -> Self {
        match state {
            "current" => Self::Current,
            "next" => Self::Next,
            // The table's check knows no other word.
            _ => Self::Retired { replaced },
        }
    }
}

impl From<Row> for StoredModel {
    fn from(row: Row) -> Self {
        let model = Model { name: row.name, dimensions: row.dimensions as u32 };
        let state = ModelState::of(&row.state, row.replaced);
        Self { model, provider_name: row.provider_name, state }
    }
}

/// All models that this database ever had, the oldest first.
pub(super) async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<StoredModel>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select name, dimensions, coalesce(provider_name, name) as "provider_name!", state,
                  replaced_by is not null as "replaced!"
           from embedding_models order by created_at"#
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(StoredModel::from).collect())
}

/// The model that search is on, if anything was ever embedded.
pub(super) async fn current(
    executor: impl PgExecutor<'_>,
) -> Result<Option<StoredModel>, sqlx::Error> {
    let all = all(executor).await?;
    Ok(all.into_iter().find(|stored| stored.state == ModelState::Current))
}

/// Makes every other process that asks for models wait, until the transaction's end.
pub(super) async fn lock(connection: &mut Session) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("lock table embedding_models in share row exclusive mode")
        .execute(connection)
        .await?;
    Ok(())
}

/// Refuses a changed model before anything is written; registers the first one. Processes take
/// turns: two that begin with different models on an empty database would both find their own.
pub(super) async fn register(pool: &Pool, asked: &Model) -> Result<StoredModel, ModelError> {
    let mut transaction = pool.begin().await?;
    lock(&mut transaction).await?;
    sqlx::query!(
        "insert into embedding_models (name, dimensions, state)
         select $1, $2, 'current' where not exists (select from embedding_models)",
        asked.name,
        asked.dimensions as i32
    )
    .execute(&mut *transaction)
    .await?;
    let all = all(&mut *transaction).await?;
    transaction.commit().await?;
    let found = all.iter().find(|stored| stored.is(asked)).cloned();
    let current = all.into_iter().find(|stored| stored.state == ModelState::Current);
    match (found, current) {
        (Some(found), _) if matches!(found.state, ModelState::Current | ModelState::Next) => {
            Ok(found)
        }
        (Some(found), Some(current)) if found.state == (ModelState::Retired { replaced: true }) => {
            Err(ModelError::Replaced { asked: asked.clone(), current })
        }
        (_, Some(stored)) => Err(ModelError::Changed { stored, asked: asked.clone() }),
        // Somebody deleted it by hand since.
        (_, None) => Err(ModelError::Database(sqlx::Error::RowNotFound)),
    }
}

impl StoredModel {
    /// True where it is the model that the provider knows under this name, in this length.
    pub fn is(&self, asked: &Model) -> bool {
        self.provider_name == asked.name && self.model.dimensions == asked.dimensions
    }
}
