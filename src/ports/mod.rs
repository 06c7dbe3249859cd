//! What the actors need from the outside, in the domain's words. Adapters implement these traits;
//! the actors know nothing else of a database or a provider.

mod imported;
pub mod inspector;
pub mod operator;
mod runs;
mod task_counts;
mod vitals;
mod worker;

use std::time::{Duration, Instant};

use async_trait::async_trait;
pub use imported::{ImportChange, ImportedRecording, ImportedSegment};
pub use task_counts::TaskCounts;
use tokio::sync::mpsc;
use uuid::Uuid;
pub use vitals::Vitals;
pub use worker::{ProviderTrouble, WorkerState};

pub use runs::{Occasion, Recovery, RecoveryRun, RunCause, RunResult, Runs};

use crate::domain::failure::Failure;
use crate::domain::packing::RequestLimits;
use crate::domain::part::Part;
use crate::domain::recording::{Recording, RecordingKey};
use crate::domain::task::{Lease, Settlement, Task};
use crate::domain::trace::Traceparent;

/// The embedding model that everything stored under one name was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name: as it is stored beside each vector, or, where it is said, as the provider knows it.
    pub name: String,
    /// Length of its vectors.
    pub dimensions: u32,
}

/// The vectors of one request, in the order of its inputs, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One vector for each input; finite, of the model's dimension, not of length zero.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the provider counted, or bytes / 4 where it does not say.
    pub tokens: u64,
}

/// Turns texts into vectors.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// What one request may hold, as far as is known by now.
    fn limits(&self) -> RequestLimits;

    /// A larger request was refused, and its parts of at most `inputs_max` inputs were all taken:
    /// for the life of this process, requests hold no more.
    fn learn_inputs_max(&self, inputs_max: usize);

    /// So many replicas share the provider, this one included: a ceiling on all of them together is
    /// divided by that. At least 1.
    fn share(&self, replicas: u32);

    /// Until when no request is sent, since the provider's rate limit is used up; `None` where none is.
    fn paused_until(&self) -> Option<Instant>;

    /// Embeds `inputs` in one request. Waits for the provider's rate limit and repeats a request
    /// that fails for a passing reason a few times.
    ///
    /// # Errors
    /// A failure of the provider ([`Failure::RateLimited`] only where the wait would be long), or
    /// [`Failure::RequestRefused`] where it will not take these inputs: split them and try the
    /// parts.
    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure>;

    /// Embeds a fixed short text once, with no repetition: does the provider work at all?
    ///
    /// # Errors
    /// The provider's failure, never [`Failure::RequestRefused`].
    async fn probe(&self) -> Result<Embedded, Failure>;
}

/// A recording as it stands, with what tells later whether it changed.
#[derive(Debug, Clone)]
pub struct Source {
    /// The call and its live segments in spoken order. Empty where all are empty or deleted.
    pub recording: Recording,
    /// Digest of everything a chunk is made from, computed by the database.
    pub digest: String,
}

/// The chunk set that an attempt works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    /// Row of `chunk_sets`.
    pub id: Uuid,
    /// True where the current set already is of this fingerprint: nothing is left to embed.
    pub current: bool,
    /// Indexes of the chunks that are stored already, ascending.
    pub stored: Vec<u32>,
    /// Indexes of the chunks whose text another live set holds: their rows need no vector.
    pub reusable: Vec<u32>,
}

/// What a chunk set is opened with.
#[derive(Debug, Clone)]
pub struct ChunkSetRequest {
    /// Name of the model that embeds it.
    pub model_name: String,
    /// Name of exactly these chunks, in this order.
    pub fingerprint: String,
    /// [`Source::digest`] of the transcript that it is made from.
    pub digest: String,
    /// SHA-256 of each chunk's embedded text, by index.
    pub content_hashes: Vec<[u8; 32]>,
    /// Buy everything, whatever other sets hold.
    pub afresh: bool,
}

/// One chunk, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkRow {
    /// Its place in the recording, from 0.
    pub index: u32,
    /// The transcript it holds.
    pub text: String,
    /// SHA-256 of the text that was embedded.
    pub content_hash: [u8; 32],
    /// Who speaks in it, in order of appearance.
    pub speakers: Vec<String>,
    /// Start of its first segment, in seconds.
    pub start_secs: Option<u32>,
    /// Start of its last segment, in seconds.
    pub end_secs: Option<u32>,
    /// Its vector; `None` takes that of a live chunk with the same text ([`ChunkSet::reusable`]).
    pub embedding: Option<Vec<f32>>,
}

/// Where rows belong and under which lease they are written.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The lease whose fence guards the insert.
    pub lease: Lease,
    /// The set that the rows are part of.
    pub chunk_set_id: Uuid,
    /// The recording.
    pub key: RecordingKey,
    /// Stored beside each vector.
    pub model_name: String,
    /// Stored beside each chunk for readers.
    pub call_title: Option<String>,
    /// Stored beside each chunk for readers.
    pub call_date: chrono::DateTime<chrono::Utc>,
    /// Its statements may take two minutes, whatever the role's `statement_timeout` is.
    pub patient: bool,
}

/// How much work an attempt was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Chunks of the recording.
    pub chunks: u32,
    /// Chunks that were there already, or were copied, and so were not bought.
    pub chunks_reused: u32,
    /// Tokens bought.
    pub tokens: u64,
}

/// What came of the attempt to complete a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The set is current and the task completed.
    Completed,
    /// The transcript changed meanwhile: the task is pending again, no attempt is used.
    Superseded,
}

/// A page of claimed tasks, and when to look again.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// Newly leased tasks.
    pub tasks: Vec<Task>,
    /// A task over which a worker died waits for its turn to run alone.
    pub suspect_waits: bool,
    /// Time until the earliest retry falls due, where one waits.
    pub next_due: Option<Duration>,
}

