//! What must hold of `embedding_queue` and of the jobs that count its rows.

use super::super::connection::Session;
use super::{VIOLATIONS_MAX, Violation};
use crate::domain::failure::Failure;

pub(super) async fn illegal(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        "select user_id, recording_id, status, attempts, max_attempts from embedding_queue
         where status not in ('pending', 'processing', 'completed', 'failed', 'dead_letter')
            or (status = 'processing') <> (lease_token is not null)
            or (lease_token is null) <> (lease_expires_at is null)
            or (status = 'failed' and next_retry_at is null)
            or (status = 'completed' and completed_at is null)
            or (status = 'dead_letter') <> (dead_letter_reason is not null)
            or attempts > max_attempts
            or (status in ('pending', 'failed') and attempts = max_attempts)
         limit $1",
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a task is in exactly one legal state",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} with {} of {} attempts", row.status, row.attempts, row.max_attempts),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

pub(super) async fn double_leases(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select user_id, recording_id, count(*) as "leases!" from embedding_queue
           where status = 'processing' and lease_expires_at > clock_timestamp()
           group by user_id, recording_id, for_model having count(*) > 1
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a recording is worked on under one lease",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} live leases", row.leases),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// A job counts what its tasks are. Reported at the first of its recordings.
pub(super) async fn miscounted_by_jobs(
    connection: &mut Session,
) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select p.job_id as "job_id!", p.tasks as "tasks!", p.completed as "completed!",
                  p.dead_letter as "dead_letter!", t.user_id as "user_id!", t.recording_id as "recording_id!"
           from embedding_job_progress p, lateral (
               select count(*) as tasks, count(*) filter (where q.status = 'completed') as completed,
                      count(*) filter (where q.status = 'dead_letter') as dead_letter,
                      coalesce(min(q.user_id), '') as user_id, coalesce(min(q.recording_id), 0) as recording_id
               from job_tasks j join embedding_queue q on q.id = j.task_id
               where j.job_id = p.job_id
           ) t
           where (p.tasks, p.completed, p.dead_letter) <> (t.tasks, t.completed, t.dead_letter)
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a job's counts are those of its tasks",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!(
            "job {} counts {} tasks, {} completed, {} dead letters",
            row.job_id, row.tasks, row.completed, row.dead_letter
        ),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
