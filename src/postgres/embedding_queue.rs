//! `embedding_queue`: renewals, what a dead worker leaves, and counts. Claims and settlements have files
//! of their own.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::connection::Pool;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Task};
use crate::domain::trace::Origins;
use crate::ports::TaskCounts;

/// Moves the end of leases; an expired one that nobody claimed is still its holder's.
pub(super) async fn renew(
    pool: &Pool,
    tokens: &[Uuid],
    lease: Duration,
) -> Result<Vec<Uuid>, Failure> {
    let held = sqlx::query_scalar!(
        r#"update embedding_queue
           set lease_expires_at = clock_timestamp() + make_interval(secs => $2)
           where lease_token = any($1) and status = 'processing'
           returning lease_token as "token!""#,
        tokens,
        lease.as_secs_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(held)
}

/// Gives back what this worker leased without learning of it: the answer to its claim was lost.
pub(super) async fn release_unknown(
    pool: &Pool,
    worker: Uuid,
    part: Part,
    known: &[Uuid],
) -> Result<u64, Failure> {
    let released = sqlx::query_scalar!(
        r#"with task as (
               update embedding_queue set
                   status = case when $3 = 'main' then 'pending' else coalesce(recovered_from, 'dead_letter') end,
                   attempts = attempts - case when $3 = 'main' then 1 else 0 end,
                   dead_letter_reason = case when $3 <> 'main' and coalesce(recovered_from, 'dead_letter') = 'dead_letter' then coalesce(last_error, 'its recovery was interrupted') end,
                   next_retry_at = case when $3 <> 'main' and not dead_letter_permanent then clock_timestamp() end,
                   recovered_from = null, lease_token = null, lease_expires_at = null, locked_at = null, worker_id = null
               where worker_id = $1 and part = $3 and status = 'processing' and lease_token <> all($2)
               returning id
           ), attempt as (
               update embedding_attempts
               set outcome = 'released', ended_at = clock_timestamp(),
                   message = 'the answer to the claim was lost'
               where outcome is null and worker_id = $1 and part = $3 and task_id in (select id from task)
           )
           select count(*) as "released!" from task"#,
        worker,
        known,
        part.as_str(),
    )
    .fetch_one(pool)
    .await?;
    Ok(released as u64)
}

/// Leases whose time is over.
pub(super) async fn expired(pool: &Pool, rows_max: u32) -> Result<Vec<Task>, Failure> {
    let tasks = sqlx::query!(
        r#"select q.id, q.lease_token as "token!", a.id as "attempt_id?", q.user_id, q.recording_id,
                  q.attempts, q.max_attempts, q.crashes_alone, q.releases, q.claimed_alone, q.part, q.recoveries, q.afresh
           from embedding_queue q
           left join lateral (
               select id from embedding_attempts
               where task_id = q.id and outcome is null order by started_at desc limit 1
           ) a on true
           where q.status = 'processing' and q.lease_expires_at < clock_timestamp()
           order by q.lease_expires_at
           limit $1"#,
        i64::from(rows_max),
    )
    .map(|row| Task {
        lease: Lease {
            task_id: row.id,
            attempt_id: row.attempt_id.unwrap_or_default(),
            token: row.token,
        },
        key: RecordingKey { user_id: row.user_id, recording_id: row.recording_id },
        attempts: row.attempts as u32,
        max_attempts: row.max_attempts as u32,
        crashes_alone: row.crashes_alone as u32,
        releases: row.releases as u32,
        alone: row.claimed_alone,
        part: Part::of(&row.part),
        recoveries: row.recoveries as u32,
        afresh: row.afresh,
        // Nobody runs it any more.
        origins: Origins::default(),
        waited: Duration::ZERO,
    })
    .fetch_all(pool)
    .await?;
    Ok(tasks)
}

/// Tasks by state: of one model, or all.
pub(super) async fn counts(
    executor: impl PgExecutor<'_>,
    model_name: Option<&str>,
) -> Result<TaskCounts, Failure> {
    let row = sqlx::query!(
        r#"select count(*) filter (where status = 'pending') as "pending!",
                  count(*) filter (where status = 'processing') as "processing!",
                  count(*) filter (where status = 'completed') as "completed!",
                  count(*) filter (where status = 'failed') as "failed!",
                  count(*) filter (where status = 'dead_letter') as "dead_letter!"
           from embedding_queue
           where $1::text is null or for_model = $1 or coalesce(for_model, '') = tasks_of_model($1)"#,
        model_name
    )
    .fetch_one(executor)
    .await?;
    Ok(TaskCounts {
        pending: row.pending as u64,
        processing: row.processing as u64,
        completed: row.completed as u64,
        failed: row.failed as u64,
        dead_letter: row.dead_letter as u64,
    })
}
