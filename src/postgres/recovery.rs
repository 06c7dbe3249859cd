//! Claims of dead letters, and the runs that they are claimed under. Each decision is one statement, so
//! that any number of processes come to the same one.

use std::time::Duration;

use uuid::Uuid;

use super::claims::{one_claim_at_a_time, waited};
use super::connection::Pool;
use super::runs;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Task};
use crate::domain::trace::Origins;
use crate::ports::{Occasion, Recovery, RecoveryRun, RunCause};

/// Begins a run where there is reason to: one that was asked for first.
pub(super) async fn begin(
    pool: &Pool,
    worker: Uuid,
    model_name: &str,
    occasion: Occasion,
) -> Result<Recovery, Failure> {
    runs::end_abandoned(pool, Part::Recovery, worker).await?;
    if let Some(id) = runs::take_up(pool, Part::Recovery, worker).await? {
        return Ok(Recovery {
            run: Some(RecoveryRun { id, cause: RunCause::Run }),
            next_due: None,
        });
    }
    let begun = sqlx::query!(
        r#"insert into runs (part, cause, worker_id, started_at)
           select 'recovery', cause, $1, clock_timestamp()
           from (select case
                     when exists (select from embedding_queue
                                  where recovery_requested is not null and status in ('pending', 'failed', 'dead_letter')
                                    and coalesce(for_model, '') = tasks_of_model($2)
                                    and coalesce(next_retry_at, '-infinity') <= now()) then 'request'
                     when $3 and exists (select from embedding_queue
                                  where status = 'dead_letter' and not dead_letter_permanent
                                    and part in ('main', 'recovery') and coalesce(for_model, '') = tasks_of_model($2)
                                    and coalesce(next_retry_at, '-infinity') <= now()) then 'schedule'
                     when exists (select from embedding_queue
                                  where status = 'dead_letter' and not dead_letter_permanent
                                    and part = 'recovery' and coalesce(for_model, '') = tasks_of_model($2)
                                    and coalesce(next_retry_at, '-infinity') <= now()) then 'due'
                 end as cause) c
           where cause is not null and not is_paused('recovery')
           returning id, cause"#,
        worker,
        model_name,
        occasion == Occasion::Tick
    )
    .map(|row| RecoveryRun {
        id: row.id,
        cause: match row.cause.as_str() {
            "request" => RunCause::Request,
            "schedule" => RunCause::Schedule,
            _ => RunCause::Due,
        },
    })
    .fetch_optional(pool)
    .await?;
    // One that fell due since counts too, or nobody would look before the next tick.
    let next_due_secs = sqlx::query_scalar!(
        "select extract(epoch from min(next_retry_at) - clock_timestamp())::float8
         from (select min(next_retry_at) as next_retry_at from embedding_queue
               where recovery_requested is not null and status in ('pending', 'failed', 'dead_letter')
                 and coalesce(for_model, '') = tasks_of_model($1)
               union all
               -- One without a time is due now, and was begun above.
               select nullif(min(coalesce(next_retry_at, '-infinity')), '-infinity') from embedding_queue
               where status = 'dead_letter' and not dead_letter_permanent
                 and part = 'recovery' and coalesce(for_model, '') = tasks_of_model($1)) due
         where not is_paused('recovery')",
        model_name
    )
    .fetch_one(pool)
    .await?;
    let next_due = next_due_secs.map(|secs| Duration::from_secs_f64(secs.max(0.0)));
    Ok(Recovery { run: begun, next_due })
}

/// True where a run is under way in a process that is alive or waits for one, or recordings are asked
/// for.
pub(super) async fn is_pending(pool: &Pool, model_name: &str) -> Result<bool, Failure> {
    let pending = sqlx::query_scalar!(
        r#"select exists (select from runs r
                          where r.part = 'recovery' and r.ended_at is null
                            and (r.worker_id is null
                                 or exists (select from workers w where w.id = r.worker_id
                                              and w.alive_until > clock_timestamp())))
                  or not is_paused('recovery') and exists (
                      select from embedding_queue
                      where coalesce(for_model, '') = tasks_of_model($1) and recovery_requested is not null)
                  as "pending!""#,
        model_name
    )
    .fetch_one(pool)
    .await?;
    Ok(pending)
}

