//! One recording: its task, its attempts, its chunks, and what they add up to.

use std::time::Duration;

use uuid::Uuid;

use super::super::connection::{Pool, Session};
use super::part;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::span::from_secs;
use crate::domain::standing::{Standing, StandingFacts, TaskFacts, standing};
use crate::domain::task::TaskState;
use crate::ports::inspector::{AttemptRecord, Explanation};

/// Attempts that are told: the last of them.
const ATTEMPTS_MAX: i64 = 100;
/// Tasks ahead are counted up to here.
const AHEAD_MAX: i64 = 10_000;

/// The recordings of this number, one for each user who holds it; deleted ones while a task of theirs is
/// open.
pub(super) async fn find(
    pool: &Pool,
    recording_id: i64,
    user_id: Option<&str>,
) -> Result<Vec<RecordingKey>, Failure> {
    let keys = sqlx::query!(
        r#"select user_id as "user_id!" from fathom_calls
           where recording_id = $1 and ($2::text is null or user_id = $2)
           union
           select user_id from embedding_queue
           where recording_id = $1 and ($2::text is null or user_id = $2) and status <> 'completed'
           order by 1"#,
        recording_id,
        user_id
    )
    .map(|row| RecordingKey { user_id: row.user_id, recording_id })
    .fetch_all(pool)
    .await?;
    Ok(keys)
}

/// `None` where the recording is not stored and no task of it is open.
pub(super) async fn explain(
    pool: &Pool,
    key: &RecordingKey,
) -> Result<Option<Explanation>, Failure> {
    let mut snapshot = super::super::begin_patient_snapshot(pool).await?;
    let Some(call) = call(&mut snapshot, key).await? else { return Ok(None) };
    let task = newest_task(&mut snapshot, key).await?;
    let attempts = attempts(&mut snapshot, key).await?;
    let totals = totals(&mut snapshot, key).await?;
    snapshot.commit().await?;
    let Standing { waits_for, way_out } = standing(&StandingFacts {
        recording_id: key.recording_id,
        user_id: call.shares_number.then(|| key.user_id.clone()),
        is_stored: call.is_stored,
        segments: call.segment_count,
        is_current: call.is_current,
        task: task.as_ref().map(|task| task.facts.clone()),
        workers: call.workers,
        provider_trouble: call.provider_trouble,
        main_paused_by: call.main_paused_by,
        recovery_paused_by: call.recovery_paused_by,
    });
    let (worker_id, lease_ends_at, next_attempt_at, last_error) = match &task {
        Some(task) => {
            (task.worker_id, task.lease_ends_at, task.next_attempt_at, task.last_error.clone())
        }
        None => (None, None, None, None),
    };
    Ok(Some(Explanation {
        user_id: key.user_id.clone(),
        recording_id: key.recording_id,
        title: call.title,
        segment_count: call.segment_count,
        segments_skipped: call.segments_skipped,
        state: task.map(|task| task.facts.state.as_str().to_owned()),
        waits_for,
        way_out,
        worker_id,
        lease_ends_at,
        next_attempt_at,
        last_error,
        chunks_searchable: call.chunks_searchable,
        chunks_stored: call.chunks_stored,
        chunks: call.chunks,
        tokens: totals.tokens,
        chunks_reused: totals.chunks_reused,
        attempts,
    }))
}

struct Call {
    title: Option<String>,
    /// False where it was deleted.
    is_stored: bool,
    /// Another user holds a recording of this number.
    shares_number: bool,
    segment_count: u64,
    segments_skipped: u64,
    is_current: bool,
    chunks_searchable: u32,
    chunks_stored: u32,
    chunks: u32,
    workers: u64,
    provider_trouble: Option<String>,
    main_paused_by: Option<String>,
    recovery_paused_by: Option<String>,
}

async fn call(connection: &mut Session, key: &RecordingKey) -> Result<Option<Call>, Failure> {
    let call = sqlx::query!(
        r#"select c.title, c.user_id is not null as "is_stored!",
                  exists (select from fathom_calls other
                          where other.recording_id = k.recording_id and other.user_id <> k.user_id)
                  or exists (select from embedding_queue other
                             where other.recording_id = k.recording_id and other.user_id <> k.user_id
                               and other.status <> 'completed') as "shares_number!",
                  s.segments as "segments!", s.skipped as "skipped!",
                  current.id is not null as "is_current!",
                  (select count(*) from transcript_chunks t where t.chunk_set_id = current.id) as "searchable!",
                  (select count(*) from transcript_chunks t where t.chunk_set_id = building.id) as "stored!",
                  coalesce(building.chunks_expected, 0) as "chunks!",
                  (select count(*) from workers where alive_until > now()) as "workers!",
                  (select case when count(*) = count(provider_trouble) then min(provider_trouble) end
                   from workers where alive_until > now()) as provider_trouble,
                  (select by from pauses where part = 'main') as main_paused_by,
                  (select by from pauses where part = 'recovery') as recovery_paused_by
           from (values ($1::text, $2::bigint)) as k (user_id, recording_id)
           left join fathom_calls c on c.user_id = k.user_id and c.recording_id = k.recording_id
           cross join lateral (
               select count(*) as segments,
                      count(*) filter (where is_deleted is not true
                                         and btrim(coalesce(edited_text, text, ''), E' \t\r\n') = '') as skipped
               from fathom_transcripts t
               where t.user_id = k.user_id and t.recording_id = k.recording_id
           ) s
           left join lateral (
               select b.id from chunk_sets b
               join embedding_models m on m.name = b.model and m.state = 'current'
               where b.user_id = k.user_id and b.recording_id = k.recording_id and b.state = 'current'
           ) current on true
           left join lateral (
               select b.id, b.chunks_expected from chunk_sets b
               where b.user_id = k.user_id and b.recording_id = k.recording_id and b.state = 'building'
               order by b.created_at desc limit 1
           ) building on true
           where c.user_id is not null
              or exists (select from embedding_queue q
                         where q.user_id = k.user_id and q.recording_id = k.recording_id
                           and q.status <> 'completed')"#,
        key.user_id,
        key.recording_id
    )
    .map(|row| Call {
        title: row.title,
        is_stored: row.is_stored,
        shares_number: row.shares_number,
        segment_count: row.segments as u64,
        segments_skipped: row.skipped as u64,
        is_current: row.is_current,
        chunks_searchable: row.searchable as u32,
        chunks_stored: row.stored as u32,
        chunks: row.chunks as u32,
        workers: row.workers as u64,
        provider_trouble: row.provider_trouble,
        main_paused_by: row.main_paused_by,
        recovery_paused_by: row.recovery_paused_by,
    })
    .fetch_optional(connection)
    .await?;
    Ok(call)
}

