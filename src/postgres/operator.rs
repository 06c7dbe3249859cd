//! [`PgStore`] as the port of whoever administrates. Each request looks and acts in one transaction, so
//! that it gets the same answer from a command, a page and a schedule; then it is announced, and a
//! process that serves takes it up.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::admin_actions::{self, Action};
use super::connection::{Session, Transaction};
use super::store::CHANNEL;
use super::{PgStore, pauses, requests, runs};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::ports::operator::{
    Operator, RecoverMany, RecoverRecording, Recovering, RecoveringMany, Refusal,
};

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Refusal::Failed(error.into())
    }
}

#[async_trait]
impl Operator for PgStore {
    async fn recover(&self, request: RecoverRecording) -> Result<Recovering, Refusal> {
        let RecoverRecording { recording_id, user_id, force, requested_by, trace } = &request;
        let action = Action {
            name: "recover",
            requested_by,
            recording: Some((user_id.as_deref(), *recording_id)),
            detail: json!({ "force": force }),
            trace: trace.as_ref().or(self.trace.as_ref()),
        };
        let mut transaction = super::begin_patient(&self.pool).await?;
        let recovering = requests::recover(&mut transaction, &request, &action).await;
        self.end(transaction, recovering, &action).await
    }

    async fn recover_many(&self, request: RecoverMany) -> Result<RecoveringMany, Refusal> {
        let RecoverMany { fingerprint, force, requested_by, trace } = &request;
        let action = Action {
            name: "recover_many",
            requested_by,
            recording: None,
            detail: json!({ "force": force, "fingerprint": fingerprint }),
            trace: trace.as_ref().or(self.trace.as_ref()),
        };
        let mut transaction = super::begin_patient(&self.pool).await?;
        let recovering = requests::recover_many(&mut transaction, &request, &action).await;
        self.end(transaction, recovering, &action).await
    }

    async fn run(&self, part: Part, requested_by: &str) -> Result<Uuid, Refusal> {
        let action = of_part("run", part, requested_by);
        let mut transaction = super::begin_patient(&self.pool).await?;
        let run = async {
            pauses::refuse_if_paused(&mut transaction, part).await?;
            let action_id = admin_actions::begin(&mut transaction, &action, 0).await?;
            Ok(runs::ask_for(&mut transaction, part, action_id).await?)
        };
        let run = run.await;
        self.end(transaction, run, &action).await
    }

    async fn pause(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        let action = of_part("pause", part, requested_by);
        let mut transaction = super::begin_patient(&self.pool).await?;
        let paused = pauses::pause(&mut transaction, part, requested_by, &action).await;
        self.end(transaction, paused, &action).await
    }

    async fn resume(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        let action = of_part("resume", part, requested_by);
        let mut transaction = super::begin_patient(&self.pool).await?;
        let resumed = pauses::resume(&mut transaction, part, &action).await;
        self.end(transaction, resumed, &action).await
    }

    async fn discard(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
        reason: &str,
        requested_by: &str,
    ) -> Result<Uuid, Refusal> {
        let action = Action {
            name: "discard",
            requested_by,
            recording: Some((user_id, recording_id)),
            detail: json!({ "reason": reason }),
            trace: None,
        };
        let mut transaction = super::begin_patient(&self.pool).await?;
        let discarded =
            requests::discard(&mut transaction, recording_id, user_id, reason, &action).await;
        self.end(transaction, discarded, &action).await
    }
}

fn of_part<'a>(name: &'static str, part: Part, requested_by: &'a str) -> Action<'a> {
    Action { name, requested_by, recording: None, detail: json!({ "part": part }), trace: None }
}

impl PgStore {
    /// Keeps and announces what was done; of a refusal, that it was refused.
    async fn end<T>(
        &self,
        mut transaction: Transaction,
        result: Result<T, Refusal>,
        action: &Action<'_>,
    ) -> Result<T, Refusal> {
        match &result {
            Ok(_) => {
                sqlx::query!("select pg_notify($1, '')", CHANNEL)
                    .fetch_one(&mut *transaction)
                    .await?;
                transaction.commit().await?;
            }
            Err(Refusal::Failed(_)) => {}
            Err(refusal) => {
                drop(transaction);
                let mut connection = self.pool.acquire().await?;
                let id = admin_actions::begin(&mut connection, action, 0).await?;
                let outcome = format!("refused: {refusal}");
                admin_actions::end(&mut connection, id, &outcome).await?;
            }
        }
        result
    }

