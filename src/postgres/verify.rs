//! Checks the invariants against what is really stored.

use super::connection::{Pool, Session};
use super::embedding_queue;
use crate::domain::failure::Failure;
use crate::ports::TaskCounts;

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which invariant, in a word.
    pub invariant: &'static str,
    /// Owner of the recording.
    pub user_id: String,
    /// The recording.
    pub recording_id: i64,
    /// What was found.
    pub detail: String,
}

/// What a database holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Tasks by state.
    pub tasks: TaskCounts,
    /// Chunks that search can see.
    pub chunks: u64,
    /// Recordings with a current set.
    pub recordings: u64,
    /// At most [`VIOLATIONS_MAX`] of each invariant.
    pub violations: Vec<Violation>,
}

/// Violations listed of each invariant: enough to see, few enough to read.
pub const VIOLATIONS_MAX: i64 = 100;

/// Time that all checks may take together, in the server's notation.
const STATEMENT_TIMEOUT: &str = "30min";

/// Runs every check in one snapshot.
pub(super) async fn verify(pool: &Pool) -> Result<Report, Failure> {
    let mut snapshot =
        pool.begin_with("begin transaction isolation level repeatable read read only").await?;
    sqlx::query!("select set_config('statement_timeout', $1, true)", STATEMENT_TIMEOUT)
        .fetch_one(&mut *snapshot)
        .await?;
    let totals = sqlx::query!(
        r#"select (select count(*) from searchable_chunks) as "chunks!",
                  (select count(*) from chunk_sets s join embedding_models m on m.name = s.model
                   where s.state = 'current' and m.state = 'current') as "recordings!""#
    )
    .fetch_one(&mut *snapshot)
    .await?;
    let mut violations = illegal_tasks(&mut snapshot).await?;
    violations.extend(double_leases(&mut snapshot).await?);
    violations.extend(completed_without_set(&mut snapshot).await?);
    violations.extend(incomplete_sets(&mut snapshot).await?);
    violations.extend(bad_vectors(&mut snapshot).await?);
    violations.extend(old_dead_sets(&mut snapshot).await?);
    let tasks = embedding_queue::counts(&mut *snapshot, None).await?;
    snapshot.commit().await?;
    Ok(Report {
        tasks,
        chunks: totals.chunks as u64,
        recordings: totals.recordings as u64,
        violations,
    })
}

async fn illegal_tasks(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        "select user_id, recording_id, status, attempts, max_attempts from embedding_queue
         where status not in ('pending', 'processing', 'completed', 'failed', 'dead_letter')
            or (status = 'processing') <> (lease_token is not null)
            or (lease_token is null) <> (lease_expires_at is null)
            or (status = 'failed' and next_retry_at is null)
            or (status = 'completed' and completed_at is null)
            or (status = 'dead_letter') <> (dead_letter_reason is not null)
            or attempts > max_attempts
            or (status in ('pending', 'failed') and attempts = max_attempts)
         limit $1",
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a task is in exactly one legal state",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} with {} of {} attempts", row.status, row.attempts, row.max_attempts),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn double_leases(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select user_id, recording_id, count(*) as "leases!" from embedding_queue
           where status = 'processing' and lease_expires_at > clock_timestamp()
           group by user_id, recording_id, for_model having count(*) > 1
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a recording is worked on under one lease",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} live leases", row.leases),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn completed_without_set(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        "select distinct c.user_id, c.recording_id
         from embedding_models m
         join embedding_queue q on q.status = 'completed'
          -- What was completed before the model became what it is was for another, or for its former life.
          and (m.state = 'current' and q.for_model is null and q.completed_at >= m.state_since
               or m.state = 'next' and q.for_model = m.name and q.completed_at >= m.state_since
               or m.state = 'current' and q.for_model = m.name)
         join fathom_calls c on c.user_id = q.user_id and c.recording_id = q.recording_id
         where m.state in ('current', 'next')
           and not exists (select from chunk_sets s
                   where s.user_id = c.user_id and s.recording_id = c.recording_id and s.state = 'current'
                     and s.model = m.name)
           and not exists (select from embedding_queue o
                   where o.user_id = c.user_id and o.recording_id = c.recording_id and o.status <> 'completed'
                     and coalesce(o.for_model, '') = tasks_of_model(m.name))
         limit $1",
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a completed task's chunks are all there",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: "completed without a current chunk set".into(),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn incomplete_sets(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select s.user_id, s.recording_id, s.chunks_expected, count(c.id) as "stored!"
           from chunk_sets s
           left join transcript_chunks c on c.chunk_set_id = s.id and c.chunk_index < s.chunks_expected
                and c.user_id = s.user_id and c.recording_id = s.recording_id and c.embedding_model = s.model
           where s.state = 'current'
           group by s.id
           having count(c.id) <> s.chunks_expected
               or (select count(*) from transcript_chunks a where a.chunk_set_id = s.id) <> s.chunks_expected
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a completed task's chunks are all there",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} of {} chunks fit their set", row.stored, row.chunks_expected),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn bad_vectors(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select c.user_id, c.recording_id, c.chunk_index, m.dimensions,
                  vector_dims(c.embedding) as "found?"
           from transcript_chunks c
           join chunk_sets s on s.id = c.chunk_set_id and s.state = 'current'
           join embedding_models m on m.name = s.model
           where c.embedding is null
              or vector_dims(c.embedding) <> m.dimensions
              or vector_norm(c.embedding) in (0, 'NaN', 'Infinity')
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "each chunk has a finite vector of the model's dimension",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: match row.found {
            None => format!("chunk {} has no vector", row.chunk_index),
            Some(found) if found != row.dimensions => {
                format!("chunk {} has {found} dimensions, not {}", row.chunk_index, row.dimensions)
            }
            Some(_) => format!("chunk {} has a vector of no length or not finite", row.chunk_index),
        },
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

async fn old_dead_sets(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select s.user_id, s.recording_id, count(c.id) as "chunks!"
           from chunk_sets s left join transcript_chunks c on c.chunk_set_id = s.id
           where s.state = 'dead' and s.died_at < clock_timestamp() - interval '1 hour'
           group by s.id
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "dead sets are deleted within the hour",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("a dead set still has {} chunks", row.chunks),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