/// Which tasks a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOf {
    /// At most this many tasks over which no worker died.
    Healthy(u32),
    /// One task over which a worker died; only for a worker with nothing else in flight.
    Suspect,
}

/// The queue, the transcripts and the chunks. Every write of an attempt is fenced by its lease:
/// under a stale one it changes nothing and returns [`Failure::LeaseLost`].
#[async_trait]
pub trait Store: Runs {
    /// Leases tasks of a model that are due, best first, for `lease` from now by the database's
    /// clock. Each gets a fresh token and an attempt row. A retired model has no tasks.
    async fn claim(
        &self,
        worker: Uuid,
        model_name: &str,
        of: ClaimOf,
        lease: Duration,
    ) -> Result<Claimed, Failure>;

    /// Extends leases; returns those of the tokens that are still held.
    async fn renew(&self, tokens: &[Uuid], lease: Duration) -> Result<Vec<Uuid>, Failure>;

    /// Gives back, uncounted, tasks that `worker` leased for `part` but that are not among the `known`
    /// tokens: the answer to its claim was lost. Returns how many.
    async fn release_unknown(
        &self,
        worker: Uuid,
        part: Part,
        known: &[Uuid],
    ) -> Result<u64, Failure>;

    /// Says that `worker` is alive, and will be for `lease` unless it says so again. Returns how many
    /// workers of its model are alive, itself included. Rows of workers that died a day ago go.
    async fn heartbeat(&self, worker: &WorkerState, lease: Duration) -> Result<u32, Failure>;

    /// Takes a worker that ends off the list of those alive.
    async fn sign_off(&self, worker: Uuid) -> Result<(), Failure>;

    /// Leases whose time is over, at most `rows_max`, oldest first.
    async fn expired(&self, rows_max: u32) -> Result<Vec<Task>, Failure>;

    /// Writes what becomes of a task, once per attempt; false where the attempt was settled before
    /// or the lease is another's by now. [`Failure::LeaseExpired`] is only written to a lease that
    /// really is over.
    async fn settle(
        &self,
        lease: &Lease,
        failure: &Failure,
        settlement: &Settlement,
    ) -> Result<bool, Failure>;

    /// Notes the trace that tells an attempt's story.
    async fn note_trace(&self, lease: &Lease, trace: &Traceparent) -> Result<(), Failure>;

    /// Loads a recording.
    ///
    /// # Errors
    /// [`Failure::RecordingDeleted`], [`Failure::TranscriptMissing`],
    /// [`Failure::TranscriptTooLarge`].
    async fn load(&self, key: &RecordingKey) -> Result<Source, Failure>;

    /// Opens or resumes the building set of this fingerprint.
    async fn open_chunk_set(
        &self,
        lease: &Lease,
        key: &RecordingKey,
        request: &ChunkSetRequest,
    ) -> Result<ChunkSet, Failure>;

    /// Inserts rows under the fence. Rows that are there already are left alone.
    async fn insert_chunks(
        &self,
        destination: &Destination,
        rows: &[ChunkRow],
    ) -> Result<(), Failure>;

    /// Under the fence, in one transaction: checks that every chunk is there, makes the set
    /// current and the old one dead, completes the task and closes the attempt.
    async fn complete(
        &self,
        lease: &Lease,
        chunk_set_id: Uuid,
        work: Work,
    ) -> Result<Completion, Failure>;

    /// Deletes chunks of dead sets, at most `rows_max`, and declares as many sets of retired models
    /// dead; returns how many there were of the more frequent kind.
    async fn delete_dead_chunks(&self, rows_max: u32) -> Result<u64, Failure>;

    /// Deletes tasks that completed more than `after` ago, at most `rows_max`, with their attempts and
    /// then the jobs that asked for nothing else; returns how many tasks.
    async fn forget_completed(&self, after: Duration, rows_max: u32) -> Result<u64, Failure>;

    /// Enqueues recordings for a model that need it (no current set of it, or one that no longer fits
    /// the transcript) and have no open task for it, at most `rows_max`; returns how many.
    async fn reconcile(&self, model: &Model, rows_max: u32) -> Result<u64, Failure>;

    /// Takes the tick of `schedule` that falls at `at`; false where another process took it.
    async fn take_tick(
        &self,
        schedule: &str,
        at: chrono::DateTime<chrono::Utc>,
    ) -> Result<bool, Failure>;

    /// Takes the tick of `schedule` that fell at `at`, where an earlier one was taken and none since.
    async fn take_missed_tick(
        &self,
        schedule: &str,
        at: chrono::DateTime<chrono::Utc>,
    ) -> Result<bool, Failure>;

    /// Notes when `schedule` fires, in cron's notation, for those who want to know of its next tick.
    async fn note_cron(&self, schedule: &str, cron: &str) -> Result<(), Failure>;

    /// Writes the five-minute buckets of history that are over; returns how many.
    async fn roll_up_history(&self) -> Result<u64, Failure>;

    /// The database's time.
    async fn now(&self) -> Result<chrono::DateTime<chrono::Utc>, Failure>;

    /// Tasks by state.
    async fn task_counts(&self) -> Result<TaskCounts, Failure>;

    /// The server's `statement_timeout` for this role; `None` where there is none.
    async fn statement_timeout(&self) -> Result<Option<Duration>, Failure>;

    /// Sends a unit for each notification that a task became ready, one once it listens, and one
    /// after each reconnection. Ends with an error where the connection breaks or notifications cannot pass.
    async fn listen(&self, ready: mpsc::Sender<()>) -> Result<(), Failure>;
}
