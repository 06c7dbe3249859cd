//! [`PgStore`] as the port of whoever administrates. Each request looks and acts in one transaction, so
//! that it gets the same answer from a command, a page and a schedule; then it is announced, and a
//! process that serves takes it up.

use async_trait::async_trait;
use serde_json::json;
use uuid::Uuid;

use super::admin_actions::{self, Action};
use super::connection::Transaction;
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

    /// The action that asked for a run.
    ///
    /// # Errors
    /// The database's.
    pub async fn action_of_run(&self, run_id: Uuid) -> Result<Option<Uuid>, Failure> {
        let action = sqlx::query_scalar!("select action_id from runs where id = $1", run_id);
        Ok(action.fetch_optional(&self.pool).await?.flatten())
    }

    /// True where a service is alive on this database. A `recover` that works is none: it ends with what
    /// it was asked for, and has no slots.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_served(&self) -> Result<bool, Failure> {
        let alive = sqlx::query_scalar!(
            r#"select exists (select from workers where slots > 0 and alive_until > clock_timestamp()) as "alive!""#
        );
        Ok(alive.fetch_one(&self.pool).await?)
    }
}
