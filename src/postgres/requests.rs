//! Requests of an administrator about dead letters: looked at and marked in one transaction, under the
//! lock of the task's row.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::admin_actions::{self, Action};
use super::connection::Session;
use super::inspector::UNKNOWN;
use super::pauses;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::standing::recording_argument;
use crate::domain::trace::Traceparent;
use crate::ports::operator::{RecoverMany, RecoverRecording, Recovering, RecoveringMany, Refusal};

/// A recording's open task, as it was found.
struct Found {
    id: Uuid,
    status: String,
    attempts: i32,
    reason: Option<String>,
    lease_expires_at: Option<DateTime<Utc>>,
    lease_is_live: bool,
    tried_recently: bool,
    again_at: Option<DateTime<Utc>>,
    chunks_stored: i64,
}

impl Found {
    /// In a sentence.
    fn described(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let Found { status, attempts, chunks_stored, .. } = self;
        format!("{status} after {attempts} attempts, {chunks_stored} chunks stored{reason}")
    }
}

/// Marks one recording.
pub(super) async fn recover(
    connection: &mut Session,
    request: &RecoverRecording,
    action: &Action<'_>,
) -> Result<Recovering, Refusal> {
    let RecoverRecording { recording_id, user_id, force, .. } = request;
    let key = resolve(connection, *recording_id, user_id.as_deref()).await?;
    pauses::refuse_if_paused(connection, Part::Recovery).await?;
    let found = open_task(connection, &key).await?;
    if !force && found.as_ref().is_none_or(|found| found.status != "dead_letter") {
        return Err(not_dead(key, found));
    }
    if let Some(found) = &found {
        refuse_if_untimely(&key, found, *force)?;
    }
    let action_id = admin_actions::begin(connection, &action.clone().about(&key), 1).await?;
    let (described, task_id, afresh) = match &found {
        Some(found) => (found.described(), found.id, false),
        None => ("no open task".to_owned(), open(connection, &key).await?, true),
    };
    mark(connection, task_id, action_id, afresh, action.trace).await?;
    let done = match afresh {
        true => "everything of it is embedded anew, in small steps, as soon as a process is free",
        false => "it is recovered in small steps as soon as a process is free",
    };
    Ok(Recovering {
        action_id,
        // Whoever had to say whose it is has to say so again.
        follow: format!(
            "embedding-recovery explain {}",
            recording_argument(*recording_id, user_id.as_deref())
        ),
        user_id: key.user_id,
        recording_id: key.recording_id,
        found: described,
        done: done.into(),
    })
}

fn not_dead(key: RecordingKey, found: Option<Found>) -> Refusal {
    let state = found.map_or_else(|| "not queued".to_owned(), |found| found.status);
    Refusal::NotDead { key, state }
}

fn refuse_if_untimely(key: &RecordingKey, found: &Found, force: bool) -> Result<(), Refusal> {
    match (found.lease_expires_at, found.again_at) {
        (Some(lease_ends_at), _) if found.lease_is_live => {
            Err(Refusal::BeingProcessed { key: key.clone(), lease_ends_at })
        }
        (_, Some(again_at)) if found.tried_recently && !force => {
            Err(Refusal::TriedRecently { key: key.clone(), again_at })
        }
        _ => Ok(()),
    }
}

/// Marks every dead letter that fits. One that is asked for already stays with whoever asked first.
pub(super) async fn recover_many(
    connection: &mut Session,
    request: &RecoverMany,
    action: &Action<'_>,
) -> Result<RecoveringMany, Refusal> {
    pauses::refuse_if_paused(connection, Part::Recovery).await?;
    let action_id = admin_actions::begin(connection, action, 0).await?;
    let counts = sqlx::query!(
        r#"with fitting as materialized (
               select id, ($2 or not tried_recently(id)) as taken from embedding_queue
               where status = 'dead_letter' and ($1::text is null or coalesce(failure_fingerprint, $4) = $1)
               order by id for update
           ), marked as (
               update embedding_queue q
               set recovery_requested = coalesce(q.recovery_requested, $3),
                   recovery_joined = case when q.recovery_requested is null then '{}' else q.recovery_joined || $3::uuid end,
                   traceparent = coalesce($5::text, q.traceparent),
                   next_retry_at = case when not q.dead_letter_permanent then clock_timestamp() end
               from fitting f where f.id = q.id and f.taken
               returning q.id
           )
           select (select count(*) from marked) as "requested!",
                  (select count(*) from fitting where not taken) as "left_alone!""#,
        request.fingerprint,
        request.force,
        action_id,
        UNKNOWN,
        action.trace.map(Traceparent::as_str)
    )
    .fetch_one(&mut *connection)
    .await?;
    if counts.requested == 0 {
        admin_actions::end(connection, action_id, "nothing to recover").await?;
    } else {
        sqlx::query!(
            "update admin_actions set recordings = $2 where id = $1",
            action_id,
            counts.requested as i32
        )
        .execute(connection)
        .await?;
    }
    Ok(RecoveringMany {
        action_id,
        requested: counts.requested as u64,
        left_alone: counts.left_alone as u64,
    })
}

