//! Brings back what was left behind: dead letters, a few at a time and in small steps; tasks whose
//! worker died; and the room that dead chunk sets take.

mod run;
mod sweeping;
mod ticking;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use croner::Cron;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::address::Address;
use super::claimer::ClaimerMessage;
use super::patience::Outages;
use super::supervisor::SupervisorMessage;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::task::{Policies, Task};
use crate::ports::{Occasion, Store};
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans;
pub(super) use run::RecoveryEnding;
use run::Run;
pub use sweeping::DELETE_ROWS_MAX;
use sweeping::{SWEEPS_PER_LEASE, note};

/// After a statement that failed, or a run that found others at what is due, until the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A dead letter is looked for this much after it falls due, so as not to come a moment early.
const DUE_MARGIN: Duration = Duration::from_millis(20);

/// Dead sets wait this long for others to be deleted with: they are in nobody's way, and a thousand short
/// recordings a minute are no reason for a thousand looks.
const CLEAN_DELAY: Duration = Duration::from_secs(1);

/// Messages of Recovery.
pub(super) enum RecoveryMessage {
    /// Settle leases whose time is over.
    Sweep,
    /// A set was made current: there may be a dead one.
    Replaced,
    /// Delete chunks of dead sets.
    Clean,
    /// Tell others when ticks fall.
    NoteCron,
    /// Make up for a tick that was missed, and find out when the next one falls.
    Arm,
    /// The schedule fired: everything that is due.
    Tick(DateTime<Utc>),
    /// Something was asked for, or fell due again.
    Look,
    /// A recovery's ending is stored.
    Ended { token: Uuid, ending: RecoveryEnding },
    /// Claim nothing until [`RecoveryMessage::Resume`]: the provider is in trouble.
    Pause,
    /// Claim again.
    Resume,
    /// Claim nothing ever again, and say so to the supervisor.
    Drain,
}

/// What Recovery is given.
#[derive(Clone)]
pub(super) struct RecoveryArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    pub(super) supervisor: ActorRef<SupervisorMessage>,
    pub(super) claimer: Address<ClaimerMessage>,
    pub(super) worker_id: Uuid,
    /// The model whose dead letters are recovered.
    pub(super) model_name: String,
    pub(super) policies: Policies,
    pub(super) lease: Duration,
    pub(super) schedule: Cron,
    /// Recordings recovered at once.
    pub(super) recordings_max: u32,
}

/// The actor.
pub(super) struct Recovery;

pub(super) struct RecoveryState {
    arguments: RecoveryArguments,
    /// Leases of recoveries that are not settled yet, those of an incarnation before included.
    held: HashSet<Uuid>,
    paused: bool,
    run: Option<Run>,
    /// What the next run is begun for.
    occasion: Occasion,
    /// A claim failed: it may have been carried out all the same.
    claim_in_doubt: bool,
    /// A `Clean` comes within [`CLEAN_DELAY`].
    clean_waits: bool,
    next_look: Option<JoinHandle<Result<(), ractor::MessagingErr<RecoveryMessage>>>>,
}

