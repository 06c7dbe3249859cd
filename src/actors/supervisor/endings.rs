//! Every ending of a Recording: success, error, panic, kill. What becomes of the task is decided by
//! [`settle`], kept here until the store has it, and only then is the slot free.

use std::time::Duration;

use ractor::actor::messages::BoxedState;
use ractor::{ActorId, ActorProcessingErr, ActorRef};
use uuid::Uuid;

use super::super::attempt::{Attempt, Done};
use super::super::claimer::ClaimerMessage;
use super::super::recording::RecordingState;
use super::super::recovery::{RecoveryEnding, RecoveryMessage};
use super::{Running, SupervisorMessage, SupervisorState};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::task::{Settlement, Task, settle};
use crate::ports::Completion;
use crate::telemetry::metrics::{Outcome, metrics};
use crate::telemetry::spans::{self, AttemptSpan};

/// Restarts of a crashed Recording under the same lease and the same attempt.
const RESTARTS_MAX: u32 = 2;
/// After a settlement could not be stored, until it is sent again.
const SETTLE_AGAIN: Duration = Duration::from_secs(2);

/// How an actor ended, read off its supervision event.
pub(super) enum Ending {
    Done(Done),
    Failed(Failure),
    /// A panic, or a kill that the Supervisor did not order.
    Crashed,
}

/// An ending that the store does not have yet.
pub(super) struct Unsettled {
    task: Task,
    failure: Failure,
    settlement: Settlement,
    trace: AttemptSpan,
    took: Duration,
}

impl Unsettled {
    pub(super) fn task(&self) -> &Task {
        &self.task
    }
}

impl Ending {
    /// A Recording that succeeded leaves its state; one that was killed leaves none.
    pub(super) fn of_state(state: Option<BoxedState>) -> Self {
        let recording = state.and_then(|mut state| state.take::<RecordingState>().ok());
        match recording.and_then(|recording| recording.done) {
            Some(done) => Ending::Done(done),
            None => Ending::Crashed,
        }
    }

    /// A Recording fails with a [`Failure`]; any other error is the text of a panic, which may
    /// quote a transcript and is not repeated.
    pub(super) fn of_error(error: &ActorProcessingErr) -> Self {
        match error.downcast_ref::<Failure>() {
            Some(failure) => Ending::Failed(failure.clone()),
            None => Ending::Crashed,
        }
    }
}

impl SupervisorState {
    /// The one way out for every Recording.
    pub(super) async fn ended(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        id: ActorId,
        ending: Ending,
    ) -> Result<(), ActorProcessingErr> {
        let Some(Running { attempt, crashes, verdict, .. }) = self.running.remove(&id) else {
            return Ok(());
        };
        let progress = attempt.progress.clone();
        match (ending, verdict) {
            (Ending::Done(done), _) => self.done(&attempt, done),
            (_, Some(verdict)) => self.settle(myself, attempt, verdict),
            (Ending::Failed(failure), None) => self.settle(myself, attempt, failure),
            (Ending::Crashed, None) if crashes < RESTARTS_MAX => {
                attempt.trace.enter(|| tracing::warn!(recording = %attempt.task.key, restart = crashes + 1, "a recording crashed; it is restarted in place"));
                self.restarts += 1;
                metrics().actor_restarted("recording");
                progress.restarted();
                return self.spawn_recording(myself, attempt, crashes + 1).await;
            }
            (Ending::Crashed, None) => self.settle(myself, attempt, Failure::Panicked),
        }
        self.chunks_of_ended += progress.chunks_stored();
        Ok(())
    }

