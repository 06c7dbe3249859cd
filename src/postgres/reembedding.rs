//! The next model beside the current one: begin, how far it is, cancel. The swap is in
//! [`super::model_swap`].

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, PgPool};

use super::embedding_models::{self, ModelState, StoredModel};
use super::{PgStore, model_swap, schema};
use crate::domain::failure::Failure;
use crate::domain::packing::estimate_tokens;
use crate::domain::recording::RecordingKey;
use crate::ports::Model;

/// Dead letters that are listed: enough to see, few enough to read.
const DEAD_LETTERS_MAX: i64 = 100;
/// Time that an estimate may take, in the server's notation: it looks at every chunk.
const ESTIMATE_TIMEOUT: &str = "10min";
/// Bytes of transcript in a chunk, for recordings that were never cut (the chunker's aim).
const CHUNK_BYTES: u64 = 2_000;

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
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// So it did.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What a re-embedding would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// The model that search is on.
    pub from: StoredModel,
    /// The same re-embedding is under way.
    pub running: bool,
    /// Recordings with a transcript.
    pub recordings: u64,
    /// Those that lack the new model.
    pub recordings_to_do: u64,
    /// Chunks to buy, about.
    pub chunks: u64,
    /// Tokens to buy, about.
    pub tokens: u64,
}

/// How far a re-embedding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What became of the model.
    pub state: ModelState,
    /// Recordings with a transcript.
    pub recordings: u64,
    /// Recordings that have the model.
    pub done: u64,
    /// Its chunks in the database.
    pub chunks: u64,
    /// Tokens bought for it since it began.
    pub tokens: u64,
    /// Its open tasks that were there at the time asked for.
    pub waiting: u64,
    /// All of its open tasks.
    pub open: u64,
    /// Its dead letters.
    pub dead_letters: u64,
    /// Recordings that search would lose by the swap, or see with an older transcript.
    pub missing: u64,
    /// Those of them that are dead letters.
    pub missing_dead: u64,
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
        let mut snapshot = super::begin_patient(&self.pool).await?;
        sqlx::query!("select set_config('statement_timeout', $1, true)", ESTIMATE_TIMEOUT)
            .fetch_one(&mut *snapshot)
            .await?;
        let (from, to) = allowed(&mut snapshot, asked).await?;
        let running = to.as_ref().is_some_and(|to| to.state == ModelState::Next);
        let estimate = estimate(&mut snapshot, from, running, to.as_ref()).await?;
        snapshot.rollback().await?;
        Ok(estimate)
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
        progress(&self.pool, model_name, asked_before).await
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
        let mut connection = PgConnection::connect(&self.url).await?;
        schema::lock(&mut connection).await?;
        let indexed = embedding_models::ensure_index(&mut connection, model).await;
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
        let mut connection = PgConnection::connect(&self.url).await?;
        schema::lock(&mut connection).await?;
        let dropped = embedding_models::drop_retired_indexes(&mut connection).await;
        connection.close().await?;
        Ok(dropped?)
    }
}

/// The current model, and the row of the one asked for, if it ever had one.
async fn allowed(
    connection: &mut PgConnection,
    asked: &Model,
) -> Result<(StoredModel, Option<StoredModel>), ReembedError> {
    let all = embedding_models::all(connection).await?;
    let in_state = |state| all.iter().find(|stored| stored.state == state).cloned();
    let current = in_state(ModelState::Current).ok_or(ReembedError::NothingStored)?;
    if current.is(asked) {
        return Err(ReembedError::Same(current));
    }
    match in_state(ModelState::Next) {
        Some(next) if !next.is(asked) => Err(ReembedError::OtherRunning(next)),
        _ => Ok((current, all.iter().find(|stored| stored.is(asked)).cloned())),
    }
}

