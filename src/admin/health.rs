//! What tells whether the service is well: for the API and the page the same.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ports::TaskCounts;
use crate::ports::inspector::{Overview, Pause};

/// What tells whether the service is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Tasks by state.
    tasks: TaskCounts,
    /// Tasks in `failed` whose time has come.
    retry_ready: u64,
    /// Dead letters that wait for a person.
    dead_letters_permanent: u64,
    /// Age of the task that has waited longest, in seconds.
    oldest_waiting_secs: Option<f64>,
    /// When the last recording was completed.
    last_completed_at: Option<DateTime<Utc>>,
    /// Processes that are alive.
    workers: usize,
    /// Why some of them claim nothing.
    provider_troubles: Vec<String>,
    /// What is paused.
    pauses: Vec<Pause>,
}

/// The facts of it.
pub(super) fn judged(overview: &Overview) -> Health {
    let troubles = overview.workers.iter().filter_map(|worker| worker.provider_trouble.clone());
    Health {
        tasks: overview.tasks,
        retry_ready: overview.retry_ready,
        dead_letters_permanent: overview.dead_letters_permanent,
        oldest_waiting_secs: overview.oldest_waiting_secs,
        last_completed_at: overview.last_completed_at,
        workers: overview.workers.len(),
        provider_troubles: troubles.collect(),
        pauses: overview.pauses.clone(),
    }
}
