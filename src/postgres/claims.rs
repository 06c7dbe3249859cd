//! Claims of `embedding_queue`: of the main part the most urgent tasks that are due, of a recovery run the
//! oldest dead letters. Each is one statement.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::claim_marks::{ClaimMarks, Place};
use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Task};
use crate::domain::trace::Origins;
use crate::ports::{ClaimOf, Claimed, RecoveryRun, RunCause};

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
    let taken = sqlx::query_as!(
        Leased,
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
                  t.claim_rank as "claim_rank!", t.created_at, t.traceparent::text as request,
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
    .fetch_all(executor)
    .await?;
    let last = taken.last().map(Leased::place);
    Ok((taken.into_iter().map(|row| row.into_task(Part::Main, alone)).collect(), last))
}

/// Leases dead letters for a run. The row locks make every claim another's or ours, never both's.
pub(super) async fn claim_dead_letters(
    pool: &Pool,
    worker: Uuid,
    model_name: &str,
    run: &RecoveryRun,
    rows_max: u32,
    lease: Duration,
) -> Result<Vec<Task>, Failure> {
    let mut claiming = pool.begin().await?;
    one_claim_at_a_time(&mut claiming, worker).await?;
    let taken = sqlx::query_as!(
        Leased,
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
                  t.claim_rank as "claim_rank!", t.created_at, t.traceparent::text as request,
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
    .fetch_all(&mut *claiming)
    .await?;
    claiming.commit().await?;
    Ok(taken.into_iter().map(|row| row.into_task(Part::Recovery, false)).collect())
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

/// A row that a claim returns.
struct Leased {
    id: Uuid,
    attempt_id: Uuid,
    token: Uuid,
    user_id: String,
    recording_id: i64,
    attempts: i32,
    max_attempts: i32,
    crashes_alone: i32,
    releases: i32,
    recoveries: i32,
    afresh: Option<Uuid>,
    claim_rank: i64,
    created_at: DateTime<Utc>,
    /// A task of an adopted table may say nothing.
    waited_secs: Option<f64>,
    /// The trace of what asked for the task, and that of its attempt before.
    request: Option<String>,
    previous: Option<String>,
}

impl Leased {
    fn place(&self) -> Place {
        Place { claim_rank: self.claim_rank, created_at: self.created_at }
    }

    fn into_task(self, part: Part, alone: bool) -> Task {
        let waited = self.waited_secs.map(|secs| Duration::try_from_secs_f64(secs.max(0.0)));
        Task {
            lease: Lease { task_id: self.id, attempt_id: self.attempt_id, token: self.token },
            key: RecordingKey { user_id: self.user_id, recording_id: self.recording_id },
            attempts: self.attempts as u32,
            max_attempts: self.max_attempts as u32,
            crashes_alone: self.crashes_alone as u32,
            releases: self.releases as u32,
            alone,
            part,
            recoveries: self.recoveries as u32,
            afresh: self.afresh,
            origins: Origins::read(self.previous.as_deref(), self.request.as_deref()),
            waited: waited.and_then(Result::ok).unwrap_or_default(),
        }
    }
}