impl Actor for Recovery {
    type Msg = RecoveryMessage;
    type State = RecoveryState;
    /// Further: the leases of recoveries under way, and whether the provider is in trouble.
    type Arguments = (RecoveryArguments, HashSet<Uuid>, bool);

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (arguments, held, paused): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(RecoveryState {
            arguments,
            held,
            paused,
            run: None,
            occasion: Occasion::Look,
            claim_in_doubt: false,
            clean_waits: false,
            next_look: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // The first sweep waits a while: holders that an outage cut off renew first.
        let period = state.arguments.lease / SWEEPS_PER_LEASE;
        myself.send_interval(period, || RecoveryMessage::Sweep);
        myself.cast(RecoveryMessage::Clean)?;
        myself.cast(RecoveryMessage::NoteCron)?;
        myself.cast(RecoveryMessage::Arm)?;
        Ok(myself.cast(RecoveryMessage::Look)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let outages = state.arguments.outages.clone();
        match message {
            RecoveryMessage::Sweep => {
                note(outages.answered(state.arguments.sweep()).await, &outages);
            }
            RecoveryMessage::Replaced => {
                if !std::mem::replace(&mut state.clean_waits, true) {
                    myself.send_after(CLEAN_DELAY, || RecoveryMessage::Clean);
                }
            }
            RecoveryMessage::Clean => {
                state.clean_waits = false;
                match state.arguments.clean().await {
                    Ok(deleted) if deleted == u64::from(DELETE_ROWS_MAX) => {
                        myself.cast(RecoveryMessage::Clean)?;
                    }
                    result => note(result.map(|_| ()), &outages),
                }
            }
            RecoveryMessage::NoteCron => state.arguments.note_cron().await,
            RecoveryMessage::Arm => state.arm(&myself).await,
            RecoveryMessage::Tick(at) => state.tick(&myself, at).await?,
            RecoveryMessage::Look => state.look(&myself).await,
            RecoveryMessage::Ended { token, ending } => {
                state.held.remove(&token);
                if let Some(run) = &mut state.run {
                    run.ended(token, ending);
                }
                state.look(&myself).await;
            }
            RecoveryMessage::Pause => state.paused = true,
            RecoveryMessage::Resume => {
                state.paused = false;
                state.look(&myself).await;
            }
            RecoveryMessage::Drain => {
                state.paused = true;
                if let Some(mut run) = state.run.take() {
                    run.stop("the service stopped");
                    note(state.arguments.end(&run).await, &outages);
                }
                // Behind every `Start`: the supervisor knows of all that was claimed.
                state.arguments.supervisor.cast(SupervisorMessage::Drained)?;
            }
        }
        Ok(())
    }
}

impl RecoveryState {
    async fn look(&mut self, myself: &ActorRef<RecoveryMessage>) {
        if self.paused {
            return;
        }
        if let Err(failure) = self.go_on(myself).await {
            self.claim_in_doubt = true;
            self.arguments.outages.note(&failure);
            tracing::warn!(error = %failure, "recovery will look again");
            self.look_after(myself, LOOK_AGAIN);
        }
    }

    /// Ends a run that is over, begins one where there is reason to, and claims for it.
    async fn go_on(&mut self, myself: &ActorRef<RecoveryMessage>) -> Result<(), Failure> {
        self.resolve_doubt().await?;
        loop {
            if self.run.is_none() && !self.begin(myself).await? {
                return Ok(());
            }
            self.claim().await?;
            let Some(run) = self.run.take_if(|run| run.is_over()) else { return Ok(()) };
            if let Err(failure) = self.arguments.end(&run).await {
                self.run = Some(run);
                return Err(failure);
            }
            if !run.calls_for_another() {
                self.occasion = Occasion::Look;
            }
            if run.was_empty() {
                // Others are at it.
                self.look_after(myself, LOOK_AGAIN);
                return Ok(());
            }
        }
    }

    /// False where there is nothing to do now.
    async fn begin(&mut self, myself: &ActorRef<RecoveryMessage>) -> Result<bool, Failure> {
        let RecoveryArguments { store, outages, worker_id, model_name, .. } = &self.arguments;
        let beginning = store.begin_recovery(*worker_id, model_name, self.occasion);
        let begun = outages.answered(beginning).await?;
        if let Some(row) = begun.run {
            tracing::info!(run = %row.id, cause = row.cause.as_str(), "recovering dead letters");
            self.run = Some(Run::new(row));
            return Ok(true);
        }
        self.occasion = Occasion::Look;
        if let Some(due) = begun.next_due {
            self.look_after(myself, due + DUE_MARGIN);
        }
        Ok(false)
    }

    async fn claim(&mut self) -> Result<(), Failure> {
        let free = self.arguments.recordings_max.saturating_sub(self.held.len() as u32);
        let Some(run) = &mut self.run else { return Ok(()) };
        let wanted = run.wants(free);
        if wanted == 0 {
            return Ok(());
        }
        let RecoveryArguments { store, outages, worker_id, model_name, lease, .. } =
            &self.arguments;
        let claiming = store.claim_recovery(*worker_id, model_name, &run.row, wanted, *lease);
        let asked = Instant::now();
        let mut step = spans::claim(Part::Recovery, *worker_id);
        let tasks = step.run(outages.answered(claiming)).await;
        metrics().claimed(Part::Recovery, asked.elapsed(), tasks.as_deref());
        let mut tasks: Vec<Task> = tasks?;
        step.claimed(&mut tasks);
        let tokens: Vec<Uuid> = tasks.iter().map(|task| task.lease.token).collect();
        run.claimed(tokens.iter().copied(), wanted);
        self.held.extend(tokens);
        if !tasks.is_empty() {
            // The supervisor outlives this actor.
            let _ = self.arguments.supervisor.cast(SupervisorMessage::Start(tasks));
        }
        Ok(())
    }

    /// Without this, dead letters of a claim whose answer was lost would wait for their leases to end.
    async fn resolve_doubt(&mut self) -> Result<(), Failure> {
        if self.claim_in_doubt {
            let known: Vec<Uuid> = self.held.iter().copied().collect();
            let RecoveryArguments { store, outages, worker_id, .. } = &self.arguments;
            let releasing = store.release_unknown(*worker_id, Part::Recovery, &known);
            outages.answered(releasing).await?;
            self.claim_in_doubt = false;
        }
        Ok(())
    }

    fn look_after(&mut self, myself: &ActorRef<RecoveryMessage>, after: Duration) {
        if let Some(timer) = self.next_look.take() {
            timer.abort();
        }
        self.next_look = Some(myself.send_after(after, || RecoveryMessage::Look));
    }
}

impl RecoveryArguments {
    /// Keeps what came of a run. One that was stopped holds the others off.
    async fn end(&self, run: &Run) -> Result<(), Failure> {
        let RecoveryArguments { store, outages, model_name, policies, .. } = self;
        if let Some(fingerprint) = run.failed_alike() {
            let after = policies.recovery.first;
            let held = outages.answered(store.hold_off(model_name, fingerprint, after)).await?;
            let reason = run.result().stopped_because.as_deref().unwrap_or_default();
            tracing::warn!(reason, held, "recovery stops for now");
        }
        outages.answered(store.end_run(run.row.id, run.result())).await
    }
}
