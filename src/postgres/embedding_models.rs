//! `embedding_models`: which model everything here is made with, and its index.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};

use super::error::forbidden;
use crate::domain::checkup::IndexState;
use crate::ports::Model;

/// pgvector's `halfvec` index takes at most this many dimensions (its README).
const INDEXED_DIMENSIONS_MAX: u32 = 4_000;
/// Serialises index builds and migrations of all processes: an arbitrary, fixed key.
pub(super) const ADVISORY_LOCK: i64 = 0x0065_6d62_7265_6376;
/// Between two looks at that lock.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(200);

/// Why a model cannot be used with a database.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The database holds vectors of another model.
    #[error(
        "this database holds vectors of {} with {} dimensions, and you ask for {} with {}: \
         mixed vectors cannot be searched",
        stored.name, stored.dimensions, asked.name, asked.dimensions
    )]
    Changed {
        /// What is stored.
        stored: Model,
        /// What was asked for.
        asked: Model,
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

/// The model that this database is made with, if anything was ever embedded.
pub(super) async fn stored(executor: impl PgExecutor<'_>) -> Result<Option<Model>, sqlx::Error> {
    sqlx::query!("select name, dimensions from embedding_models order by created_at limit 1")
        .map(|row| Model { name: row.name, dimensions: row.dimensions as u32 })
        .fetch_optional(executor)
        .await
}

/// Refuses a changed model before anything is written; registers the first one. Processes take
/// turns: two that begin with different models on an empty database would both find their own.
pub(super) async fn register(pool: &PgPool, asked: &Model) -> Result<(), ModelError> {
    let mut transaction = pool.begin().await?;
    sqlx::raw_sql("lock table embedding_models in share row exclusive mode")
        .execute(&mut *transaction)
        .await?;
    sqlx::query!(
        "insert into embedding_models (name, dimensions)
         select $1, $2 where not exists (select from embedding_models)
         on conflict do nothing",
        asked.name,
        asked.dimensions as i32
    )
    .execute(&mut *transaction)
    .await?;
    let stored = stored(&mut *transaction).await?;
    transaction.commit().await?;
    match stored {
        Some(stored) if stored != *asked => {
            Err(ModelError::Changed { stored, asked: asked.clone() })
        }
        _ => Ok(()),
    }
}

fn index_name(model: &str) -> String {
    let digest = Sha256::digest(model.as_bytes());
    let suffix: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("transcript_chunks_hnsw_{suffix}")
}

/// Whether the model's index is valid; `None` where there is none.
async fn index_validity(
    connection: &mut PgConnection,
    model: &str,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
           where c.relname = $1 and pg_table_is_visible(c.oid)"#,
        index_name(model)
    )
    .fetch_optional(connection)
    .await
}

/// The state of the model's index.
pub(super) async fn index_state(
    connection: &mut PgConnection,
    model: &Model,
) -> Result<IndexState, sqlx::Error> {
    if model.dimensions > INDEXED_DIMENSIONS_MAX {
        return Ok(IndexState::Impossible);
    }
    Ok(match index_validity(connection, &model.name).await? {
        Some(true) => IndexState::Valid,
        Some(false) => IndexState::Invalid,
        None => IndexState::Missing,
    })
}

/// Builds the model's partial HNSW index where it is missing or was left invalid by a build that
/// was interrupted. False where the model has more dimensions than an index takes.
pub(super) async fn ensure_index(
    connection: &mut PgConnection,
    model: &Model,
) -> Result<bool, sqlx::Error> {
    if model.dimensions > INDEXED_DIMENSIONS_MAX {
        return Ok(false);
    }
    let name = index_name(&model.name);
    let valid = index_validity(connection, &model.name).await?;
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
