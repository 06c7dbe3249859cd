//! What an administrator may ask for, whichever way: over HTTP, by a command, or by the page's button.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::failure::Failure;
pub use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::trace::Traceparent;

/// Recover one recording now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverRecording {
    /// Its number.
    pub recording_id: i64,
    /// Its owner; needed only where several hold a recording of this number.
    pub user_id: Option<String>,
    /// Take it in any state but under a live lease, and although it was tried within the hour.
    pub force: bool,
    /// Who asks; kept with the action.
    pub requested_by: String,
    /// The trace that it belongs to: the attempts link to it.
    pub trace: Option<Traceparent>,
}

/// Recover many dead letters now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverMany {
    /// Only those of this fingerprint; all where `None`.
    pub fingerprint: Option<String>,
    /// Those too that were tried within the hour.
    pub force: bool,
    /// Who asks; kept with the action.
    pub requested_by: String,
    /// The trace that it belongs to: the attempts link to it.
    pub trace: Option<Traceparent>,
}

/// What was found, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovering {
    /// Row of `admin_actions`.
    pub action_id: Uuid,
    /// Owner of the recording.
    pub user_id: String,
    /// Its number.
    pub recording_id: i64,
    /// What was found, in a sentence: state, attempts, reason, chunks stored.
    pub found: String,
    /// What was done, in a sentence.
    pub done: String,
    /// The command that follows it.
    pub follow: String,
}

/// What became of a request for many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveringMany {
    /// Row of `admin_actions`.
    pub action_id: Uuid,
    /// Dead letters that will be recovered.
    pub requested: u64,
    /// Dead letters that fit and were left alone, since they were tried within the hour.
    pub left_alone: u64,
}

/// Why a request was not followed. Each names the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody holds a recording of this number.
    #[error("no recording {recording_id} is stored; `embedding-recovery import` stores one")]
    UnknownRecording {
        /// The number.
        recording_id: i64,
    },
    /// Several users hold a recording of this number.
    #[error("recording {recording_id} is held by {}; say whose is meant", users.join(", "))]
    Ambiguous {
        /// The number.
        recording_id: i64,
        /// Who holds it.
        users: Vec<String>,
    },
    /// Somebody works on it.
    #[error("{key} is being processed; its lease ends at {lease_ends_at} unless it is renewed")]
    BeingProcessed {
        /// The recording.
        key: RecordingKey,
        /// End of the lease.
        lease_ends_at: DateTime<Utc>,
    },
    /// Without force, once an hour is enough.
    #[error(
        "{key} was tried within the last hour; it may be tried again at {again_at}, or with force"
    )]
    TriedRecently {
        /// The recording.
        key: RecordingKey,
        /// An hour after the last attempt began.
        again_at: DateTime<Utc>,
    },
    /// It is no dead letter.
    #[error("{key} is no dead letter but {state}; with force it is taken all the same")]
    NotDead {
        /// The recording.
        key: RecordingKey,
        /// Its task's state; `not queued` where it has none.
        state: String,
    },
    /// The part was paused.
    #[error("{} is paused since {since} by {by}; `embedding-recovery resume {}` lets it go on", part.as_str(), part.as_str())]
    Paused {
        /// Which.
        part: Part,
        /// Since when.
        since: DateTime<Utc>,
        /// Who paused it.
        by: String,
    },
    /// The database did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Acts on the queue for an administrator. Every action is kept in `admin_actions`.
#[async_trait]
pub trait Operator: Send + Sync + 'static {
    /// Asks for the recovery of one recording, and returns at once.
    async fn recover(&self, request: RecoverRecording) -> Result<Recovering, Refusal>;

    /// Asks for the recovery of many dead letters, and returns at once.
    async fn recover_many(&self, request: RecoverMany) -> Result<RecoveringMany, Refusal>;

    /// Starts a run of a part now; returns its row of `runs`.
    async fn run(&self, part: Part, requested_by: &str) -> Result<Uuid, Refusal>;

    /// Nothing more of this part is begun, by any replica, until it is resumed.
    async fn pause(&self, part: Part, requested_by: &str) -> Result<(), Refusal>;

    /// Lets a part go on. Resuming what is not paused is no error.
    async fn resume(&self, part: Part, requested_by: &str) -> Result<(), Refusal>;

    /// Removes a dead letter for good, with this reason; its row stays in the action. What is
    /// searchable of the recording stays so.
    async fn discard(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
        reason: &str,
        requested_by: &str,
    ) -> Result<Uuid, Refusal>;
}
