//! Free slots -> leased tasks. Renews every lease of this process, says that it is alive, and claims
//! nothing while the provider is in trouble or the service goes down.

mod heartbeat;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::patience::{Outages, answered_within};
use super::pulse::Renewal;
use super::supervisor::SupervisorMessage;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::ports::{ClaimOf, Claimed, Embedder, Store};
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans;
pub(super) use heartbeat::Trouble;

/// Leases, and the worker's own row, are renewed this many times in their length, so that one late
/// renewal loses none.
const RENEWALS_PER_LEASE: u32 = 3;
/// Between two looks at the provider's rate limit: a pause that is shorter may not be told.
const LIMIT_LOOK: Duration = Duration::from_secs(2);
/// After a claim that failed, until the next try.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// A retry is looked for this much after it falls due, so as not to come a moment early.
const DUE_MARGIN: Duration = Duration::from_millis(20);

/// Messages of the Claimer.
pub(super) enum ClaimerMessage {
    /// Look for work.
    Poll,
    /// Renew the leases, and say that this worker is alive.
    Renew,
    /// Say where a pause for the rate limit began or ended.
    NoteLimit,
    /// Recordings run under these leases, alone or not. News only to a Claimer that took over from
    /// the one that claimed them.
    Started { tokens: Vec<Uuid>, alone: bool },
    /// Dead letters are recovered under these leases, which must be renewed with the others.
    Recovering { tokens: Vec<Uuid> },
    /// The Claimer before may have died over a claim. Comes behind every `Started` of its tasks.
    Doubt,
    /// A task's ending is stored: its slot is free.
    Freed(Uuid),
    /// The provider is in trouble, or still is: claim nothing until [`ClaimerMessage::Resume`].
    /// Leases are still renewed.
    Pause(Trouble),
    /// Claim again.
    Resume,
    /// Claim nothing ever again, and say so to the supervisor.
    Drain,
}

/// What the Claimer is given.
#[derive(Clone)]
pub(super) struct ClaimerArguments {
    pub(super) store: Arc<dyn Store>,
    /// Told how many workers share the provider, and asked until when it wants no requests.
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) outages: Outages,
    pub(super) supervisor: ActorRef<SupervisorMessage>,
    pub(super) worker_id: Uuid,
    /// The model whose tasks are claimed.
    pub(super) model_name: String,
    pub(super) slots: u32,
    pub(super) lease: Duration,
    /// Told until when all leases of this process surely hold, by the local clock.
    pub(super) leased_until: watch::Sender<Instant>,
    /// Told how each renewal went.
    pub(super) renewed: watch::Sender<Renewal>,
}

/// What a new incarnation takes over from the one before.
pub(super) struct Held {
    pub(super) tokens: HashSet<Uuid>,
    /// Of these, the recoveries: they take no slot.
    pub(super) recovering: HashSet<Uuid>,
    pub(super) alone: bool,
    /// Told to stop.
    pub(super) draining: bool,
    pub(super) trouble: Option<Trouble>,
}

impl Held {
    fn in_slots(&self) -> u32 {
        (self.tokens.len() - self.recovering.len()) as u32
    }
}

/// The actor.
pub(super) struct Claimer;

pub(super) struct ClaimerState {
    arguments: ClaimerArguments,
    held: Held,
    /// A task over which a worker died waits until nothing else is in flight.
    suspect_waits: bool,
    /// Until when requests wait for the rate limit, as it was told last.
    paused_until: Option<Instant>,
    /// A claim failed: it may have been carried out all the same.
    claim_in_doubt: bool,
    /// A `Poll` for slots that came free is on its way.
    poll_queued: bool,
    next_poll: Option<JoinHandle<Result<(), ractor::MessagingErr<ClaimerMessage>>>>,
}

