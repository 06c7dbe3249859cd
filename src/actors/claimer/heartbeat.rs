//! Renews the leases, and says in the database that this worker is alive and how it fares, so that one
//! look there tells of all replicas, and each learns how many share the provider.

use std::time::Instant;

use uuid::Uuid;

use super::{ClaimerState, RENEWALS_PER_LEASE};
use crate::actors::patience::answered_within;
use crate::actors::pulse::Renewal;
use crate::actors::supervisor::SupervisorMessage;
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
    /// Renews the leases and this worker's own row.
    pub(super) async fn renew_all(&mut self) {
        self.paused_until = self.arguments.embedder.paused_until();
        // Side by side: one that hangs must not keep the other from being in time.
        let (leases, own_row) = tokio::join!(self.renew(), self.report());
        self.arguments.renewed.send_replace(match leases.and(own_row) {
            Ok(()) => Renewal::Stored(Instant::now()),
            Err(failure) => Renewal::Failed(failure),
        });
    }

    /// Renews first after an outage too: an expired lease that nobody took is still ours. The local
    /// deadline counts from before the renewal was sent.
    pub(super) async fn renew(&self) -> Result<(), Failure> {
        if self.held.tokens.is_empty() {
            return Ok(());
        }
        let tokens: Vec<Uuid> = self.held.tokens.iter().copied().collect();
        let asked = Instant::now();
        let arguments = &self.arguments;
        let renewal = arguments.store.renew(&tokens, arguments.lease);
        match answered_within(arguments.lease / RENEWALS_PER_LEASE, renewal).await {
            Ok(kept) => {
                arguments.leased_until.send_replace(asked + arguments.lease);
                let lost: Vec<Uuid> =
                    tokens.into_iter().filter(|token| !kept.contains(token)).collect();
                if !lost.is_empty() {
                    let _ = arguments.supervisor.cast(SupervisorMessage::LeasesLost(lost));
                }
                Ok(())
            }
            Err(failure) => {
                arguments.outages.note(&failure);
                Err(failure)
            }
        }
    }

    /// Says soon when a pause for the rate limit begins or ends: a renewal may be minutes away.
    pub(super) async fn note_limit(&mut self) {
        let paused_until = self.arguments.embedder.paused_until();
        if paused_until != self.paused_until {
            self.paused_until = paused_until;
            // What fails is told with the next renewal.
            let _ = self.report().await;
        }
    }

    /// Says that this worker is alive and how it fares, and learns how many share the provider.
    pub(super) async fn report(&self) -> Result<(), Failure> {
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
            provider_paused_for: self
                .paused_until
                .map(|until| until.saturating_duration_since(Instant::now())),
            // Whoever waits for a right asks for it again more often than this.
            database_trouble: arguments.outages.forbidden_within(every),
        };
        let heartbeat = arguments.store.heartbeat(&worker, arguments.lease);
        match answered_within(every, heartbeat).await {
            Ok(replicas) => {
                arguments.embedder.share(replicas);
                Ok(())
            }
            Err(failure) => {
                arguments.outages.note(&failure);
                tracing::debug!(error = %failure, "a heartbeat failed; the next one comes soon");
                Err(failure)
            }
        }
    }
}
