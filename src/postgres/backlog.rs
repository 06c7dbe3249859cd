//! A backlog load: the vector index goes, many recordings are stored, and the index is built again
//! over all of them, which takes less time than keeping it up to date row by row. The index of words
//! stays: to build it at the end would save a twentieth of the load and leave search without words.
//!
//! Who loads holds a lock in a session of its own from beginning to end. Others see the lock and leave
//! the index alone. It goes with the session, however that ends, and then the index is anybody's to
//! build again: nothing has to be remembered for that.

use std::time::Duration;

use super::PgStore;
use super::connection::{Pool, Session};
use super::embedding_models::{self, StoredModel};
use super::schema::{self, ADVISORY_LOCK};
use super::vector_indexes;
use crate::domain::checkup::IndexState;
use crate::domain::failure::Failure;
use crate::domain::index_build::IndexBuild;
use crate::ports::Model;

/// Held by a session that loads: an arbitrary, fixed key.
const BACKLOG_LOCK: i64 = 0x0065_6d62_626b_6c67;
/// Bytes of transcript in a chunk (the chunker's aim).
const CHUNK_BYTES: u64 = 2_000;
/// Time that the estimate may take, in the server's notation: it looks at every transcript that is to
/// be loaded.
const ESTIMATE_TIMEOUT: &str = "10min";
/// Between two looks at how far a build is.
const PROGRESS_POLL: Duration = Duration::from_millis(500);

/// What a load would be.
#[derive(Debug, Clone, PartialEq)]
pub struct BacklogEstimate {
    /// The model that search is on; `None` where nothing was ever embedded.
    pub model: Option<StoredModel>,
    /// Its index.
    pub index: Option<IndexState>,
    /// Recordings with a transcript and without chunks of the model.
    pub recordings: u64,
    /// Their chunks, about.
    pub chunks: u64,
    /// Chunks that are stored already, which go into the index again.
    pub chunks_stored: u64,
}

/// Why a load cannot begin. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    /// Another process loads.
    #[error(
        "another backlog load is under way on this database, or the server is still at its index; \
         `serve` may help it to load"
    )]
    UnderWay,
    /// The index belongs to the owner of the table.
    #[error(
        "this role may not drop and build the vector index: run this as the role that migrated"
    )]
    NotOwner,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexProgress {
    /// What the server does, in its own words.
    pub phase: String,
    /// Blocks of the table that were read in this phase.
    pub blocks_done: u64,
    /// All of them; 0 where the phase reads none.
    pub blocks: u64,
}

/// A load under way. Dropped, the server ends it.
#[derive(Debug)]
pub struct BacklogLoad {
    pool: Pool,
    session: Session,
    server_process: i32,
}

/// True while any process loads.
pub(super) async fn is_under_way(connection: &mut Session) -> Result<bool, sqlx::Error> {
    // A look rather than a try: it disturbs nobody, and works through a pooler.
    sqlx::query_scalar!(
        r#"select exists (
               select from pg_locks
               where locktype = 'advisory' and granted and mode = 'ExclusiveLock' and objsubid = 1
                 and database = (select oid from pg_database where datname = current_database())
                 and (classid::bigint << 32) | objid::bigint = $1) as "under_way!""#,
        BACKLOG_LOCK
    )
    .fetch_one(connection)
    .await
}

