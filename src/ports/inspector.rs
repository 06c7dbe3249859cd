//! What can be read of the service: for the monitor, the API and the page. All of it comes from the
//! database, so that it covers every replica and survives them.

mod health;
mod recording;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::TaskCounts;
use super::operator::Part;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;

pub use recording::{
    AttemptRecord, DeadLetter, DeadLetterGroup, DeadLetterQuery, DeadLetters, Explanation,
    InFlightRecording,
};

/// The state of everything, in one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// Tasks by state, current model and next one together. Exact, except that of more than 100,000
    /// completed tasks the number is the planner's estimate: to count them would be to read them all.
    pub tasks: TaskCounts,
    /// The database's time of the look.
    pub at: DateTime<Utc>,
    /// Tasks in `failed` whose time has come.
    pub retry_ready: u64,
    /// Age of the task that has waited longest in `pending`, or in `failed` since its time came, in
    /// seconds.
    pub oldest_waiting_secs: Option<f64>,
    /// Dead letters that wait for a person.
    pub dead_letters_permanent: u64,
    /// When the next dead letter is tried by itself.
    pub next_recovery_at: Option<DateTime<Utc>>,
    /// Chunks bought by recordings that were completed within the last hour.
    pub chunks_last_hour: u64,
    /// Recordings completed within the last hour.
    pub completed_last_hour: u64,
    /// When the last recording was completed.
    pub last_completed_at: Option<DateTime<Utc>>,
    /// Tasks completed a minute over the last quarter of an hour, less those that came.
    pub drain_per_minute: f64,
    /// Time until the queue is empty at that rate, in seconds; `None` where it does not drain.
    pub empty_in_secs: Option<f64>,
    /// Over the last day.
    pub first_pass: SuccessRate,
    /// Over the last day.
    pub recovery: SuccessRate,
    /// Processes that are alive, oldest first.
    pub workers: Vec<Worker>,
    /// Recordings being worked on by any of them, longest first, at most 100.
    pub in_flight: Vec<InFlightRecording>,
    /// What is paused.
    pub pauses: Vec<Pause>,
    /// Cron schedules as their services follow them.
    pub schedules: Vec<ScheduleState>,
}

/// Of so many, so many succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuccessRate {
    /// Recordings that ended, or dead letters that were tried.
    pub tried: u64,
    /// Those that completed at the first attempt, or that recovery completed.
    pub succeeded: u64,
}

impl SuccessRate {
    /// In 0..=1; `None` where nothing was tried.
    pub fn share(&self) -> Option<f64> {
        (self.tried > 0).then(|| self.succeeded as f64 / self.tried as f64)
    }
}

/// A process that works on the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its name in leases and attempts.
    pub id: Uuid,
    /// Where it runs.
    pub host: String,
    /// Its version.
    pub version: String,
    /// The model that it works for.
    pub model: String,
    /// Since when.
    pub started_at: DateTime<Utc>,
    /// Recordings that it may work on at once.
    pub slots: u32,
    /// Recordings that it works on.
    pub in_flight: u32,
    /// Why it claims nothing: its provider's fault.
    pub provider_trouble: Option<String>,
    /// When it asks the provider again.
    pub provider_asked_at: Option<DateTime<Utc>>,
    /// Until when its requests wait, where the provider's rate limit is used up.
    pub provider_paused_until: Option<DateTime<Utc>>,
    /// What it may not do in the database, where its work waits for a right.
    pub database_trouble: Option<String>,
}

/// A part that an administrator stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// Which.
    #[schema(value_type = String)]
    pub part: Part,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Who did it.
    pub by: String,
}

/// A schedule that replicas share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleState {
    /// Its name.
    pub name: String,
    /// Its cron, as the last service that started said.
    pub cron: Option<String>,
    /// When its last tick was taken; `None` before the first.
    pub last_tick: Option<DateTime<Utc>>,
    /// When the next falls.
    pub next_tick: Option<DateTime<Utc>>,
}

/// A job's progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Row of `embedding_jobs`.
    pub id: Uuid,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub requested_by: Option<String>,
    /// Its tasks.
    pub tasks: u64,
    /// Those completed.
    pub completed: u64,
    /// Those given up.
    pub dead_letter: u64,
}

/// A run of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Row of `runs`.
    pub id: Uuid,
    /// Which part.
    #[schema(value_type = String)]
    pub part: Part,
    /// What started it: `schedule`, `request`, `due`, or the `run` before it.
    pub cause: String,
    /// When it began; of one that waits to begin, when it was asked for.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it waits or runs, or where its process died.
    pub ended_at: Option<DateTime<Utc>>,
    /// Recordings it took or queued.
    pub taken: u64,
    /// Those that completed.
    pub completed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why it ended early, where it did.
    pub stopped_because: Option<String>,
}

/// How far something is that an administrator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// Five minutes of history, all replicas together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Where it begins.
    pub begins_at: DateTime<Utc>,
    /// Recordings completed.
    pub completed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Tasks given up.
    pub dead_lettered: u64,
    /// Dead letters brought back.
    pub recovered: u64,
    /// Chunks bought.
    pub chunks: u64,
    /// Tokens bought.
    pub tokens: u64,
    /// Time of an attempt that completed, in seconds: half took no longer.
    pub p50_secs: Option<f64>,
    /// 95 of 100 took no longer.
    pub p95_secs: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99_secs: Option<f64>,
}

/// Reads the state of the service.
#[async_trait]
pub trait Inspector: Send + Sync + 'static {
    /// Everything at a glance.
    async fn overview(&self) -> Result<Overview, Failure>;

    /// Dead letters that fit, and their causes.
    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<DeadLetters, Failure>;

    /// The recordings of this number: one for each user who holds it.
    async fn find(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure>;

    /// Why a recording is where it is; `None` where it is not stored.
    async fn explain(&self, key: &RecordingKey) -> Result<Option<Explanation>, Failure>;

    /// What came of an action so far; `None` where there is none of this name.
    async fn action(&self, action_id: Uuid) -> Result<Option<ActionState>, Failure>;

    /// Jobs, newest first.
    async fn jobs(&self, limit: u32) -> Result<Vec<Job>, Failure>;

    /// Runs, newest first; with `failed_only`, those in which something failed or that ended early.
    async fn runs(&self, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure>;

    /// History of the last `hours`, oldest first; buckets in which nothing happened are left out.
    async fn history(&self, hours: u32) -> Result<Vec<Bucket>, Failure>;
}
