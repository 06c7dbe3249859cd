//! `embedding_queue`: claims of the main part, renewals, and what is given back or swept.

use std::time::Duration;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Task};
use crate::domain::trace::Origins;
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
    let claim = sqlx::query!(
        r#"with picked as (
               select id, clock_timestamp() - coalesce(next_retry_at, created_at) as waited
               from embedding_queue
               where status in ('pending', 'failed') and coalesce(for_model, '') = tasks_of_model($5)
                 and (next_retry_at is null or next_retry_at <= clock_timestamp())
                 and (crashes > 0) = $3
                 -- Asked for: the recovery part's.
                 and recovery_requested is null and not is_paused('main')
                 and not ($3 and exists (select from embedding_queue mine
                                         where mine.worker_id = $1 and mine.status = 'processing'))
               order by claim_rank desc, created_at desc
               limit $2
               for update skip locked
           ), taken as (
               update embedding_queue q
               set status = 'processing', attempts = q.attempts + 1, claimed_alone = $3, part = 'main',
                   worker_id = $1, locked_at = clock_timestamp(), next_retry_at = null,
                   lease_token = gen_random_uuid(),
                   lease_expires_at = clock_timestamp() + make_interval(secs => $4)
               from picked where q.id = picked.id
               returning q.*, picked.waited
           ), opened as (
               insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, alone)
               select id, user_id, recording_id, $1, attempts, $3 from taken
               returning id, task_id
           )
           select t.id, o.id as attempt_id, t.lease_token as "token!", t.user_id, t.recording_id,
                  t.attempts, t.max_attempts, t.crashes_alone, t.releases, t.recoveries, t.afresh,
                  extract(epoch from t.waited)::float8 as waited_secs,
                  t.traceparent::text as request,
                  -- The attempt that was opened just now is not seen by this statement.
                  (select a.traceparent::text from embedding_attempts a
                   where a.task_id = t.id order by a.started_at desc limit 1) as previous
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
        part: Part::Main,
        recoveries: row.recoveries as u32,
        afresh: row.afresh,
        origins: Origins::read(row.previous.as_deref(), row.request.as_deref()),
        waited: waited(row.waited_secs),
    });
    let tasks = match of {
        ClaimOf::Healthy(_) => claim.fetch_all(pool).await?,
        ClaimOf::Suspect => {
            let mut claiming = pool.begin().await?;
            one_claim_at_a_time(&mut claiming, worker).await?;
            let tasks = claim.fetch_all(&mut *claiming).await?;
            claiming.commit().await?;
            tasks
        }
    };
    let outlook = sqlx::query!(
        r#"select coalesce(bool_or(crashes > 0 and coalesce(next_retry_at, '-infinity') <= now()), false) as "suspect_waits!",
                  -- What fell due between the two statements counts too, or it would wait for a tick.
                  extract(epoch from min(next_retry_at) filter (where crashes = 0 or next_retry_at > now()) - now())::float8 as next_due_secs
           from embedding_queue
           where status in ('pending', 'failed') and (crashes > 0 or next_retry_at is not null)
             and recovery_requested is null and not is_paused('main')
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

/// Waits for a claim that another part of this worker makes, so that this one sees what came of it: a
/// suspect runs alone only where neither begins something beside it.
pub(super) async fn one_claim_at_a_time(
    connection: &mut Session,
    worker: Uuid,
) -> Result<(), Failure> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", worker.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// What a claim says of the time that its task waited. A task of an adopted table may say nothing.
pub(super) fn waited(secs: Option<f64>) -> Duration {
    let waited = secs.map(|secs| Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default());
    waited.unwrap_or_default()
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
