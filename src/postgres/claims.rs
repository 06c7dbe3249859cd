//! Claims of `embedding_queue`: the tasks that are due, the most urgent first.

use std::time::{Duration, Instant};

use sqlx::PgExecutor;
use uuid::Uuid;

use super::claim_marks::{ClaimMarks, Place};
use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Task};
use crate::domain::trace::Origins;
use crate::ports::{ClaimOf, Claimed};

/// Leases due tasks of one model. The plain `skip locked` claim is right because a recording has at
/// most one open task for it.
pub(super) async fn claim(
    pool: &Pool,
    marks: &ClaimMarks,
    worker: Uuid,
    model_name: &str,
    of: ClaimOf,
    lease: Duration,
) -> Result<Claimed, Failure> {
    let tasks = match of {
        // What is not suspect may begin beside anything: one round trip.
        ClaimOf::Healthy(rows_max) => {
            take_healthy(pool, marks, worker, model_name, rows_max, lease).await?
        }
        ClaimOf::Suspect => {
            let mut claiming = pool.begin().await?;
            one_claim_at_a_time(&mut claiming, worker).await?;
            let wanted = Wanted { rows_max: 1, alone: true, from: Place::FIRST };
            let (tasks, _) = take(&mut *claiming, worker, model_name, wanted, lease).await?;
            claiming.commit().await?;
            tasks
        }
    };
    let (suspect_waits, next_due) = outlook(pool, model_name).await?;
    Ok(Claimed { tasks, suspect_waits, next_due })
}

/// Leases from where the last claim ended, and what is missing then from the first place on.
async fn take_healthy(
    pool: &Pool,
    marks: &ClaimMarks,
    worker: Uuid,
    model_name: &str,
    rows_max: u32,
    lease: Duration,
) -> Result<Vec<Task>, Failure> {
    let from = marks.place(model_name);
    let wanted = Wanted { rows_max, alone: false, from };
    let asked = Instant::now();
    let (mut tasks, last) = take(pool, worker, model_name, wanted, lease).await?;
    let missing = rows_max.saturating_sub(tasks.len() as u32);
    marks.note(model_name, from, last.filter(|_| missing == 0), asked.elapsed());
    if missing > 0 && from != Place::FIRST {
        let rest = Wanted { rows_max: missing, alone: false, from: Place::FIRST };
        tasks.extend(take(pool, worker, model_name, rest, lease).await?.0);
    }
    Ok(tasks)
}

/// What a claim is to take.
struct Wanted {
    rows_max: u32,
    /// A suspect, which is to run alone, or tasks that are none.
    alone: bool,
    /// What is more urgent is passed over.
    from: Place,
}

/// Leases tasks, the most urgent first; returns them and the place of the last.
async fn take(
    executor: impl PgExecutor<'_>,
    worker: Uuid,
    model_name: &str,
    wanted: Wanted,
    lease: Duration,
) -> Result<(Vec<Task>, Option<Place>), Failure> {
    let Wanted { rows_max, alone, from } = wanted;
    let taken = sqlx::query!(
        r#"with picked as (
               select id, clock_timestamp() - coalesce(next_retry_at, created_at) as waited
               from embedding_queue
               where status in ('pending', 'failed') and coalesce(for_model, '') = tasks_of_model($5)
                 and (next_retry_at is null or next_retry_at <= clock_timestamp())
                 and (claim_rank, created_at) <= ($6::bigint, $7::timestamptz)
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
                  t.traceparent::text as request, t.claim_rank as "claim_rank!", t.created_at,
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
        from.claim_rank,
        from.created_at,
    )
    .map(|row| {
        let place = Place { claim_rank: row.claim_rank, created_at: row.created_at };
        let task = Task {
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
        };
        (task, place)
    })
    .fetch_all(executor)
    .await?;
    let last = taken.last().map(|(_, place)| *place);
    Ok((taken.into_iter().map(|(task, _)| task).collect(), last))
}

/// Whether a suspect waits, and when the next task falls due. What fell due since the claim counts too,
/// or it would wait for a tick.
async fn outlook(pool: &Pool, model_name: &str) -> Result<(bool, Option<Duration>), Failure> {
    let outlook = sqlx::query!(
        r#"select exists (select from embedding_queue
                          where status in ('pending', 'failed') and crashes > 0
                            and coalesce(next_retry_at, '-infinity') <= now()
                            and recovery_requested is null and not is_paused('main')
                            and coalesce(for_model, '') = tasks_of_model($1)) as "suspect_waits!",
                  (select extract(epoch from min(next_retry_at) - now())::float8 from embedding_queue
                   where status in ('pending', 'failed') and next_retry_at is not null
                     and (crashes = 0 or next_retry_at > now())
                     and recovery_requested is null and not is_paused('main')
                     and coalesce(for_model, '') = tasks_of_model($1)) as next_due_secs"#,
        model_name
    )
    .fetch_one(pool)
    .await?;
    let next_due = outlook.next_due_secs.map(|secs| Duration::from_secs_f64(secs.max(0.0)));
    Ok((outlook.suspect_waits, next_due))
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
