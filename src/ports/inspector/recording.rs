//! What can be read of one recording: at work, given up, or wherever it is.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ports::operator::Part;

/// A recording that is being worked on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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

/// Which dead letters to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Only those of this fingerprint.
    pub fingerprint: Option<String>,
    /// Only those of this user.
    pub user_id: Option<String>,
    /// Only those of this number.
    pub recording_id: Option<i64>,
    /// Rows at most, from 1 to 500.
    pub limit: u32,
    /// Rows to pass over.
    pub offset: u64,
}

/// Dead letters that fit what was asked for, by cause and one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// How many fit, on all pages.
    pub total: u64,
    /// They by cause, largest first, at most 100 causes.
    pub groups: Vec<DeadLetterGroup>,
    /// This page of them, oldest first.
    pub rows: Vec<DeadLetter>,
}

/// Dead letters of one cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterGroup {
    /// Names the cause ([`crate::domain::failure::Failure::fingerprint`]).
    pub fingerprint: String,
    /// The failure's class.
    pub failure_class: Option<String>,
    /// The message of one of them.
    pub example: String,
    /// How many.
    pub count: u64,
    /// The numbers of the first of them, at most ten.
    pub recording_ids: Vec<i64>,
    /// Those of them that wait for a person.
    pub permanent: u64,
    /// Those of them that were tried within the hour: left alone without force.
    pub tried_recently: u64,
    /// Chunks of those whose transcript was cut already.
    pub chunks: u64,
    /// Of these, the chunks that are stored and not bought again.
    pub chunks_stored: u64,
    /// When the one of them was last tried that waits longest.
    pub oldest_at: Option<DateTime<Utc>>,
    /// When the next of them is tried.
    pub next_attempt_at: Option<DateTime<Utc>>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
