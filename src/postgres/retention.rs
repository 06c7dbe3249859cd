//! What is not kept for ever: completed tasks, with their attempts and the jobs that asked for them, and
//! runs that are over. What an administrator asked for stays: it is rare, and tells who did what.

use std::time::Duration;

use super::connection::Pool;
use crate::domain::failure::Failure;

/// Deletes the oldest tasks that completed more than `after` ago, at most `rows_max`, and then jobs that
/// are older and have no task any more, and runs that ended before; returns how many tasks. Tasks of the next model stay: what they
/// cost is counted until the change is over. To be called behind the writing of history, which counts
/// attempts.
pub(super) async fn forget_completed(
    pool: &Pool,
    after: Duration,
    rows_max: u32,
) -> Result<u64, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    let forgotten = sqlx::query!(
        "delete from embedding_queue where id = any(array(
             select q.id from embedding_queue q
             where q.status = 'completed' and q.completed_at < now() - make_interval(secs => $1)
               and not exists (select from embedding_models m where m.name = q.for_model and m.state = 'next')
             order by q.completed_at
             limit $2
             for update skip locked))",
        after.as_secs_f64(),
        i64::from(rows_max)
    )
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    if forgotten < u64::from(rows_max) {
        sqlx::query!(
            "delete from embedding_jobs j
             where j.created_at < now() - make_interval(secs => $1)
               and not exists (select from job_tasks t where t.job_id = j.id)",
            after.as_secs_f64()
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "delete from runs where ended_at < now() - make_interval(secs => $1)",
            after.as_secs_f64()
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(forgotten)
}