/// Leases dead letters for a run. The row locks make every claim another's or ours, never both's.
pub(super) async fn claim(
    pool: &Pool,
    worker: Uuid,
    model_name: &str,
    run: &RecoveryRun,
    rows_max: u32,
    lease: Duration,
) -> Result<Vec<Task>, Failure> {
    let mut claiming = pool.begin().await?;
    one_claim_at_a_time(&mut claiming, worker).await?;
    let tasks = sqlx::query!(
        r#"with asked as (
               select id, clock_timestamp() - coalesce(next_retry_at, created_at) as waited
               from embedding_queue
               where coalesce(for_model, '') = tasks_of_model($2) and status in ('pending', 'failed', 'dead_letter')
                 and recovery_requested is not null
                 and coalesce(next_retry_at, '-infinity') <= clock_timestamp()
                 and not is_paused('recovery')
                 -- Nothing begins beside a suspect.
                 and not exists (select from embedding_queue mine where mine.worker_id = $1
                                   and mine.status = 'processing' and mine.claimed_alone)
               order by created_at, id
               limit $4
               for update skip locked
           ), due as (
               select id, clock_timestamp() - coalesce(next_retry_at, created_at) as waited
               from embedding_queue
               where not $3 and coalesce(for_model, '') = tasks_of_model($2) and status = 'dead_letter'
                 and recovery_requested is null and not dead_letter_permanent
                 and coalesce(next_retry_at, '-infinity') <= clock_timestamp()
                 and not is_paused('recovery')
                 and not exists (select from embedding_queue mine where mine.worker_id = $1
                                   and mine.status = 'processing' and mine.claimed_alone)
               order by created_at, id
               limit $4 - (select count(*) from asked)
               for update skip locked
           ), picked as (
               select id, waited from asked union all select id, waited from due
           ), taken as (
               update embedding_queue q
               set status = 'processing', recovered_from = q.status, part = 'recovery', claimed_alone = false,
                   worker_id = $1, locked_at = clock_timestamp(), next_retry_at = null,
                   dead_letter_reason = null, lease_token = gen_random_uuid(),
                   lease_expires_at = clock_timestamp() + make_interval(secs => $5)
               from picked where q.id = picked.id
               returning q.*, picked.waited
           ), opened as (
               insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, part)
               select id, user_id, recording_id, $1, attempts, 'recovery' from taken
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
           order by t.created_at, t.id"#,
        worker,
        model_name,
        run.cause == RunCause::Request,
        i64::from(rows_max),
        lease.as_secs_f64(),
    )
    .map(|row| Task {
        lease: Lease { task_id: row.id, attempt_id: row.attempt_id, token: row.token },
        key: RecordingKey { user_id: row.user_id, recording_id: row.recording_id },
        attempts: row.attempts as u32,
        max_attempts: row.max_attempts as u32,
        crashes_alone: row.crashes_alone as u32,
        releases: row.releases as u32,
        alone: false,
        part: Part::Recovery,
        recoveries: row.recoveries as u32,
        afresh: row.afresh,
        origins: Origins::read(row.previous.as_deref(), row.request.as_deref()),
        waited: waited(row.waited_secs),
    })
    .fetch_all(&mut *claiming)
    .await?;
    claiming.commit().await?;
    Ok(tasks)
}

/// Withdraws requests, and lets what was recovered before wait: what failed as the first did would do
/// so again.
pub(super) async fn hold_off(
    pool: &Pool,
    model_name: &str,
    fingerprint: &str,
    after: Duration,
) -> Result<u64, Failure> {
    let held = sqlx::query!(
        "update embedding_queue
         set recovery_requested = null,
             next_retry_at = case when not dead_letter_permanent then clock_timestamp() + make_interval(secs => $2) end
         where coalesce(for_model, '') = tasks_of_model($1) and status in ('pending', 'failed', 'dead_letter')
           and failure_fingerprint = $3
           and (recovery_requested is not null
                or status = 'dead_letter' and part = 'recovery' and next_retry_at <= clock_timestamp())",
        model_name,
        after.as_secs_f64(),
        fingerprint
    )
    .execute(pool)
    .await?;
    Ok(held.rows_affected())
}
