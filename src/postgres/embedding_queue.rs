//! `embedding_queue`: claims, renewals and settlements, each one statement under the lease.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::connection::Pool;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Settlement, Task, TaskState};
use crate::ports::{ClaimOf, Claimed, TaskCounts};

/// Leases due tasks of one model. The plain `skip locked` claim is right because a recording has at
/// most one open task for it.
pub(super) async fn claim(
    pool: &Pool,
    worker: Uuid,
    model_name: &str,
    of: ClaimOf,
    lease: Duration,
) -> Result<Claimed, Failure> {
    let (rows_max, alone) = match of {
        ClaimOf::Healthy(rows_max) => (rows_max, false),
        ClaimOf::Suspect => (1, true),
    };
    let tasks = sqlx::query!(
        r#"with picked as (
               select id from embedding_queue
               where status in ('pending', 'failed') and coalesce(for_model, '') = tasks_of_model($5)
                 and (next_retry_at is null or next_retry_at <= clock_timestamp())
                 and (crashes > 0) = $3
               order by claim_rank desc, created_at desc
               limit $2
               for update skip locked
           ), taken as (
               update embedding_queue q
               set status = 'processing', attempts = q.attempts + 1, claimed_alone = $3,
                   worker_id = $1, locked_at = clock_timestamp(), next_retry_at = null,
                   lease_token = gen_random_uuid(),
                   lease_expires_at = clock_timestamp() + make_interval(secs => $4)
               from picked where q.id = picked.id
               returning q.*
           ), opened as (
               insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, alone)
               select id, user_id, recording_id, $1, attempts, $3 from taken
               returning id, task_id
           )
           select t.id, o.id as attempt_id, t.lease_token as "token!", t.user_id, t.recording_id,
                  t.attempts, t.max_attempts, t.crashes_alone, t.releases
           from taken t join opened o on o.task_id = t.id
           order by t.claim_rank desc, t.created_at desc"#,
        worker,
        i64::from(rows_max),
        alone,
        lease.as_secs_f64(),
        model_name,
    )
    .map(|row| Task {
        lease: Lease { task_id: row.id, attempt_id: row.attempt_id, token: row.token },
        key: RecordingKey { user_id: row.user_id, recording_id: row.recording_id },
        attempts: row.attempts as u32,
        max_attempts: row.max_attempts as u32,
        crashes_alone: row.crashes_alone as u32,
        releases: row.releases as u32,
        alone,
    })
    .fetch_all(pool)
    .await?;
    let outlook = sqlx::query!(
        r#"select coalesce(bool_or(crashes > 0 and coalesce(next_retry_at, '-infinity') <= now()), false) as "suspect_waits!",
                  extract(epoch from min(next_retry_at) filter (where next_retry_at > now()) - now())::float8 as next_due_secs
           from embedding_queue
           where status in ('pending', 'failed') and (crashes > 0 or next_retry_at is not null)
             and coalesce(for_model, '') = tasks_of_model($1)"#,
        model_name
    )
    .fetch_one(pool)
    .await?;
    Ok(Claimed {
        tasks,
        suspect_waits: outlook.suspect_waits,
        next_due: outlook.next_due_secs.map(|secs| Duration::from_secs_f64(secs.max(0.0))),
    })
}

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
    known: &[Uuid],
) -> Result<u64, Failure> {
    let released = sqlx::query_scalar!(
        r#"with task as (
               update embedding_queue set
                   status = 'pending', attempts = attempts - 1, lease_token = null,
                   lease_expires_at = null, locked_at = null, worker_id = null
               where worker_id = $1 and status = 'processing' and lease_token <> all($2)
               returning id
           ), attempt as (
               update embedding_attempts
               set outcome = 'released', ended_at = clock_timestamp(),
                   message = 'the answer to the claim was lost'
               where outcome is null and worker_id = $1 and task_id in (select id from task)
           )
           select count(*) as "released!" from task"#,
        worker,
        known,
    )
    .fetch_one(pool)
    .await?;
    Ok(released as u64)
}

/// Leases whose time is over.
pub(super) async fn expired(pool: &Pool, rows_max: u32) -> Result<Vec<Task>, Failure> {
    let tasks = sqlx::query!(
        r#"select q.id, q.lease_token as "token!", a.id as "attempt_id?", q.user_id, q.recording_id,
                  q.attempts, q.max_attempts, q.crashes_alone, q.releases, q.claimed_alone
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
    })
    .fetch_all(pool)
    .await?;
    Ok(tasks)
}

/// Writes a settlement and closes the attempt. The token is the key: it is gone once settled, so
/// the same settlement sent twice changes nothing. A task asked for anew while its last attempt
/// failed for good begins afresh.
pub(super) async fn settle(
    pool: &Pool,
    lease: &Lease,
    failure: &Failure,
    settlement: &Settlement,
) -> Result<bool, Failure> {
    let expired = *failure == Failure::LeaseExpired;
    let (state, outcome, after_secs, uncounted, counted_release, permanent) = match settlement {
        Settlement::Retry { after } => {
            (TaskState::Failed, "retry", Some(after.as_secs_f64()), false, false, false)
        }
        Settlement::DeadLetter { permanent } => {
            (TaskState::DeadLetter, "dead_letter", None, false, false, *permanent)
        }
        Settlement::Release { counted } => {
            (TaskState::Pending, "released", None, true, *counted, false)
        }
    };
    let settled = sqlx::query_scalar!(
        r#"with task as (
               update embedding_queue set
                   status = case when dirty and $4 = 'dead_letter' then 'pending' else $4 end,
                   attempts = case when dirty and $4 = 'dead_letter' then 0
                                   else attempts - case when $6 then 1 else 0 end end,
                   releases = releases + case when $7 then 1 else 0 end,
                   crashes = crashes + case when $8 then 1 else 0 end,
                   crashes_alone = crashes_alone + case when $8 and claimed_alone then 1 else 0 end,
                   next_retry_at = clock_timestamp() + make_interval(secs => $5),
                   last_error = $9, failure_class = $10, failure_fingerprint = $11,
                   dead_letter_reason = case when $4 = 'dead_letter' and not dirty then $9 end,
                   dead_letter_permanent = $12 and not dirty,
                   dirty = false, lease_token = null, lease_expires_at = null,
                   locked_at = null, worker_id = null
               where id = $1 and lease_token = $2 and status = 'processing'
                 and (not $8 or lease_expires_at < clock_timestamp())
               returning id
           ), attempt as (
               update embedding_attempts
               set outcome = $13, ended_at = clock_timestamp(), failure_class = $10, message = $9
               where id = $3 and outcome is null and exists (select from task)
           )
           select count(*) as "settled!" from task"#,
        lease.task_id,
        lease.token,
        lease.attempt_id,
        state.as_str(),
        after_secs,
        uncounted,
        counted_release,
        expired,
        failure.to_string(),
        failure.class(),
        failure.fingerprint(),
        permanent,
        outcome,
    )
    .fetch_one(pool)
    .await?;
    Ok(settled == 1)
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