struct NewestTask {
    facts: TaskFacts,
    worker_id: Option<Uuid>,
    lease_ends_at: Option<chrono::DateTime<chrono::Utc>>,
    next_attempt_at: Option<chrono::DateTime<chrono::Utc>>,
    last_error: Option<String>,
}

/// An open task is found by its recording; a completed one by its last attempt, since there may be
/// many of them.
async fn newest_task(
    connection: &mut Session,
    key: &RecordingKey,
) -> Result<Option<NewestTask>, Failure> {
    let task = sqlx::query!(
        r#"with task as (
               select q.* from embedding_queue q
               where q.user_id = $1 and q.recording_id = $2 and q.status <> 'completed'
               union all
               select q.* from embedding_queue q
               where q.status = 'completed' and q.id = (
                   select a.task_id from embedding_attempts a
                   where a.user_id = $1 and a.recording_id = $2
                   order by a.started_at desc limit 1)
           )
           select t.status as "status!", t.attempts as "attempts!", t.max_attempts as "max_attempts!",
                  t.dead_letter_permanent as "permanent!", t.crashes > 0 as "suspect!",
                  t.worker_id, t.lease_expires_at, t.next_retry_at,
                  case when t.status <> 'completed' then coalesce(t.dead_letter_reason, t.last_error) end as last_error,
                  extract(epoch from t.next_retry_at - now())::float8 as due_secs,
                  extract(epoch from t.lease_expires_at - now())::float8 as lease_secs,
                  (select count(*) from (
                       select from embedding_queue q
                       where q.status in ('pending', 'failed') and q.crashes = 0
                         and coalesce(q.for_model, '') = coalesce(t.for_model, '')
                         and (q.next_retry_at is null or q.next_retry_at <= now())
                         and (q.claim_rank, q.created_at) > (t.claim_rank, t.created_at)
                       limit $3) before) as "ahead!"
           from task t
           order by (t.status <> 'completed') desc, t.for_model nulls first, t.created_at desc
           limit 1"#,
        key.user_id,
        key.recording_id,
        AHEAD_MAX
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = task else { return Ok(None) };
    let until = |secs: Option<f64>| -> Option<Duration> { secs.map(from_secs) };
    Ok(Some(NewestTask {
        facts: TaskFacts {
            state: state(&row.status)?,
            attempts: row.attempts as u32,
            max_attempts: row.max_attempts as u32,
            is_permanent: row.permanent,
            is_suspect: row.suspect,
            due_in: until(row.due_secs),
            lease_ends_in: until(row.lease_secs),
            ahead: row.ahead as u64,
        },
        worker_id: row.worker_id,
        lease_ends_at: row.lease_expires_at,
        next_attempt_at: row.next_retry_at,
        last_error: row.last_error,
    }))
}

fn state(stored: &str) -> Result<TaskState, Failure> {
    TaskState::ALL.into_iter().find(|state| state.as_str() == stored).ok_or_else(|| {
        Failure::DatabaseRefuses { message: format!("a task is in the unknown state {stored}") }
    })
}

async fn attempts(
    connection: &mut Session,
    key: &RecordingKey,
) -> Result<Vec<AttemptRecord>, Failure> {
    let attempts = sqlx::query!(
        "select * from (
             select number, part, started_at, extract(epoch from ended_at - started_at)::float8 as took_secs,
                    outcome, failure_class, message, trace_id, worker_id, tokens
             from embedding_attempts
             where user_id = $1 and recording_id = $2
             order by started_at desc limit $3) a
         order by started_at",
        key.user_id,
        key.recording_id,
        ATTEMPTS_MAX
    )
    .map(|row| AttemptRecord {
        number: row.number as u32,
        part: part(&row.part),
        started_at: row.started_at,
        took_secs: row.took_secs,
        outcome: row.outcome,
        failure_class: row.failure_class,
        message: row.message,
        trace_id: row.trace_id,
        worker_id: row.worker_id,
        tokens: row.tokens.map(|tokens| tokens as u64),
    })
    .fetch_all(connection)
    .await?;
    Ok(attempts)
}

struct Totals {
    tokens: u64,
    chunks_reused: u64,
}

async fn totals(connection: &mut Session, key: &RecordingKey) -> Result<Totals, Failure> {
    let row = sqlx::query!(
        r#"select coalesce(sum(tokens), 0)::bigint as "tokens!",
                  coalesce(sum(chunks_reused), 0)::bigint as "chunks_reused!"
           from embedding_attempts where user_id = $1 and recording_id = $2"#,
        key.user_id,
        key.recording_id
    )
    .fetch_one(connection)
    .await?;
    Ok(Totals { tokens: row.tokens as u64, chunks_reused: row.chunks_reused as u64 })
}
