//! What must hold of `embedding_attempts`: it tells how often a task was tried and whose fault it was,
//! and the task counts accordingly.

use super::super::connection::Session;
use super::{VIOLATIONS_MAX, Violation};
use crate::domain::failure::Failure;
use crate::domain::task::{BLAMELESS_CLASSES, RELEASES_MAX};

/// A claim counts one attempt and gives it this number; an ending that gives the task back takes it
/// off again. So each attempt's number follows from the one before, and the task's count from the last.
/// After a dead letter the count begins anew. An adopted task without a history may have any count.
pub(super) async fn miscounted(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"with history as (
               select task_id, number, outcome, part, lead(number) over task as next_number,
                      lead(part) over task as next_part
               from embedding_attempts
               window task as (partition by task_id order by started_at, number)
           ), counted as (
               select q.user_id, q.recording_id, coalesce(h.next_number - 1, q.attempts) as found,
                      case when h.outcome in ('released', 'superseded') then h.number - 1
                           when h.outcome <> 'dead_letter' or h.outcome is null then h.number
                           -- Brought back, or asked for anew while it failed for good.
                           when h.next_number is not null or q.status <> 'dead_letter' then 0
                           else h.number end as expected
               from history h join embedding_queue q on q.id = h.task_id
               -- Recovery counts for itself.
               where h.part = 'main' and h.next_part is distinct from 'recovery'
           )
           select user_id, recording_id, found as "found!", expected as "expected!"
           from counted where found <> expected
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a task's attempts are those of its history",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} are counted, not {}", row.found, row.expected),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// An attempt is used up by what is the recording's fault, or killed or stalled its worker; by others'
/// faults only after they gave the task back too often. What is the recording's fault is never given
/// back.
pub(super) async fn unjust(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let blameless: Vec<String> = BLAMELESS_CLASSES.map(str::to_owned).into();
    let rows = sqlx::query!(
        r#"select a.user_id, a.recording_id, a.number, a.outcome as "outcome!", a.failure_class as "failure_class!"
           from embedding_attempts a join embedding_queue q on q.id = a.task_id
           where a.outcome in ('retry', 'dead_letter') and a.failure_class = any($1)
             -- The task's own count begins anew with each life; its history goes on.
             and q.releases < $2
             and (select count(*) from embedding_attempts r
                  where r.task_id = a.task_id and r.started_at < a.started_at
                    and r.outcome = 'released' and r.failure_class = any($1)) < $2
              or a.outcome = 'released' and a.failure_class <> all($1)
           limit $3"#,
        &blameless,
        RELEASES_MAX as i32,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "an attempt is used up only by the recording's fault or a dead worker",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("attempt {} ended as {} for {}", row.number, row.outcome, row.failure_class),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// An attempt without an ending is under way: its task is leased, and it is the only such one.
pub(super) async fn left_open(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select q.user_id, q.recording_id, q.status, count(*) as "open!"
           from embedding_attempts a join embedding_queue q on q.id = a.task_id
           where a.outcome is null
           group by q.id
           having q.status <> 'processing' or count(*) > 1
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "an attempt under way is a leased task's only one",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} attempts are open while the task is {}", row.open, row.status),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
