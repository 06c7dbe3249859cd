//! How much a re-embedding is, and how far.

use chrono::{DateTime, Utc};

use super::connection::Pool;
use super::embedding_models::{ModelState, StoredModel};
use crate::domain::failure::Failure;
use crate::domain::packing::estimate_tokens;

/// Time that an estimate may take, in the server's notation: it looks at every chunk.
const ESTIMATE_TIMEOUT: &str = "10min";
/// Bytes of transcript in a chunk, for recordings that were never cut (the chunker's aim).
const CHUNK_BYTES: u64 = 2_000;

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

/// What it would cost to go from one model to another, which may be new.
pub(super) async fn estimate(
    pool: &Pool,
    from: StoredModel,
    to: Option<&StoredModel>,
) -> Result<Estimate, Failure> {
    let mut snapshot = pool.begin().await?;
    sqlx::query!("select set_config('statement_timeout', $1, true)", ESTIMATE_TIMEOUT)
        .fetch_one(&mut *snapshot)
        .await?;
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
    .fetch_one(&mut *snapshot)
    .await?;
    snapshot.commit().await?;
    let uncut_bytes = row.uncut_bytes as u64;
    let chunks = row.chunks as u64 + uncut_bytes.div_ceil(CHUNK_BYTES);
    let bytes = (row.chunk_bytes as u64 + uncut_bytes).saturating_sub(row.built_bytes as u64);
    Ok(Estimate {
        from,
        running: to.is_some_and(|to| to.state == ModelState::Next),
        recordings: row.recordings as u64,
        recordings_to_do: row.recordings_to_do as u64,
        chunks: chunks.saturating_sub(row.built as u64),
        tokens: estimate_tokens(bytes as usize) as u64,
    })
}

/// How far the re-embedding with a model is.
pub(super) async fn progress(
    pool: &Pool,
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
    snapshot.commit().await?;
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
