//! What the Recovery actor clears away: leases of dead workers, and chunks of dead sets.

use super::RecoveryArguments;
use crate::actors::claimer::ClaimerMessage;
use crate::actors::patience::Outages;
use crate::domain::failure::Failure;
use crate::domain::task::settle;
use crate::telemetry::metrics::{self, metrics};

/// Expired leases settled in one sweep; the next sweep takes the rest.
const SWEEP_ROWS_MAX: u32 = 100;
/// Chunks deleted by one statement: quick even where an index makes each slow.
pub const DELETE_ROWS_MAX: u32 = 200;
/// Sweeps in the length of a lease: how late a dead worker is noticed.
pub(super) const SWEEPS_PER_LEASE: u32 = 4;

impl RecoveryArguments {
    pub(super) async fn clean(&self) -> Result<u64, Failure> {
        self.outages.answered(self.store.delete_dead_chunks(DELETE_ROWS_MAX)).await
    }

    pub(super) async fn sweep(&self) -> Result<(), Failure> {
        // Whoever lost the database with us gets the length of a lease to renew.
        if self.outages.seen_within(self.lease) {
            return Ok(());
        }
        let expired = self.store.expired(SWEEP_ROWS_MAX).await?;
        for task in &expired {
            let settlement = settle(task, &Failure::LeaseExpired, &self.policies, rand::random());
            if self.store.settle(&task.lease, &Failure::LeaseExpired, &settlement).await? {
                metrics().lease_expired(task, metrics::Outcome::from(&settlement));
                tracing::warn!(recording = %task.key, ?settlement, "a worker died: lease expired");
            }
        }
        if !expired.is_empty() {
            self.claimer.cast(ClaimerMessage::Poll);
        }
        Ok(())
    }
}

/// What fails here is tried again at the next sweep.
pub(super) fn note(result: Result<(), Failure>, outages: &Outages) {
    if let Err(failure) = result {
        outages.note(&failure);
        tracing::warn!(error = %failure, "recovery will try again");
    }
}