impl PgStore {
    /// What a load would be. Changes nothing.
    ///
    /// # Errors
    /// [`BacklogError::NotOwner`], or the database's.
    pub async fn estimate_backlog(&self) -> Result<BacklogEstimate, BacklogError> {
        let mut snapshot = self.pool.begin().await?;
        sqlx::query!("select set_config('statement_timeout', $1, true)", ESTIMATE_TIMEOUT)
            .fetch_one(&mut *snapshot)
            .await?;
        let model = embedding_models::current(&mut *snapshot).await?;
        let index = match &model {
            Some(stored) => Some(vector_indexes::index_state(&mut snapshot, &stored.model).await?),
            None => None,
        };
        let row = sqlx::query!(
            r#"with todo as materialized (
                   select c.user_id, c.recording_id from fathom_calls c
                   where not exists (select from chunk_sets s
                                     where s.user_id = c.user_id and s.recording_id = c.recording_id
                                       and s.model = $1 and s.state = 'current')
               ), bytes as materialized (
                   select sum(octet_length(coalesce(t.edited_text, t.text))) as of_recording
                   from fathom_transcripts t join todo using (user_id, recording_id)
                   where t.is_deleted is not true
                   group by t.user_id, t.recording_id
               )
               select pg_has_role(relowner, 'USAGE') as "owner!",
                      (select count(*) from bytes) as "recordings!",
                      (select coalesce(sum(ceil(of_recording::float8 / $2)), 0)::bigint from bytes) as "chunks!",
                      (select coalesce(sum(chunks_expected), 0)::bigint from chunk_sets
                       where model = $1 and state = 'current') as "chunks_stored!"
               from pg_class where oid = 'transcript_chunks'::regclass"#,
            model.as_ref().map(|stored| stored.model.name.as_str()),
            CHUNK_BYTES as f64
        )
        .fetch_one(&mut *snapshot)
        .await?;
        snapshot.commit().await?;
        if !row.owner {
            return Err(BacklogError::NotOwner);
        }
        Ok(BacklogEstimate {
            model,
            index,
            recordings: row.recordings as u64,
            chunks: row.chunks as u64,
            chunks_stored: row.chunks_stored as u64,
        })
    }

    /// Begins a load: from here on nobody else builds or drops the index of the current model.
    ///
    /// # Errors
    /// [`BacklogError::UnderWay`], or the database's: a load takes a session of its own.
    pub async fn begin_backlog_load(&self) -> Result<BacklogLoad, BacklogError> {
        let mut session = self.pool.direct().await?;
        let row = sqlx::query!(
            r#"select pg_try_advisory_lock($1) as "locked!", pg_backend_pid() as "process!""#,
            BACKLOG_LOCK
        )
        .fetch_one(&mut session)
        .await?;
        if !row.locked {
            session.close().await?;
            return Err(BacklogError::UnderWay);
        }
        Ok(BacklogLoad { pool: self.pool.clone(), session, server_process: row.process })
    }

    /// True while any process loads.
    ///
    /// # Errors
    /// The database's.
    pub async fn backlog_load_is_under_way(&self) -> Result<bool, Failure> {
        Ok(is_under_way(&mut self.pool.acquire().await?).await?)
    }

    /// The state of a model's index.
    ///
    /// # Errors
    /// The database's.
    pub async fn index_state(&self, model: &Model) -> Result<IndexState, Failure> {
        Ok(vector_indexes::index_state(&mut self.pool.acquire().await?, model).await?)
    }
}

impl BacklogLoad {
    /// Drops the model's index, once nobody else is at an index or the schema.
    ///
    /// # Errors
    /// The database's.
    pub async fn drop_index(&mut self, model: &Model) -> Result<(), Failure> {
        schema::lock(&mut self.session).await?;
        let dropped = vector_indexes::drop_index(&mut self.session, model).await;
        self.unlock().await?;
        Ok(dropped?)
    }

    /// Builds the model's index over what is stored, and shows how far it is. False where the model can
    /// have none. Dropped half way, the server goes on until [`BacklogLoad::cancel`].
    ///
    /// # Errors
    /// The database's.
    pub async fn build_index(
        &mut self,
        model: &Model,
        build: IndexBuild,
        show: &mut (dyn FnMut(IndexProgress) + Send),
    ) -> Result<bool, Failure> {
        schema::lock(&mut self.session).await?;
        let built = {
            let mut building =
                std::pin::pin!(vector_indexes::ensure_index_with(&mut self.session, model, build));
            loop {
                match tokio::time::timeout(PROGRESS_POLL, &mut building).await {
                    Ok(built) => break built,
                    // What cannot be looked at now, will be.
                    Err(_) => progress(&self.pool, self.server_process)
                        .await
                        .unwrap_or_default()
                        .into_iter()
                        .for_each(&mut *show),
                }
            }
        };
        self.unlock().await?;
        Ok(built?)
    }

    /// Ends what the server still does for this load.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel(self) -> Result<(), Failure> {
        sqlx::query!("select pg_terminate_backend($1, 10000)", self.server_process)
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Lets others at the index again.
    ///
    /// # Errors
    /// The database's; it lets go even so.
    pub async fn end(self) -> Result<(), Failure> {
        Ok(self.session.close().await?)
    }

    async fn unlock(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query!("select pg_advisory_unlock($1)", ADVISORY_LOCK)
            .fetch_one(&mut self.session)
            .await?;
        Ok(())
    }
}

async fn progress(pool: &Pool, process: i32) -> Result<Option<IndexProgress>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select phase as "phase!", coalesce(blocks_done, 0) as "done!", coalesce(blocks_total, 0) as "blocks!"
           from pg_stat_progress_create_index where pid = $1"#,
        process
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| IndexProgress {
        phase: row.phase,
        blocks_done: row.done as u64,
        blocks: row.blocks as u64,
    }))
}