async fn register_next(
    connection: &mut PgConnection,
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

async fn estimate(
    connection: &mut PgConnection,
    from: StoredModel,
    running: bool,
    to: Option<&StoredModel>,
) -> Result<Estimate, Failure> {
    let row = sqlx::query!(
        r#"with todo as materialized (
               select c.user_id, c.recording_id, s.id as set_id, s.chunks_expected
               from fathom_calls c
               left join chunk_sets s on s.user_id = c.user_id and s.recording_id = c.recording_id
                    and s.model = $1 and s.state = 'current'
               where exists (select from fathom_transcripts t
                             where t.user_id = c.user_id and t.recording_id = c.recording_id)
                 and not exists (select from chunk_sets n
                                 where n.user_id = c.user_id and n.recording_id = c.recording_id
                                   and n.model = $2 and n.state = 'current')
           )
           select (select count(*) from fathom_calls c
                   where exists (select from fathom_transcripts t
                                 where t.user_id = c.user_id and t.recording_id = c.recording_id)) as "recordings!",
                  (select count(*) from todo) as "recordings_to_do!",
                  (select coalesce(sum(chunks_expected), 0)::bigint from todo) as "chunks!",
                  (select coalesce(sum(octet_length(c.chunk_text)), 0)::bigint
                   from transcript_chunks c join todo on todo.set_id = c.chunk_set_id) as "chunk_bytes!",
                  (select coalesce(sum(octet_length(coalesce(t.edited_text, t.text))), 0)::bigint
                   from fathom_transcripts t
                   join todo on todo.user_id = t.user_id and todo.recording_id = t.recording_id
                   where todo.set_id is null and t.is_deleted is not true) as "uncut_bytes!",
                  (select coalesce(sum(octet_length(c.chunk_text)), 0)::bigint
                   from transcript_chunks c join chunk_sets b on b.id = c.chunk_set_id
                   where b.model = $2 and b.state = 'building') as "built_bytes!",
                  (select count(*) from transcript_chunks c join chunk_sets b on b.id = c.chunk_set_id
                   where b.model = $2 and b.state = 'building') as "built!""#,
        from.model.name,
        to.map(|to| to.model.name.as_str())
    )
    .fetch_one(connection)
    .await?;
    let uncut_bytes = row.uncut_bytes as u64;
    let chunks = row.chunks as u64 + uncut_bytes.div_ceil(CHUNK_BYTES);
    let bytes = (row.chunk_bytes as u64 + uncut_bytes).saturating_sub(row.built_bytes as u64);
    Ok(Estimate {
        from,
        running,
        recordings: row.recordings as u64,
        recordings_to_do: row.recordings_to_do as u64,
        chunks: chunks.saturating_sub(row.built as u64),
        tokens: estimate_tokens(bytes as usize) as u64,
    })
}

async fn progress(
    pool: &PgPool,
    model_name: &str,
    asked_before: DateTime<Utc>,
) -> Result<Option<Progress>, Failure> {
    let mut snapshot = super::begin_patient(pool).await?;
    let row = sqlx::query!(
        r#"select m.state, m.replaced_by is not null as "replaced!",
                  (select count(*) from fathom_calls c
                   where exists (select from fathom_transcripts t
                                 where t.user_id = c.user_id and t.recording_id = c.recording_id)) as "recordings!",
                  (select count(*) from chunk_sets s where s.model = m.name and s.state = 'current') as "done!",
                  (select coalesce(sum(chunks_expected), 0)::bigint from chunk_sets s
                   where s.model = m.name and s.state = 'current') as "chunks!",
                  (select coalesce(sum(a.tokens), 0)::bigint from embedding_attempts a
                   join embedding_queue q on q.id = a.task_id
                   where q.for_model = m.name and a.started_at >= m.state_since) as "tokens!",
                  tasks.waiting as "waiting!", tasks.open as "open!", tasks.dead as "dead!",
                  missing.missing as "missing!", missing.dead as "missing_dead!"
           from embedding_models m,
                lateral (select count(*) filter (where status <> 'dead_letter' and created_at <= $2) as waiting,
                                count(*) filter (where status <> 'dead_letter') as open,
                                count(*) filter (where status = 'dead_letter') as dead
                         from embedding_queue q
                         where q.for_model = m.name and q.status <> 'completed') tasks,
                lateral (select count(*) as missing, count(q.id) as dead
                         from reembedding_missing r
                         left join embedding_queue q on q.user_id = r.user_id and q.recording_id = r.recording_id
                              and q.for_model = m.name and q.status = 'dead_letter') missing
           where m.name = $1"#,
        model_name,
        asked_before
    )
    .fetch_optional(&mut *snapshot)
    .await?;
    snapshot.rollback().await?;
    Ok(row.map(|row| Progress {
        state: ModelState::of(&row.state, row.replaced),
        recordings: row.recordings as u64,
        done: row.done as u64,
        chunks: row.chunks as u64,
        tokens: row.tokens as u64,
        waiting: row.waiting as u64,
        open: row.open as u64,
        dead_letters: row.dead as u64,
        missing: row.missing as u64,
        missing_dead: row.missing_dead as u64,
    }))
}
