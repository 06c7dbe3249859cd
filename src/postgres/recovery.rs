//! Runs of the recovery part: when one begins, and what is put off; `claims` takes their dead letters.
//! Each decision is one statement, so that any number of processes come to the same one.

use std::time::Duration;

use uuid::Uuid;

use super::connection::Pool;
use super::runs;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
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
