//! The root. Restarts the permanent actors, starts a Recording for each leased task, and sends
//! every ending through one place. It never waits for IO: what it must store is stored by tasks
//! that report back, and kept until they do.

mod children;
mod endings;
mod provider;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::TreeSettings;
use super::attempt::Attempt;
use super::claimer::{ClaimerMessage, Trouble};
use super::patience::Outages;
use super::progress::Progress;
use super::pulse::Renewal;
use super::recording::Recording;
use super::recovery::RecoveryMessage;
use super::status::{InFlight, Status};
use super::writer::Lanes;
use crate::domain::circuit::Circuit;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Policies, Task};
use crate::ports::Embedded;
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans::AttemptSpan;
use children::Children;
use endings::{Ending, Unsettled};

/// Between two looks at whether the recordings move.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// Messages of the Supervisor.
pub enum SupervisorMessage {
    /// Work on these tasks.
    Start(Vec<Task>),
    /// A Claimer took over from one that died. Comes behind every `Start` of that one.
    ClaimerTookOver,
    /// Another worker holds these leases now.
    LeasesLost(Vec<Uuid>),
    /// A settlement, by its lease's token, was stored, or proved needless.
    Settled { token: Uuid, stored: bool },
    /// A settlement could not be stored; send it again.
    SettleAgain(Uuid),
    /// Ask the provider whether it works again.
    Probe,
    /// What it said.
    Probed(Result<Embedded, Failure>),
    /// End recordings that make no progress.
    CheckProgress,
    /// Claim nothing more; finish what is in flight.
    Drain,
    /// The Claimer claims nothing more: Recovery is next.
    ClaimerDrained,
    /// Neither does Recovery.
    Drained,
    /// End what is in flight and give its leases back.
    ReleaseAll,
    /// Kill the actor of this recording, as a crash would.
    Crash(RecordingKey),
    /// Say that you are there.
    Answer(RpcReplyPort<()>),
}

/// What the Supervisor is given.
pub(super) struct Arguments {
    pub(super) settings: TreeSettings,
    pub(super) status: watch::Sender<Status>,
    /// Told how each renewal of the leases went.
    pub(super) renewed: watch::Sender<Renewal>,
}

/// The actor.
pub(super) struct Supervisor;

pub(super) struct SupervisorState {
    settings: TreeSettings,
    status: watch::Sender<Status>,
    children: Children,
    policies: Policies,
    lanes: Lanes,
    leased_until: watch::Sender<Instant>,
    renewed: watch::Sender<Renewal>,
    outages: Outages,
    running: HashMap<ActorId, Running>,
    unsettled: HashMap<Uuid, Unsettled>,
    circuit: Circuit,
    /// While the circuit is open.
    trouble: Option<Trouble>,
    draining: bool,
    drained: bool,
    completed: u64,
    restarts: u64,
    chunks_of_ended: u64,
}

/// A Recording in flight.
struct Running {
    cell: ActorCell,
    attempt: Attempt,
    crashes: u32,
    /// Why the Supervisor itself ends it.
    verdict: Option<Failure>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        Arguments { settings, status, renewed }: Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        // Given up before the Recordings that wait for it count as stalled.
        let outages = Outages::new(settings.stall / 2);
        let lanes = Lanes::new(settings.recovery.small_batches_above);
        let policies =
            Policies { retry: settings.retry.clone(), recovery: settings.recovery.policy };
        Ok(SupervisorState {
            settings,
            status,
            children: Children::new(),
            lanes,
            policies,
            leased_until: watch::Sender::new(Instant::now()),
            renewed,
            outages,
            running: HashMap::new(),
            unsettled: HashMap::new(),
            circuit: Circuit::default(),
            trouble: None,
            draining: false,
            drained: false,
            completed: 0,
            restarts: 0,
            chunks_of_ended: 0,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.start_children(&myself).await?;
        myself.send_interval(PROGRESS_PERIOD, || SupervisorMessage::CheckProgress);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Start(tasks) => state.start(&myself, tasks).await?,
            SupervisorMessage::ClaimerTookOver => {
                state.children.claimer.address().cast(ClaimerMessage::Doubt);
            }
            SupervisorMessage::LeasesLost(tokens) => {
                state.end_where(Failure::LeaseLost, |run| tokens.contains(&run.token()));
            }
            SupervisorMessage::Settled { token, stored } => state.settled(token, stored),
            SupervisorMessage::SettleAgain(token) => state.store_settlement(&myself, token),
            SupervisorMessage::Probe => state.probe(&myself),
            SupervisorMessage::Probed(result) => state.probed(&myself, result),
            SupervisorMessage::CheckProgress => state.check_progress(),
            SupervisorMessage::Drain => {
                state.draining = true;
                state.children.claimer.address().cast(ClaimerMessage::Drain);
            }
            SupervisorMessage::ClaimerDrained => {
                state.children.recovery.address().cast(RecoveryMessage::Drain);
            }
            SupervisorMessage::Drained => state.drained = true,
            SupervisorMessage::ReleaseAll => state.end_where(Failure::Shutdown, |_| true),
            SupervisorMessage::Crash(key) => state.crash(&key),
            // Whoever asked may have gone meanwhile.
            SupervisorMessage::Answer(reply) => drop(reply.send(())),
        }
        state.publish();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, ending) = match event {
            SupervisionEvent::ActorTerminated(cell, actor_state, _reason) => {
                (cell, Ending::of_state(actor_state))
            }
            SupervisionEvent::ActorFailed(cell, error) => (cell, Ending::of_error(&error)),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        };
        if state.running.contains_key(&cell.get_id()) {
            state.ended(&myself, cell.get_id(), ending).await?;
        } else {
            state.restart_child(&myself, &cell, &ending).await?;
        }
        state.publish();
        Ok(())
    }
}

