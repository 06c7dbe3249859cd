//! `admin_actions`: who asked for what, and what came of it.

use uuid::Uuid;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::trace::Traceparent;
use crate::ports::inspector::ActionState;

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Action<'a> {
    /// A word that the table's check knows.
    pub(super) name: &'static str,
    /// Who asks.
    pub(super) requested_by: &'a str,
    /// The recording, where it is about one: its owner, where he is known, and its number.
    pub(super) recording: Option<(Option<&'a str>, i64)>,
    /// The rest.
    pub(super) detail: serde_json::Value,
    /// The trace that it belongs to.
    pub(super) trace: Option<&'a Traceparent>,
}

impl<'a> Action<'a> {
    /// The same, about a recording that was found.
    pub(super) fn about(self, key: &'a RecordingKey) -> Self {
        Self { recording: Some((Some(&key.user_id), key.recording_id)), ..self }
    }
}

/// Keeps an action that is under way, for so many recordings.
pub(super) async fn begin(
    connection: &mut Session,
    action: &Action<'_>,
    recordings: u64,
) -> Result<Uuid, Failure> {
    let id = sqlx::query_scalar!(
        "insert into admin_actions (action, requested_by, user_id, recording_id, detail, recordings, traceparent)
         values ($1, $2, $3, $4, $5, $6, $7::text) returning id",
        action.name,
        action.requested_by,
        action.recording.and_then(|(user, _)| user),
        action.recording.map(|(_, recording_id)| recording_id),
        action.detail,
        recordings as i32,
        action.trace.map(Traceparent::as_str)
    )
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// Writes what came of an action.
pub(super) async fn end(connection: &mut Session, id: Uuid, outcome: &str) -> Result<(), Failure> {
    sqlx::query!(
        "update admin_actions set outcome = $2, ended_at = clock_timestamp() where id = $1 and outcome is null",
        id,
        outcome
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What came of an action so far.
pub(super) async fn state(pool: &Pool, id: Uuid) -> Result<Option<ActionState>, Failure> {
    let state = sqlx::query!(
        "select recordings, ended, completed, outcome from admin_actions where id = $1",
        id
    )
    .map(|row| ActionState {
        recordings: row.recordings as u64,
        ended: row.ended as u64,
        completed: row.completed as u64,
        outcome: row.outcome,
    })
    .fetch_optional(pool)
    .await?;
    Ok(state)
}
