//! `embedding_models`: which model search is on, which one is built beside it, and their indexes.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgExecutor};

use super::connection::{Pool, Session};
use super::error::forbidden;
use crate::domain::checkup::IndexState;
use crate::ports::Model;

/// pgvector's `halfvec` index takes at most this many dimensions (its README).
const INDEXED_DIMENSIONS_MAX: u32 = 4_000;
/// Serialises index builds and migrations of all processes: an arbitrary, fixed key.
pub(super) const ADVISORY_LOCK: i64 = 0x0065_6d62_7265_6376;
/// Between two looks at that lock.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(200);

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

/// False where the model has more dimensions than an index takes.
pub(super) fn has_index(model: &Model) -> bool {
    model.dimensions <= INDEXED_DIMENSIONS_MAX
}

/// Whether the model's index is there and valid; `None` where it is missing.
async fn is_valid(
    executor: impl PgExecutor<'_>,
    model: &Model,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
           where c.relname = $1 and pg_table_is_visible(c.oid)"#,
        index_name(&model.name)
    )
    .fetch_optional(executor)
    .await
}

/// The state of the model's index.
pub(super) async fn index_state(
    executor: impl PgExecutor<'_>,
    model: &Model,
) -> Result<IndexState, sqlx::Error> {
    if !has_index(model) {
        return Ok(IndexState::Impossible);
    }
    Ok(match is_valid(executor, model).await? {
        Some(true) => IndexState::Valid,
        Some(false) => IndexState::Invalid,
        None => IndexState::Missing,
    })
}

/// True where neither [`ensure_index`] nor [`drop_retired_indexes`] has anything to do: then nobody
/// needs to wait for the lock, which a build holds for hours.
pub(super) async fn indexes_are_right(pool: &Pool, model: &Model) -> Result<bool, sqlx::Error> {
    let indexed = !has_index(model) || is_valid(pool, model).await? == Some(true);
    Ok(indexed && retired_indexes(&mut pool.acquire().await?).await?.is_empty())
}

/// Builds the model's partial HNSW index where it is missing or was left invalid by a build that
/// was interrupted. False where the model has more dimensions than an index takes.
pub(super) async fn ensure_index(
    connection: &mut Session,
    model: &Model,
) -> Result<bool, sqlx::Error> {
    if !has_index(model) {
        return Ok(false);
    }
    let name = index_name(&model.name);
    let valid = is_valid(&mut *connection, model).await?;
    if valid == Some(true) {
        return Ok(true);
    }
    // A build may take hours on a full table; only this session is exempt.
    sqlx::raw_sql("set statement_timeout = 0").execute(&mut *connection).await?;
    if valid == Some(false) {
        let drop = format!("drop index concurrently if exists {name}");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    let literal = model.name.replace('\'', "''");
    let create = format!(
        "create index concurrently {name} on transcript_chunks \
         using hnsw ((embedding::halfvec({})) halfvec_cosine_ops) with (m = 16, ef_construction = 64) \
         where embedding_model = '{literal}'",
        model.dimensions
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
    Ok(true)
}

/// Drops the indexes of retired models, before their chunks go: nothing searches them, and each
/// chunk would cost its removal from the graph. An index of another owner stays.
pub(super) async fn drop_retired_indexes(connection: &mut Session) -> Result<(), sqlx::Error> {
    for name in retired_indexes(&mut *connection).await? {
        // It waits for the readers that use it.
        sqlx::raw_sql("set statement_timeout = 0").execute(&mut *connection).await?;
        let drop = format!("drop index concurrently if exists {name}");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn retired_indexes(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    let retired = all(&mut *connection).await?.into_iter();
    let names: Vec<String> = retired
        .filter(|stored| matches!(stored.state, ModelState::Retired { .. }))
        .map(|stored| index_name(&stored.model.name))
        .collect();
    sqlx::query_scalar!(
        r#"select relname::text as "name!" from pg_class
           where relname = any($1) and pg_table_is_visible(oid) and pg_has_role(relowner, 'USAGE')"#,
        &names
    )
    .fetch_all(connection)
    .await
}

fn index_name(model_name: &str) -> String {
    let digest = Sha256::digest(model_name.as_bytes());
    let suffix: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("transcript_chunks_hnsw_{suffix}")
}
