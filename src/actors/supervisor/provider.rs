//! Whether the provider is called: the breaker, whom it blames, and the probes that close it.

use std::time::Instant;

use ractor::ActorRef;

use super::super::claimer::{ClaimerMessage, Trouble};
use super::super::recovery::RecoveryMessage;
use super::{SupervisorMessage, SupervisorState};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::task::Task;
use crate::ports::Embedded;

impl SupervisorState {
    /// Tells the breaker. When recording after recording is rejected, the provider is to blame
    /// although it answers probes.
    pub(super) fn blame(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        task: &Task,
        failure: Failure,
    ) -> Failure {
        if task.part == Part::Recovery && matches!(failure, Failure::ProviderRejectsItem { .. }) {
            // It was rejected before: it tells nothing about the provider.
            return failure;
        }
        if self.circuit.failed(&task.key, &failure) {
            self.children.recovery.address().cast(RecoveryMessage::Pause);
            self.arm_probe(myself);
        }
        match failure {
            // Also of those that were in flight when it opened.
            Failure::ProviderRejectsItem { message } if self.circuit.open().is_some() => {
                Failure::ProviderUnavailable { message }
            }
            failure => failure,
        }
    }

    /// Asks the provider, in a task of its own.
    pub(super) fn probe(&self, myself: &ActorRef<SupervisorMessage>) {
        let (embedder, myself) = (self.settings.embedder.clone(), myself.clone());
        let probing = tokio::spawn(async move { embedder.probe().await });
        tokio::spawn(async move {
            let result = probing.await.unwrap_or_else(|_| {
                Err(Failure::ProviderUnavailable { message: "the probe panicked".into() })
            });
            // Sending fails only where the tree is gone.
            let _ = myself.cast(SupervisorMessage::Probed(result));
        });
    }

    /// Closes the breaker, or asks again later.
    pub(super) fn probed(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        result: Result<Embedded, Failure>,
    ) {
        match result {
            Ok(_) => {
                tracing::info!("the provider answers again; claiming goes on");
                self.circuit.succeeded();
                self.trouble = None;
                if !self.draining {
                    self.children.claimer.address().cast(ClaimerMessage::Resume);
                    self.children.recovery.address().cast(RecoveryMessage::Resume);
                }
            }
            Err(failure) => {
                self.circuit.probe_failed(failure);
                self.arm_probe(myself);
            }
        }
    }

    fn arm_probe(&mut self, myself: &ActorRef<SupervisorMessage>) {
        if let Some(open) = self.circuit.open() {
            tracing::warn!(error = %open.failure, probe_secs = open.probe_after.as_secs_f64(), "the provider is not called");
            myself.send_after(open.probe_after, || SupervisorMessage::Probe);
            let trouble = Trouble {
                failure: open.failure.clone(),
                asked_at: Instant::now() + open.probe_after,
            };
            self.children.claimer.address().cast(ClaimerMessage::Pause(trouble.clone()));
            self.trouble = Some(trouble);
        }
    }
}
