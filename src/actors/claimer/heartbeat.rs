//! Says in the database that this worker is alive and how it fares, so that one look there tells of
//! all replicas, and each learns how many share the provider.

use std::time::Instant;

use super::{ClaimerState, RENEWALS_PER_LEASE};
use crate::actors::patience::answered_within;
use crate::domain::failure::Failure;
use crate::ports::{ProviderTrouble, WorkerState};

/// Why the provider is not called, and until when.
#[derive(Debug, Clone)]
pub(in crate::actors) struct Trouble {
    pub(in crate::actors) failure: Failure,
    /// When it is asked again.
    pub(in crate::actors) asked_at: Instant,
}

impl ClaimerState {
    /// Says that this worker is alive and how it fares, and learns how many share the provider.
    pub(super) async fn report(&self) {
        let arguments = &self.arguments;
        let trouble = self.held.trouble.as_ref().map(|trouble| ProviderTrouble {
            reason: trouble.failure.to_string(),
            asked_after: trouble.asked_at.saturating_duration_since(Instant::now()),
        });
        let every = arguments.lease / RENEWALS_PER_LEASE;
        let worker = WorkerState {
            id: arguments.worker_id,
            model_name: arguments.model_name.clone(),
            slots: arguments.slots,
            in_flight: self.held.tokens.len() as u32,
            provider_trouble: trouble,
            // Whoever waits for a right asks for it again more often than this.
            database_trouble: arguments.outages.forbidden_within(every),
        };
        let heartbeat = arguments.store.heartbeat(&worker, arguments.lease);
        match answered_within(every, heartbeat).await {
            Ok(replicas) => arguments.embedder.share(replicas),
            Err(failure) => {
                arguments.outages.note(&failure);
                tracing::debug!(error = %failure, "a heartbeat failed; the next one comes soon");
            }
        }
    }
}