    fn done(&mut self, attempt: &Attempt, done: Done) {
        let Attempt { task, trace, began, .. } = attempt;
        let work = done.work;
        let outcome = match done.completion {
            Completion::Completed => Outcome::Completed,
            Completion::Superseded => Outcome::Superseded,
        };
        metrics().attempt_ended(task, outcome, None, began.elapsed());
        let ending = match done.completion {
            Completion::Completed => {
                trace.enter(|| tracing::info!(recording = %task.key, chunks = work.chunks, reused = work.chunks_reused, tokens = work.tokens, "completed"));
                trace.ended(outcome.as_str(), None);
                self.completed += 1;
                self.children.recovery.address().cast(RecoveryMessage::Replaced);
                RecoveryEnding::Completed
            }
            Completion::Superseded => {
                trace.enter(|| tracing::info!(recording = %task.key, "the transcript changed meanwhile; once more"));
                trace.ended(outcome.as_str(), None);
                RecoveryEnding::Interrupted
            }
        };
        if work.tokens > 0 && self.circuit.open().is_none() {
            self.circuit.succeeded();
        }
        self.free(task, ending);
    }

    /// Decides and sends the decision off.
    pub(super) fn settle(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        attempt: Attempt,
        failure: Failure,
    ) {
        let Attempt { task, trace, began, .. } = attempt;
        let (token, took) = (task.lease.token, began.elapsed());
        if failure == Failure::LeaseLost {
            // Whoever holds it now settles it.
            trace.enter(
                || tracing::warn!(recording = %task.key, "the lease was lost to another worker"),
            );
            trace.ended(Outcome::Lost.as_str(), Some(&failure));
            metrics().attempt_ended(&task, Outcome::Lost, Some(&failure), took);
            return self.free(&task, RecoveryEnding::Interrupted);
        }
        let failure = self.blame(myself, &task, failure);
        let settlement = settle(&task, &failure, &self.policies, rand::random());
        trace.enter(|| tracing::warn!(recording = %task.key, attempt = task.attempts, error = %failure, ?settlement, "attempt failed"));
        self.unsettled.insert(token, Unsettled { task, failure, settlement, trace, took });
        self.store_settlement(myself, token);
    }

    /// Stores a settlement in a task of its own, through outages of any length.
    pub(super) fn store_settlement(&self, myself: &ActorRef<SupervisorMessage>, token: Uuid) {
        let Some(unsettled) = self.unsettled.get(&token) else { return };
        let Unsettled { task, failure, settlement, trace, .. } = unsettled;
        let (lease, failure, settlement) = (task.lease, failure.clone(), settlement.clone());
        let mut step = spans::settle(trace);
        let (store, outages, myself) =
            (self.settings.store.clone(), self.outages.clone(), myself.clone());
        let storing = tokio::spawn(async move {
            let settling = outages.wait_out(None, || store.settle(&lease, &failure, &settlement));
            step.run(settling).await
        });
        tokio::spawn(async move {
            // A panic in there must not keep the slot for ever.
            let stored = storing.await.unwrap_or(Err(Failure::Panicked));
            // Sending fails only where the tree is gone.
            match stored {
                Ok(stored) => drop(myself.cast(SupervisorMessage::Settled { token, stored })),
                Err(error) => {
                    tracing::error!(%error, "a settlement could not be stored; it is sent again");
                    myself.send_after(SETTLE_AGAIN, move || SupervisorMessage::SettleAgain(token));
                }
            }
        });
    }

    pub(super) fn settled(&mut self, token: Uuid, stored: bool) {
        if let Some(unsettled) = self.unsettled.remove(&token) {
            let Unsettled { task, failure, settlement, trace, took } = unsettled;
            let outcome = if stored { Outcome::from(&settlement) } else { Outcome::Lost };
            trace.ended(outcome.as_str(), Some(&failure));
            metrics().attempt_ended(&task, outcome, Some(&failure), took);
            let ending = match settlement {
                Settlement::Postpone { .. } => RecoveryEnding::Interrupted,
                _ => RecoveryEnding::Failed { fingerprint: failure.fingerprint() },
            };
            self.free(&task, ending);
        }
    }

    fn free(&self, task: &Task, ending: RecoveryEnding) {
        let token = task.lease.token;
        self.children.claimer.address().cast(ClaimerMessage::Freed(token));
        if task.part == Part::Recovery {
            self.children.recovery.address().cast(RecoveryMessage::Ended { token, ending });
        }
    }
}