    /// What came of an action; `None` while it is under way.
    ///
    /// # Errors
    /// The database's.
    pub async fn outcome_of(&self, action_id: Uuid) -> Result<ActionState, Failure> {
        let state = sqlx::query!(
            "select recordings, ended, completed, outcome from admin_actions where id = $1",
            action_id
        )
        .map(|row| ActionState {
            recordings: row.recordings as u64,
            ended: row.ended as u64,
            completed: row.completed as u64,
            outcome: row.outcome,
        })
        .fetch_one(&self.pool)
        .await?;
        Ok(state)
    }

    /// The action that asked for a run.
    ///
    /// # Errors
    /// The database's.
    pub async fn action_of_run(&self, run_id: Uuid) -> Result<Option<Uuid>, Failure> {
        let action = sqlx::query_scalar!("select action_id from runs where id = $1", run_id);
        Ok(action.fetch_optional(&self.pool).await?.flatten())
    }

    /// True where a process serves this database.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_served(&self) -> Result<bool, Failure> {
        let alive = sqlx::query_scalar!(
            r#"select exists (select from workers where alive_until > clock_timestamp()) as "alive!""#
        );
        Ok(alive.fetch_one(&self.pool).await?)
    }

    /// Dead letters by fingerprint, the most frequent first: all, or those of one fingerprint, user or
    /// recording.
    ///
    /// # Errors
    /// The database's.
    pub async fn dead_letter_groups(
        &self,
        fingerprint: Option<&str>,
        user_id: Option<&str>,
        recording_id: Option<i64>,
    ) -> Result<Vec<DeadLetterGroup>, Failure> {
        let mut connection = self.pool.acquire().await?;
        groups(&mut connection, fingerprint, user_id, recording_id).await
    }
}

/// How far an action is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ActionState {
    /// Recordings that it is done for.
    pub recordings: u64,
    /// Of these, those that are done with.
    pub ended: u64,
    /// Of these, those that became complete.
    pub completed: u64,
    /// What came of it; `None` while it is under way.
    pub outcome: Option<String>,
}

/// Dead letters that failed alike.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetterGroup {
    /// Names the failure.
    pub fingerprint: String,
    /// Dead letters of it.
    pub recordings: u64,
    /// Their numbers, at most ten of them.
    pub recording_ids: Vec<i64>,
    /// Of these, those that were tried within the last hour: left alone without force.
    pub tried_recently: u64,
    /// When the earliest of them is recovered by itself; `None` where all wait for a person.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Chunks of the recordings, of those whose transcript was cut already.
    pub chunks: u64,
    /// Of these, the chunks that are stored and not bought again.
    pub chunks_stored: u64,
}

async fn groups(
    connection: &mut Session,
    fingerprint: Option<&str>,
    user_id: Option<&str>,
    recording_id: Option<i64>,
) -> Result<Vec<DeadLetterGroup>, Failure> {
    let groups = sqlx::query!(
        r#"select coalesce(q.failure_fingerprint, q.dead_letter_reason, '') as "fingerprint!",
                  count(*) as "recordings!",
                  (array_agg(q.recording_id order by q.created_at))[1:10] as "recording_ids!",
                  count(*) filter (where tried_recently(q.id)) as "tried_recently!",
                  min(q.next_retry_at) as next_attempt_at,
                  coalesce(sum(s.chunks_expected), 0)::bigint as "chunks!",
                  coalesce(sum((select count(*) from transcript_chunks c where c.chunk_set_id = s.id)), 0)::bigint as "stored!"
           from embedding_queue q
           left join lateral (
               select id, chunks_expected from chunk_sets
               where user_id = q.user_id and recording_id = q.recording_id and state = 'building'
                 and model = coalesce(q.for_model, (select name from embedding_models where state = 'current'))
               order by created_at desc limit 1
           ) s on true
           where q.status = 'dead_letter' and ($1::text is null or q.failure_fingerprint = $1)
             and ($2::text is null or q.user_id = $2) and ($3::bigint is null or q.recording_id = $3)
           group by 1
           order by 2 desc, 1"#,
        fingerprint,
        user_id,
        recording_id
    )
    .map(|row| DeadLetterGroup {
        fingerprint: row.fingerprint,
        recordings: row.recordings as u64,
        recording_ids: row.recording_ids,
        tried_recently: row.tried_recently as u64,
        next_attempt_at: row.next_attempt_at,
        chunks: row.chunks as u64,
        chunks_stored: row.stored as u64,
    })
    .fetch_all(connection)
    .await?;
    Ok(groups)
}