impl SupervisorState {
    async fn start(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        tasks: Vec<Task>,
    ) -> Result<(), ActorProcessingErr> {
        let (recovering, main): (Vec<&Task>, Vec<&Task>) =
            tasks.iter().partition(|task| task.part == Part::Recovery);
        let tokens = |tasks: &[&Task]| tasks.iter().map(|task| task.lease.token).collect();
        let (alone, claimer) =
            (main.iter().any(|task| task.alone), self.children.claimer.address());
        if !main.is_empty() {
            claimer.cast(ClaimerMessage::Started { tokens: tokens(&main), alone });
        }
        if !recovering.is_empty() {
            claimer.cast(ClaimerMessage::Recovering { tokens: tokens(&recovering) });
        }
        for task in tasks {
            let trace = AttemptSpan::open(&task, &self.settings.model.name);
            let attempt = Attempt {
                task,
                trace,
                store: self.settings.store.clone(),
                embedder: self.settings.embedder.clone(),
                model_name: self.settings.model.name.clone(),
                requests_in_flight: self.settings.requests_in_flight,
                writer: self.children.writer.address(),
                lanes: self.lanes.clone(),
                leased_until: self.leased_until.subscribe(),
                outages: self.outages.clone(),
                progress: Arc::new(Progress::new()),
                began: Instant::now(),
            };
            if self.draining {
                // Claimed just before the drain: given back untouched.
                self.settle(myself, attempt, Failure::Shutdown);
            } else {
                metrics().attempt_began(&attempt.task);
                self.spawn_recording(myself, attempt, 0).await?;
            }
        }
        Ok(())
    }

    async fn spawn_recording(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        attempt: Attempt,
        crashes: u32,
    ) -> Result<(), ActorProcessingErr> {
        let supervisor = myself.get_cell();
        let (actor, _) = Actor::spawn_linked(None, Recording, attempt.clone(), supervisor).await?;
        let running = Running { cell: actor.get_cell(), attempt, crashes, verdict: None };
        self.running.insert(actor.get_id(), running);
        Ok(())
    }

    /// Ends recordings from outside. Their supervision events settle them.
    fn end_where(&mut self, verdict: Failure, condition: impl Fn(&Running) -> bool) {
        for running in self.running.values_mut().filter(|running| condition(running)) {
            running.verdict.get_or_insert_with(|| verdict.clone());
            running.cell.kill();
        }
    }

    /// Without a verdict: its ending is met like any crash.
    fn crash(&self, key: &RecordingKey) {
        for running in self.running.values().filter(|run| run.attempt.task.key == *key) {
            running.cell.kill();
        }
    }

    fn check_progress(&mut self) {
        let stall = self.settings.stall;
        // While the database is away nothing can move, and nobody is to blame for that.
        if self.outages.seen_within(stall) {
            return;
        }
        self.end_where(Failure::Stalled { idle: stall }, |run| {
            run.attempt.progress.idle() >= stall
        });
    }

    fn publish(&self) {
        metrics().circuit_is_open(self.circuit.open().is_some());
        self.lanes.measure();
        self.status.send_if_modified(|status| {
            let next = Status {
                recordings: self.running.values().map(Running::in_flight).collect(),
                unsettled: self.unsettled.len(),
                circuit: self.circuit.open().cloned(),
                drained: self.drained,
                gave_up: status.gave_up.clone(),
                completed: self.completed,
                restarts: self.restarts,
                chunks_of_ended: self.chunks_of_ended,
            };
            let modified = *status != next;
            *status = next;
            modified
        });
    }
}

impl Running {
    fn token(&self) -> Uuid {
        self.attempt.task.lease.token
    }

    fn in_flight(&self) -> InFlight {
        let key = self.attempt.task.key.clone();
        InFlight { key, restarts: self.crashes, progress: self.attempt.progress.clone() }
    }
}
