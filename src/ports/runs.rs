//! Runs: what the Recovery actor claims under, and what of the work of both parts is kept.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::domain::failure::Failure;
use crate::domain::task::Task;

/// What makes the Recovery actor look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A tick of its schedule: every dead letter that is due.
    Tick,
    /// A notification or a timer: only where one that was recovered before is due again.
    Look,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunCause {
    /// The schedule.
    Schedule,
    /// A dead letter that was recovered before is due again.
    Due,
    /// Recordings were asked for.
    Request,
    /// A run was asked for.
    Run,
}

impl RunCause {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            RunCause::Schedule => "schedule",
            RunCause::Due => "due",
            RunCause::Request => "request",
            RunCause::Run => "run",
        }
    }
}

/// A run over dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryRun {
    /// Row of `runs`.
    pub id: Uuid,
    /// Why it began: one over requests takes nothing else.
    pub cause: RunCause,
}

/// A run that began, if one did, and when to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// The run.
    pub run: Option<RecoveryRun>,
    /// Time until the earliest next attempt of a dead letter that was recovered before.
    pub next_due: Option<Duration>,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunResult {
    /// Recordings claimed, or, in the main part, enqueued.
    pub taken: u32,
    /// Recordings that became complete.
    pub completed: u32,
    /// Recordings that failed.
    pub failed: u32,
    /// Why it ended before everything was done.
    pub stopped_because: Option<String>,
}

/// Begins, works and ends runs.
#[async_trait]
pub trait Runs: Send + Sync + 'static {
    /// Begins a run, where there is reason to: one that was asked for, else the requests of single
    /// recordings, else what is due for `occasion`. Only the first begins while recovery is paused, and
    /// takes nothing. Ends the runs that dead processes left open.
    async fn begin_recovery(
        &self,
        worker: Uuid,
        model_name: &str,
        occasion: Occasion,
    ) -> Result<Recovery, Failure>;

    /// Leases at most `rows_max` dead letters of a model for a run: those asked for, and, but in a run
    /// over requests, those that are due; the oldest first, those asked for before the others. Nothing
    /// while recovery is paused.
    async fn claim_recovery(
        &self,
        worker: Uuid,
        model_name: &str,
        run: &RecoveryRun,
        rows_max: u32,
        lease: Duration,
    ) -> Result<Vec<Task>, Failure>;

    /// Writes what came of a run. One that took nothing and that nobody asked for is forgotten.
    async fn end_run(&self, run_id: Uuid, result: &RunResult) -> Result<(), Failure>;

    /// After failures that are all alike: of what failed before with this fingerprint, withdraws what
    /// was asked for by now, and lets what was recovered before wait for `after`, so that the next run
    /// does not go the same way. Returns how many.
    async fn hold_off(
        &self,
        model_name: &str,
        fingerprint: &str,
        after: Duration,
    ) -> Result<u64, Failure>;

    /// Begins a run of the main part that was asked for, if one was.
    async fn begin_main_run(&self, worker: Uuid) -> Result<Option<Uuid>, Failure>;

    /// Keeps that a tick of the main part enqueued `enqueued` recordings.
    async fn note_main_tick(&self, worker: Uuid, enqueued: u64) -> Result<(), Failure>;
}
