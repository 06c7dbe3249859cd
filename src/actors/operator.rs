//! The port of whoever administrates, over a running tree: the database decides and keeps it, then the
//! Recovery actor and the Claimer of this process look at once, also where no notification can pass.

use std::sync::Arc;

use async_trait::async_trait;
use ractor::ActorRef;
use uuid::Uuid;

use super::supervisor::SupervisorMessage;
use crate::domain::part::Part;
use crate::ports::operator::{
    Operator, RecoverMany, RecoverRecording, Recovering, RecoveringMany, Refusal,
};

/// See [`super::Tree::operator`].
pub(super) struct TreeOperator {
    pub(super) database: Arc<dyn Operator>,
    pub(super) supervisor: ActorRef<SupervisorMessage>,
}

impl TreeOperator {
    fn done<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if result.is_ok() {
            // A tree that is gone leaves it to another process.
            let _ = self.supervisor.cast(SupervisorMessage::Look);
        }
        result
    }
}

#[async_trait]
impl Operator for TreeOperator {
    async fn recover(&self, request: RecoverRecording) -> Result<Recovering, Refusal> {
        self.done(self.database.recover(request).await)
    }

    async fn recover_many(&self, request: RecoverMany) -> Result<RecoveringMany, Refusal> {
        self.done(self.database.recover_many(request).await)
    }

    async fn run(&self, part: Part, requested_by: &str) -> Result<Uuid, Refusal> {
        self.done(self.database.run(part, requested_by).await)
    }

    async fn pause(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        self.done(self.database.pause(part, requested_by).await)
    }

    async fn resume(&self, part: Part, requested_by: &str) -> Result<(), Refusal> {
        self.done(self.database.resume(part, requested_by).await)
    }

    async fn discard(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
        reason: &str,
        requested_by: &str,
    ) -> Result<Uuid, Refusal> {
        self.done(self.database.discard(recording_id, user_id, reason, requested_by).await)
    }
}
