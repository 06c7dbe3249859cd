//! The moment in which search changes over to the next model, the end of a re-embedding that is
//! given up, and what a retired model leaves behind.

use super::connection::{Pool, Session};
use super::embedding_models::{self, ModelState, StoredModel};
use crate::domain::failure::Failure;

/// Time that the swap waits for transactions of others, in the server's notation: while it waits, new
/// ones wait behind it, and leases must be renewed.
const LOCK_TIMEOUT: &str = "2s";

/// One short transaction flips two rows of `embedding_models`; the view of readers follows them.
pub(super) async fn swap(pool: &Pool, next: &str, leave_dead: bool) -> Result<bool, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    lock_out_workers(&mut transaction).await?;
    let current = embedding_models::current(&mut *transaction).await?;
    let ready = sqlx::query_scalar!(
        r#"select exists (select from embedding_models where name = $1 and state = 'next')
                  and not exists (
                      select from reembedding_missing m
                      where not ($2 and exists (
                          select from embedding_queue q
                          where q.user_id = m.user_id and q.recording_id = m.recording_id
                            and q.for_model = $1 and q.status = 'dead_letter'))) as "ready!""#,
        next,
        leave_dead
    )
    .fetch_one(&mut *transaction)
    .await?;
    let (true, Some(current)) = (ready, current) else { return Ok(false) };
    release_old_leases(&mut transaction).await?;
    join_tasks(&mut transaction, next).await?;
    revive_what_the_next_model_has(&mut transaction, next).await?;
    sqlx::query!(
        "update embedding_models set state = 'retired', state_since = clock_timestamp(), replaced_by = $2
         where name = $1",
        current.model.name,
        next
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update embedding_models set state = 'current', state_since = clock_timestamp(), replaced_by = null
         where name = $1",
        next
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Gives the next model up. Its tasks and sets go in batches afterwards ([`retire`]): nobody claims
/// a task of a retired model.
pub(super) async fn cancel(pool: &Pool) -> Result<Option<StoredModel>, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    lock_out_workers(&mut transaction).await?;
    let all = embedding_models::all(&mut *transaction).await?;
    let Some(next) = all.into_iter().find(|stored| stored.state == ModelState::Next) else {
        return Ok(None);
    };
    sqlx::query!(
        "update embedding_models set state = 'retired', state_since = clock_timestamp() where name = $1",
        next.model.name
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(next))
}

/// The models first, then the queue: after this nobody claims, enqueues or completes until the
/// transaction ends, and whoever waited for it sees the models as it leaves them.
async fn lock_out_workers(connection: &mut Session) -> Result<(), Failure> {
    sqlx::query!("select set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
        .fetch_one(&mut *connection)
        .await?;
    embedding_models::lock(&mut *connection).await?;
    sqlx::raw_sql("lock table embedding_queue in exclusive mode").execute(connection).await?;
    Ok(())
}

/// Workers of the old model lose their leases, uncounted: what they still write is fenced off.
async fn release_old_leases(connection: &mut Session) -> Result<(), Failure> {
    sqlx::query!(
        "with released as (
             update embedding_queue set
                 status = 'pending', attempts = attempts - 1, dirty = false, lease_token = null,
                 lease_expires_at = null, locked_at = null, worker_id = null
             where for_model is null and status = 'processing'
             returning id
         )
         update embedding_attempts
         set outcome = 'released', ended_at = clock_timestamp(), message = 'the model was replaced'
         where outcome is null and task_id in (select id from released)"
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The open tasks of the next model become those of the current one. Where a recording has both,
/// the old model's goes, and its jobs wait for the other.
async fn join_tasks(connection: &mut Session, next: &str) -> Result<(), Failure> {
    sqlx::query!(
        "update job_tasks j set task_id = n.id
         from embedding_queue o
         join embedding_queue n on n.user_id = o.user_id and n.recording_id = o.recording_id
              and n.for_model = $1 and n.status <> 'completed'
         where j.task_id = o.id and o.for_model is null and o.status <> 'completed'
           and not exists (select from job_tasks b where b.job_id = j.job_id and b.task_id = n.id)",
        next
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "with gone as (
             delete from embedding_queue o using embedding_queue n
             where o.for_model is null and o.status <> 'completed'
               and n.user_id = o.user_id and n.recording_id = o.recording_id
               and n.for_model = $1 and n.status <> 'completed'
             returning n.id, o.job_id, o.priority
         )
         update embedding_queue n
         set job_id = coalesce(gone.job_id, n.job_id), priority = greatest(n.priority, gone.priority)
         from gone where n.id = gone.id",
        next
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update embedding_queue set for_model = null where for_model = $1 and status <> 'completed'",
        next
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Dead letters of the old model whose recordings the next one has are dead no more, and wait for no
/// recovery. Their new attempt finds a set that fits, and buys nothing.
async fn revive_what_the_next_model_has(
    connection: &mut Session,
    next: &str,
) -> Result<(), Failure> {
    sqlx::query!(
        "update embedding_queue q set
             status = 'pending', attempts = 0, releases = 0, crashes = 0, crashes_alone = 0,
             recoveries = 0, next_retry_at = null, dead_letter_reason = null, dead_letter_permanent = false
         where q.for_model is null and q.status = 'dead_letter'
           and exists (select from chunk_sets s
                       where s.user_id = q.user_id and s.recording_id = q.recording_id
                         and s.model = $1 and s.state = 'current')",
        next
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes open tasks of retired models and declares their sets dead, at most `rows_max` of each;
/// returns how many there were of the more frequent kind.
pub(super) async fn retire(connection: &mut Session, rows_max: u32) -> Result<u64, Failure> {
    let tasks = sqlx::query!(
        "delete from embedding_queue where id in (
             select q.id from embedding_queue q
             join embedding_models m on m.name = q.for_model and m.state = 'retired'
             where q.status <> 'completed'
             limit $1
             for update of q skip locked)",
        i64::from(rows_max)
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    let sets = sqlx::query!(
        "update chunk_sets set state = 'dead', died_at = clock_timestamp() where id in (
             select s.id from chunk_sets s
             join embedding_models m on m.name = s.model and m.state = 'retired'
             where s.state <> 'dead'
               -- Seen first, and then no set: nearly always no model is retired.
               and exists (select from embedding_models where state = 'retired')
             limit $1
             for update of s skip locked)",
        i64::from(rows_max)
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(tasks.max(sets))
}
