//! The HNSW index of a model's vectors: whether it is there, how it is built, and how it goes.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgExecutor};

use super::backlog;
use super::connection::{Pool, Session};
use super::embedding_models::{self, ModelState};
use crate::domain::checkup::IndexState;
use crate::domain::index_build::IndexBuild;
use crate::ports::Model;

/// pgvector's `halfvec` index takes at most this many dimensions (its README).
const INDEXED_DIMENSIONS_MAX: u32 = 4_000;
/// `disk_full`: what a server says whose shared memory is too small for a build by several workers, as
/// in a container of 64 MB (pgvector's README).
const NO_SHARED_MEMORY: &str = "53100";

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
    connection: &mut Session,
    model: &Model,
) -> Result<IndexState, sqlx::Error> {
    if !has_index(model) {
        return Ok(IndexState::Impossible);
    }
    let state = match is_valid(&mut *connection, model).await? {
        Some(true) => return Ok(IndexState::Valid),
        Some(false) => IndexState::Invalid,
        None => IndexState::Missing,
    };
    let postponed = backlog::is_under_way(connection).await?;
    Ok(if postponed { IndexState::Postponed } else { state })
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
    if is_valid(&mut *connection, model).await? != Some(true) {
        be_unhurried(connection).await?;
        drop_index(connection, model).await?;
        create_index(connection, model).await?;
    }
    Ok(true)
}

/// As [`ensure_index`], with the memory and the workers that were asked for. Where the server has too
/// little shared memory for several workers, one builds it.
pub(super) async fn ensure_index_with(
    connection: &mut Session,
    model: &Model,
    build: IndexBuild,
) -> Result<bool, sqlx::Error> {
    // Where the server itself allows more memory, that stays.
    sqlx::query!(
        r#"select set_config('maintenance_work_mem',
                      greatest(pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, $1::bigint)::text, false) as memory,
                  set_config('max_parallel_maintenance_workers', $2, false) as workers"#,
        i64::from(build.memory_mb) * 1_024,
        build.workers.to_string()
    )
    .fetch_one(&mut *connection)
    .await?;
    match ensure_index(connection, model).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_SHARED_MEMORY) => {
            tracing::warn!(%error, "too little shared memory for several workers; one builds the index");
            sqlx::raw_sql("set max_parallel_maintenance_workers = 0")
                .execute(&mut *connection)
                .await?;
            ensure_index(connection, model).await
        }
        ensured => ensured,
    }
}

/// A build or a drop may take hours on a full table; only this session is exempt from time-outs.
async fn be_unhurried(connection: &mut Session) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = 0").execute(connection).await?;
    Ok(())
}

async fn create_index(connection: &mut Session, model: &Model) -> Result<(), sqlx::Error> {
    let literal = model.name.replace('\'', "''");
    let create = format!(
        "create index concurrently {} on transcript_chunks \
         using hnsw ((embedding::halfvec({})) halfvec_cosine_ops) with (m = 16, ef_construction = 64) \
         where embedding_model = '{literal}'",
        index_name(&model.name),
        model.dimensions
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(connection).await?;
    Ok(())
}

/// Drops the model's index, valid or not, where there is one. Searches that use it go on to their end.
pub(super) async fn drop_index(connection: &mut Session, model: &Model) -> Result<(), sqlx::Error> {
    if is_valid(&mut *connection, model).await?.is_some() {
        drop_named(connection, &index_name(&model.name)).await?;
    }
    Ok(())
}

async fn drop_named(connection: &mut Session, name: &str) -> Result<(), sqlx::Error> {
    // It waits for the readers that use it.
    be_unhurried(connection).await?;
    let drop = format!("drop index concurrently if exists {name}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await?;
    Ok(())
}

/// Drops the indexes of retired models, before their chunks go: nothing searches them, and each
/// chunk would cost its removal from the graph. An index of another owner stays.
pub(super) async fn drop_retired_indexes(connection: &mut Session) -> Result<(), sqlx::Error> {
    for name in retired_indexes(&mut *connection).await? {
        drop_named(connection, &name).await?;
    }
    Ok(())
}

async fn retired_indexes(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    let retired = embedding_models::all(&mut *connection).await?.into_iter();
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