impl Actor for Claimer {
    type Msg = ClaimerMessage;
    type State = ClaimerState;
    type Arguments = (ClaimerArguments, Held);

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (arguments, held): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        // Whether a suspect waits is not known yet; looking for one first is safe.
        Ok(ClaimerState {
            arguments,
            held,
            suspect_waits: true,
            paused_until: None,
            claim_in_doubt: false,
            poll_queued: false,
            next_poll: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let period = state.arguments.lease / RENEWALS_PER_LEASE;
        myself.send_interval(period, || ClaimerMessage::Renew);
        myself.send_interval(LIMIT_LOOK, || ClaimerMessage::NoteLimit);
        myself.cast(ClaimerMessage::Renew)?;
        Ok(myself.cast(ClaimerMessage::Poll)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ClaimerMessage::Poll => {
                state.poll_queued = false;
                state.poll(&myself).await;
            }
            ClaimerMessage::Renew => state.renew_all().await,
            ClaimerMessage::NoteLimit => state.note_limit().await,
            ClaimerMessage::Started { tokens, alone } => {
                state.held.tokens.extend(tokens);
                state.held.alone |= alone;
            }
            ClaimerMessage::Recovering { tokens } => {
                let first = state.held.tokens.is_empty();
                state.held.tokens.extend(tokens.iter().copied());
                state.held.recovering.extend(tokens);
                if first {
                    // Nothing of this process was sure to hold until now. What fails is tried again.
                    let _ = state.renew().await;
                }
            }
            ClaimerMessage::Doubt => {
                state.claim_in_doubt = true;
                state.poll(&myself).await;
            }
            ClaimerMessage::Freed(token) => {
                state.held.tokens.remove(&token);
                state.held.recovering.remove(&token);
                state.held.alone &= !state.held.tokens.is_empty();
                // Behind all others that came free meanwhile: one claim fills their slots.
                if !std::mem::replace(&mut state.poll_queued, true) {
                    myself.cast(ClaimerMessage::Poll)?;
                }
            }
            ClaimerMessage::Pause(trouble) => {
                state.held.trouble = Some(trouble);
                let _ = state.report().await;
            }
            ClaimerMessage::Resume => {
                state.held.trouble = None;
                state.poll(&myself).await;
                let _ = state.report().await;
            }
            ClaimerMessage::Drain => {
                state.held.draining = true;
                // Behind every `Start`: the supervisor knows of all that was claimed.
                state.arguments.supervisor.cast(SupervisorMessage::ClaimerDrained)?;
            }
        }
        metrics().slots(state.held.in_slots(), state.arguments.slots);
        Ok(())
    }
}

impl ClaimerState {
    async fn poll(&mut self, myself: &ActorRef<ClaimerMessage>) {
        if let Err(failure) = self.claim(myself).await {
            self.claim_in_doubt = true;
            self.arguments.outages.note(&failure);
            self.poll_after(myself, CLAIM_AGAIN);
        }
    }

    async fn claim(&mut self, myself: &ActorRef<ClaimerMessage>) -> Result<(), Failure> {
        if self.held.draining
            || self.held.trouble.is_some()
            || self.held.alone
            || self.arguments.slots == 0
        {
            return Ok(());
        }
        self.resolve_doubt().await?;
        if self.suspect_waits {
            // A suspect runs alone: take nothing more until the others are done.
            if !self.held.tokens.is_empty() {
                return Ok(());
            }
            let claimed = self.ask(ClaimOf::Suspect).await?;
            if !claimed.tasks.is_empty() {
                self.held.alone = true;
                return self.start(myself, claimed);
            }
        }
        let free = self.arguments.slots.saturating_sub(self.held.in_slots());
        if free == 0 {
            return Ok(());
        }
        let mut claimed = self.ask(ClaimOf::Healthy(free)).await?;
        if claimed.suspect_waits && claimed.tasks.is_empty() && self.held.tokens.is_empty() {
            // It fell due between two looks: whatever falls due later does not hold it up.
            claimed.next_due = Some(Duration::ZERO);
        }
        self.start(myself, claimed)
    }

    /// Without this, tasks of a claim whose answer was lost would wait for their leases to end, and
    /// be suspected of a crash.
    async fn resolve_doubt(&mut self) -> Result<(), Failure> {
        if self.claim_in_doubt {
            let known: Vec<Uuid> = self.held.tokens.iter().copied().collect();
            let arguments = &self.arguments;
            let released =
                arguments.store.release_unknown(arguments.worker_id, Part::Main, &known).await?;
            if released > 0 {
                tracing::warn!(
                    released,
                    "the answer to a claim was lost; its tasks are given back"
                );
            }
            self.claim_in_doubt = false;
        }
        Ok(())
    }

    async fn ask(&mut self, of: ClaimOf) -> Result<Claimed, Failure> {
        let arguments = &self.arguments;
        let asked = Instant::now();
        let (worker_id, model_name) = (arguments.worker_id, &arguments.model_name);
        let claim = arguments.store.claim(worker_id, model_name, of, arguments.lease);
        // Whoever waits for a claim renews nothing meanwhile.
        let claim = answered_within(arguments.lease / RENEWALS_PER_LEASE, claim);
        let mut step = spans::claim(Part::Main, worker_id);
        let claimed = step.run(claim).await;
        let tasks = claimed.as_ref().map(|claimed| claimed.tasks.as_slice());
        metrics().claimed(Part::Main, asked.elapsed(), tasks);
        let mut claimed = claimed?;
        step.claimed(&mut claimed.tasks);
        if self.held.tokens.is_empty() && !claimed.tasks.is_empty() {
            arguments.leased_until.send_replace(asked + arguments.lease);
        }
        self.suspect_waits = claimed.suspect_waits;
        Ok(claimed)
    }

    fn start(
        &mut self,
        myself: &ActorRef<ClaimerMessage>,
        claimed: Claimed,
    ) -> Result<(), Failure> {
        if let Some(due) = claimed.next_due {
            self.poll_after(myself, due + DUE_MARGIN);
        }
        self.held.tokens.extend(claimed.tasks.iter().map(|task| task.lease.token));
        if !claimed.tasks.is_empty() {
            // The supervisor outlives this actor.
            let _ = self.arguments.supervisor.cast(SupervisorMessage::Start(claimed.tasks));
        }
        Ok(())
    }

    fn poll_after(&mut self, myself: &ActorRef<ClaimerMessage>, after: Duration) {
        if let Some(timer) = self.next_poll.take() {
            timer.abort();
        }
        self.next_poll = Some(myself.send_after(after, || ClaimerMessage::Poll));
    }
}