/// Removes a dead letter; its row is kept with the action, and the digest of the transcript, so that
/// it is not queued again before that changes.
pub(super) async fn discard(
    connection: &mut Session,
    recording_id: i64,
    user_id: Option<&str>,
    reason: &str,
    action: &Action<'_>,
) -> Result<Uuid, Refusal> {
    let key = resolve(connection, recording_id, user_id).await?;
    let found = open_task(connection, &key).await?;
    let found = match found {
        Some(found) if found.status == "dead_letter" => found,
        found => return Err(not_dead(key, found)),
    };
    let detail = sqlx::query_scalar!(
        r#"select jsonb_build_object('reason', $2::text, 'task', to_jsonb(q),
                      'digest', recording_digest(q.user_id, q.recording_id)) as "detail!"
           from embedding_queue q where id = $1"#,
        found.id,
        reason
    )
    .fetch_one(&mut *connection)
    .await?;
    let action = Action { detail, ..action.clone().about(&key) };
    let id = admin_actions::begin(&mut *connection, &action, 0).await?;
    sqlx::query!("delete from embedding_queue where id = $1", found.id)
        .execute(&mut *connection)
        .await?;
    admin_actions::end(connection, id, "discarded").await?;
    Ok(id)
}

/// Whose recording is meant. One that was deleted is known by its task.
async fn resolve(
    connection: &mut Session,
    recording_id: i64,
    user_id: Option<&str>,
) -> Result<RecordingKey, Refusal> {
    let mut users = sqlx::query_scalar!(
        r#"select user_id as "user_id!" from fathom_calls
           where recording_id = $1 and ($2::text is null or user_id = $2)
           union
           select user_id from embedding_queue
           where recording_id = $1 and ($2::text is null or user_id = $2) and status = 'dead_letter'
           order by 1"#,
        recording_id,
        user_id
    )
    .fetch_all(connection)
    .await?;
    match (users.pop(), users.is_empty()) {
        (Some(user_id), true) => Ok(RecordingKey { user_id, recording_id }),
        (Some(last), false) => {
            users.push(last);
            Err(Refusal::Ambiguous { recording_id, users })
        }
        (None, _) => Err(Refusal::UnknownRecording { recording_id }),
    }
}

/// Locks the open task of a recording; where two models have one, a dead one, then the current model's.
async fn open_task(connection: &mut Session, key: &RecordingKey) -> Result<Option<Found>, Refusal> {
    let found = sqlx::query_as!(
        Found,
        r#"select q.id, q.status, q.attempts, coalesce(q.dead_letter_reason, q.last_error) as reason,
                  q.lease_expires_at, coalesce(q.lease_expires_at > clock_timestamp(), false) as "lease_is_live!",
                  tried_recently(q.id) as "tried_recently!",
                  (select max(started_at) + interval '1 hour' from embedding_attempts where task_id = q.id) as again_at,
                  (select count(*) from transcript_chunks c join chunk_sets s on s.id = c.chunk_set_id
                   where s.user_id = q.user_id and s.recording_id = q.recording_id and s.state <> 'dead') as "chunks_stored!"
           from embedding_queue q
           where q.user_id = $1 and q.recording_id = $2 and q.status <> 'completed'
           order by (q.status = 'dead_letter') desc, q.for_model nulls first
           limit 1
           for update of q"#,
        key.user_id,
        key.recording_id
    )
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

async fn open(connection: &mut Session, key: &RecordingKey) -> Result<Uuid, Refusal> {
    let task_id = sqlx::query_scalar!(
        r#"select task_id as "task_id!" from enqueue_recordings(array[$1::text], array[$2::bigint], 0, false, null) as task_id"#,
        key.user_id,
        key.recording_id
    )
    .fetch_optional(connection)
    .await?;
    task_id.ok_or(Refusal::UnknownRecording { recording_id: key.recording_id })
}

/// A recording that is asked for already stays with whoever asked first.
async fn mark(
    connection: &mut Session,
    task_id: Uuid,
    action_id: Uuid,
    afresh: bool,
    trace: Option<&Traceparent>,
) -> Result<(), Refusal> {
    sqlx::query!(
        "update embedding_queue
         set recovery_requested = coalesce(recovery_requested, $2),
             recovery_joined = case when recovery_requested is null then '{}' else recovery_joined || $2::uuid end,
             afresh = case when $3 then $2 else afresh end,
             traceparent = coalesce($4::text, traceparent),
             next_retry_at = case when not dead_letter_permanent then clock_timestamp() end
         where id = $1",
        task_id,
        action_id,
        afresh,
        trace.map(Traceparent::as_str)
    )
    .execute(connection)
    .await?;
    Ok(())
}
