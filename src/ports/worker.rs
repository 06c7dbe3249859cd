//! What a process tells of itself while it works on the queue.

use std::time::Duration;

use uuid::Uuid;

/// A worker as it is at a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// Its name in leases and attempts.
    pub id: Uuid,
    /// The model that it works for.
    pub model_name: String,
    /// Recordings that it may work on at once.
    pub slots: u32,
    /// Recordings that it works on.
    pub in_flight: u32,
    /// Why it claims nothing, where its provider is to blame.
    pub provider_trouble: Option<ProviderTrouble>,
    /// Time until it sends requests again, where the provider's rate limit is used up.
    pub provider_paused_for: Option<Duration>,
    /// What it may not do in the database, where its work waits for a right.
    pub database_trouble: Option<String>,
}

/// Why the provider is not called, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTrouble {
    /// The failure, in a sentence.
    pub reason: String,
    /// Time until it is asked again; zero while it is being asked.
    pub asked_after: Duration,
}
