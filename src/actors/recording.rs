//! One leased task. Runs one [`Attempt`] and ends; how it ended is read by the Supervisor from the
//! supervision event: the state on success, the error on failure, neither after a crash.

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::attempt::{Attempt, Done};

/// Messages of the Recording.
pub(super) enum RecordingMessage {
    /// Do the work. Sent by itself, since an error before that is no supervision event.
    Run,
}

/// The actor.
pub(super) struct Recording;

/// The attempt and, once it succeeded, what was done.
pub(super) struct RecordingState {
    attempt: Attempt,
    pub(super) done: Option<Done>,
}

impl Actor for Recording {
    type Msg = RecordingMessage;
    type State = RecordingState;
    type Arguments = Attempt;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        attempt: Attempt,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(RecordingState { attempt, done: None })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(myself.cast(RecordingMessage::Run)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RecordingMessage::Run => {
                state.done = Some(state.attempt.run().await?);
                myself.stop(None);
            }
        }
        Ok(())
    }
}
