//! `runs`: what of the work of each part is kept.

use uuid::Uuid;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::ports::RunResult;

/// Asks for a run; a process takes it up.
pub(super) async fn ask_for(
    connection: &mut Session,
    part: Part,
    action_id: Uuid,
) -> Result<Uuid, Failure> {
    let id = sqlx::query_scalar!(
        "insert into runs (part, cause, action_id) values ($1, 'run', $2) returning id",
        part.as_str(),
        action_id
    )
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// Takes up the run that was asked for first, if one was.
pub(super) async fn take_up(
    pool: &Pool,
    part: Part,
    worker: Uuid,
) -> Result<Option<Uuid>, Failure> {
    let id = sqlx::query_scalar!(
        "update runs set started_at = clock_timestamp(), worker_id = $2
         where id = (select id from runs where part = $1 and started_at is null
                     order by requested_at limit 1 for update skip locked)
         returning id",
        part.as_str(),
        worker
    )
    .fetch_optional(pool)
    .await?;
    Ok(id)
}

/// A process signs on within this time: a run that began before, of a worker that nobody knows, is one
/// of a process that is gone.
const SIGNED_ON_SECS: f64 = 60.0;

/// Ends the runs of a part that a process left open, and the actions that asked for them: this worker's
/// own, which has none now, and those of the dead.
pub(super) async fn end_abandoned(pool: &Pool, part: Part, worker: Uuid) -> Result<(), Failure> {
    sqlx::query!(
        "with abandoned as (
             update runs r set ended_at = clock_timestamp(), stopped_because = 'its process ended'
             where part = $1 and started_at is not null and ended_at is null
               and (worker_id = $2
                    or exists (select from workers w
                               where w.id = r.worker_id and w.alive_until < clock_timestamp())
                    or started_at < clock_timestamp() - make_interval(secs => $3)
                       and not exists (select from workers w where w.id = r.worker_id))
             returning action_id
         )
         update admin_actions a
         set outcome = 'stopped: its process ended', ended_at = clock_timestamp()
         from abandoned where a.id = abandoned.action_id and a.outcome is null",
        part.as_str(),
        worker,
        SIGNED_ON_SECS
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes what came of a run, and of the action that asked for it.
pub(super) async fn end(pool: &Pool, run_id: Uuid, result: &RunResult) -> Result<(), Failure> {
    let mut transaction = pool.begin().await?;
    let action_id = sqlx::query_scalar!(
        "update runs set ended_at = clock_timestamp(), taken = $2, completed = $3, failed = $4, stopped_because = $5
         where id = $1 returning action_id",
        run_id,
        result.taken as i32,
        result.completed as i32,
        result.failed as i32,
        result.stopped_because
    )
    .fetch_optional(&mut *transaction)
    .await?;
    match action_id.flatten() {
        Some(action_id) => {
            let RunResult { taken, completed, failed, stopped_because } = result;
            let mut outcome = format!("{taken} taken, {completed} completed, {failed} failed");
            if let Some(reason) = stopped_because {
                outcome += &format!("; stopped: {reason}");
            }
            super::admin_actions::end(&mut transaction, action_id, &outcome).await?;
        }
        // Whoever finds nothing to do leaves no trace.
        None => {
            sqlx::query!(
                "delete from runs where id = $1 and taken = 0 and stopped_because is null",
                run_id
            )
            .execute(&mut *transaction)
            .await?;
        }
    }
    Ok(transaction.commit().await?)
}

/// Keeps a tick of the main part that enqueued something.
pub(super) async fn note_main_tick(
    pool: &Pool,
    worker: Uuid,
    enqueued: u64,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into runs (part, cause, worker_id, started_at, ended_at, taken)
         values ('main', 'schedule', $1, clock_timestamp(), clock_timestamp(), $2)",
        worker,
        enqueued as i32
    )
    .execute(pool)
    .await?;
    Ok(())
}
