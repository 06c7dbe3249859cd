//! What was asked for and what was run: jobs and runs, newest first.

use super::super::connection::Pool;
use super::part;
use crate::domain::failure::Failure;
use crate::ports::inspector::{Job, Run};

/// A job may have millions of tasks, most of them completed: those are only counted, by the job, and
/// whatever is not completed is found in the queue. This takes its time all the same.
pub(super) async fn jobs(pool: &Pool, limit: u32) -> Result<Vec<Job>, Failure> {
    let mut transaction = super::super::begin_patient(pool).await?;
    let jobs = sqlx::query!(
        r#"with shown as materialized (
               select id, created_at, requested_by from embedding_jobs
               order by created_at desc, id limit $1
           ), unfinished as materialized (
               select jt.job_id, count(*) as tasks, count(*) filter (where t.status = 'dead_letter') as dead_letter
               from embedding_queue t join job_tasks jt on jt.task_id = t.id
               where t.status <> 'completed' and jt.job_id in (select id from shown)
               group by jt.job_id
           )
           select j.id as "id!", j.created_at as "created_at!", j.requested_by, p.tasks as "tasks!",
                  p.tasks - coalesce(u.tasks, 0) as "completed!", coalesce(u.dead_letter, 0) as "dead_letter!"
           from shown j
           cross join lateral (select count(*) as tasks from job_tasks jt where jt.job_id = j.id) p
           left join unfinished u on u.job_id = j.id
           order by j.created_at desc, j.id"#,
        i64::from(limit)
    )
    .map(|row| Job {
        id: row.id,
        created_at: row.created_at,
        requested_by: row.requested_by,
        tasks: row.tasks as u64,
        completed: row.completed as u64,
        dead_letter: row.dead_letter as u64,
    })
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(jobs)
}

/// A run that failed is one in which something failed, or that ended early.
pub(super) async fn runs(pool: &Pool, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure> {
    let runs = sqlx::query!(
        r#"select id, part, cause, coalesce(started_at, requested_at) as "started_at!", ended_at, taken,
                  completed, failed, stopped_because
           from runs
           where not $1 or failed > 0 or stopped_because is not null
           order by 4 desc, id
           limit $2"#,
        failed_only,
        i64::from(limit)
    )
    .map(|row| Run {
        id: row.id,
        part: part(&row.part),
        cause: row.cause,
        started_at: row.started_at,
        ended_at: row.ended_at,
        taken: row.taken as u64,
        completed: row.completed as u64,
        failed: row.failed as u64,
        stopped_because: row.stopped_because,
    })
    .fetch_all(pool)
    .await?;
    Ok(runs)
}
