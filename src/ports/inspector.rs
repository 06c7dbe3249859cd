//! What can be read of the service: for the monitor, the API and the page. All of it comes from the
//! database, so that it covers every replica and survives them.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TaskCounts;
use super::operator::Part;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;

/// The state of everything, in one look.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Overview {
    /// The database's time of the look.
    pub at: DateTime<Utc>,
    /// Tasks by state, current model and next one together.
    pub tasks: TaskCounts,
    /// Tasks in `failed` whose time has come.
    pub retry_ready: u64,
    /// Age of the task that has waited longest in `pending` or due `failed`, in seconds.
    pub oldest_waiting_secs: Option<f64>,
    /// Dead letters that wait for a person.
    pub dead_letters_permanent: u64,
    /// When the next dead letter is tried by itself.
    pub next_recovery_at: Option<DateTime<Utc>>,
    /// Chunks that became stored within the last hour.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
}

/// A recording that is being worked on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct InFlightRecording {
    /// Owner.
    pub user_id: String,
    /// Number.
    pub recording_id: i64,
    /// Title of the call.
    pub title: Option<String>,
    /// Which part works on it.
    #[schema(value_type = String)]
    pub part: Part,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// For how long, in seconds.
    pub running_secs: f64,
    /// Chunks stored, once that is known.
    pub chunks_stored: Option<u32>,
    /// Chunks that it will have, once that is known.
    pub chunks: Option<u32>,
    /// Who works on it.
    pub worker_id: Uuid,
    /// Until when its lease holds.
    pub lease_ends_at: DateTime<Utc>,
}

/// A part that an administrator stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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

/// Which dead letters to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Only those of this fingerprint.
    pub fingerprint: Option<String>,
    /// Rows at most, from 1 to 500.
    pub limit: u32,
    /// Rows to pass over.
    pub offset: u64,
}

/// Dead letters, by cause and one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct DeadLetters {
    /// How many there are, whatever was asked for.
    pub total: u64,
    /// By cause, largest first, at most 100.
    pub groups: Vec<DeadLetterGroup>,
    /// Those that were asked for, oldest first.
    pub rows: Vec<DeadLetter>,
}

/// Dead letters of one cause.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeadLetterGroup {
    /// Names the cause ([`crate::domain::failure::Failure::fingerprint`]).
    pub fingerprint: String,
    /// The failure's class.
    pub failure_class: Option<String>,
    /// The message of one of them.
    pub example: String,
    /// How many.
    pub count: u64,
    /// Those of them that wait for a person.
    pub permanent: u64,
    /// Chunks of them all, where known.
    pub chunks: u64,
    /// When the oldest died.
    pub oldest_at: Option<DateTime<Utc>>,
    /// When the next of them is tried.
    pub next_attempt_at: Option<DateTime<Utc>>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Owner.
    pub user_id: String,
    /// Number.
    pub recording_id: i64,
    /// Title of the call.
    pub title: Option<String>,
    /// Segments of its transcript.
    pub segment_count: u64,
    /// Why it died.
    pub last_error: String,
    /// Names the cause.
    pub fingerprint: String,
    /// Attempts used by the main pipeline.
    pub attempts: u32,
    /// Attempts of recovery since.
    pub recoveries: u32,
    /// A person must act.
    pub permanent: bool,
    /// When it is tried next by itself.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When its last attempt ended.
    pub last_attempt_at: Option<DateTime<Utc>>,
    /// Chunks stored of the set that was being built.
    pub chunks_stored: u32,
    /// Chunks of that set; 0 where none was begun.
    pub chunks: u32,
}

/// Why a recording is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// Owner.
    pub user_id: String,
    /// Number.
    pub recording_id: i64,
    /// Title of the call.
    pub title: Option<String>,
    /// Segments of its transcript.
    pub segment_count: u64,
    /// Segments without text, which no chunk holds.
    pub segments_skipped: u64,
    /// The newest task's state; `None` where it was never queued.
    pub state: Option<String>,
    /// What it waits for, in a sentence.
    pub waits_for: String,
    /// The command that would move it, where one would.
    pub way_out: Option<String>,
    /// The worker that holds it.
    pub worker_id: Option<Uuid>,
    /// Until when.
    pub lease_ends_at: Option<DateTime<Utc>>,
    /// When it is tried next.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// Chunks that search sees.
    pub chunks_searchable: u32,
    /// Chunks stored of the set being built.
    pub chunks_stored: u32,
    /// Chunks of that set.
    pub chunks: u32,
    /// Tokens bought by all attempts.
    pub tokens: u64,
    /// Chunks that attempts found stored and did not buy again.
    pub chunks_reused: u64,
    /// Its attempts, oldest first, at most the last 100.
    pub attempts: Vec<AttemptRecord>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AttemptRecord {
    /// Its number within the task.
    pub number: u32,
    /// Which part made it.
    #[schema(value_type = String)]
    pub part: Part,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in seconds; `None` while it runs.
    pub took_secs: Option<f64>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<String>,
    /// Class of its failure.
    pub failure_class: Option<String>,
    /// What went wrong.
    pub message: Option<String>,
    /// Its trace, where traces are exported.
    pub trace_id: Option<String>,
    /// Who made it.
    pub worker_id: Uuid,
    /// Tokens it bought.
    pub tokens: Option<u64>,
}

/// A job's progress.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Run {
    /// Row of `runs`.
    pub id: Uuid,
    /// Which part.
    #[schema(value_type = String)]
    pub part: Part,
    /// What started it: `schedule`, `request` or `due`.
    pub cause: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it runs, or where its process died.
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

/// Five minutes of history, all replicas together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
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

    /// Dead letters and their causes.
    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<DeadLetters, Failure>;

    /// The recordings of this number: one for each user who holds it.
    async fn find(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure>;

    /// Why a recording is where it is; `None` where it is not stored.
    async fn explain(&self, key: &RecordingKey) -> Result<Option<Explanation>, Failure>;

    /// Jobs, newest first.
    async fn jobs(&self, limit: u32) -> Result<Vec<Job>, Failure>;

    /// Runs, newest first; with `failed_only`, those in which something failed or that ended early.
    async fn runs(&self, failed_only: bool, limit: u32) -> Result<Vec<Run>, Failure>;

    /// History of the last `hours`, oldest first; buckets in which nothing happened are left out.
    async fn history(&self, hours: u32) -> Result<Vec<Bucket>, Failure>;
}
