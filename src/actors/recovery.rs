//! Brings back what was left behind: tasks whose worker died, and the room that dead chunk sets
//! take.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::address::Address;
use super::claimer::ClaimerMessage;
use super::patience::Outages;
use crate::domain::failure::Failure;
use crate::domain::retry::RetryPolicy;
use crate::domain::task::settle;
use crate::ports::Store;

/// Expired leases settled in one sweep; the next sweep takes the rest.
const SWEEP_ROWS_MAX: u32 = 100;
/// Chunks deleted by one statement: quick even where an index makes each slow.
pub const DELETE_ROWS_MAX: u32 = 200;
/// Sweeps in the length of a lease: how late a dead worker is noticed.
const SWEEPS_PER_LEASE: u32 = 4;

/// Messages of Recovery.
pub(super) enum RecoveryMessage {
    /// Settle leases whose time is over.
    Sweep,
    /// Delete chunks of dead sets.
    Clean,
}

/// What Recovery is given.
#[derive(Clone)]
pub(super) struct RecoveryArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    pub(super) claimer: Address<ClaimerMessage>,
    pub(super) retry: RetryPolicy,
    pub(super) lease: Duration,
}

/// The actor.
pub(super) struct Recovery;

impl Actor for Recovery {
    type Msg = RecoveryMessage;
    type State = RecoveryArguments;
    type Arguments = RecoveryArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // The first sweep waits a while: holders that an outage cut off renew first.
        myself.send_interval(state.lease / SWEEPS_PER_LEASE, || RecoveryMessage::Sweep);
        Ok(myself.cast(RecoveryMessage::Clean)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RecoveryMessage::Sweep => {
                note(state.outages.answered(state.sweep()).await, &state.outages);
            }
            RecoveryMessage::Clean => match state.clean().await {
                Ok(deleted) if deleted == u64::from(DELETE_ROWS_MAX) => {
                    myself.cast(RecoveryMessage::Clean)?;
                }
                result => note(result.map(|_| ()), &state.outages),
            },
        }
        Ok(())
    }
}

impl RecoveryArguments {
    async fn clean(&self) -> Result<u64, Failure> {
        self.outages.answered(self.store.delete_dead_chunks(DELETE_ROWS_MAX)).await
    }

    async fn sweep(&self) -> Result<(), Failure> {
        // Whoever lost the database with us gets the length of a lease to renew.
        if self.outages.seen_within(self.lease) {
            return Ok(());
        }
        let expired = self.store.expired(SWEEP_ROWS_MAX).await?;
        for task in &expired {
            let settlement = settle(task, &Failure::LeaseExpired, &self.retry, rand::random());
            if self.store.settle(&task.lease, &Failure::LeaseExpired, &settlement).await? {
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
fn note(result: Result<(), Failure>, outages: &Outages) {
    if let Err(failure) = result {
        outages.note(&failure);
        tracing::warn!(error = %failure, "recovery will try again");
    }
}
