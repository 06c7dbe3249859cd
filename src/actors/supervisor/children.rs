//! The permanent actors: started in order, restarted when they end, and given up when they end too
//! often.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef};

use super::super::address::Directory;
use super::super::claimer::{Claimer, ClaimerArguments, ClaimerMessage, Held};
use super::super::recovery::{Recovery, RecoveryArguments, RecoveryMessage};
use super::super::scheduler::{Scheduler, SchedulerArguments};
use super::super::writer::{Writer, WriterArguments, WriterMessage};
use super::endings::Ending;
use super::{SupervisorMessage, SupervisorState};
use crate::domain::part::Part;
use crate::telemetry::metrics::metrics;

/// More restarts than this within [`RESTART_PERIOD`] will not be cured by another.
const RESTARTS_MAX: usize = 5;
/// See [`RESTARTS_MAX`].
const RESTART_PERIOD: Duration = Duration::from_secs(30);

/// A permanent actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Child {
    Writer,
    Recovery,
    Claimer,
    Scheduler,
}

impl Child {
    const ALL: [Child; 4] = [Child::Writer, Child::Recovery, Child::Claimer, Child::Scheduler];

    fn as_str(self) -> &'static str {
        match self {
            Child::Writer => "writer",
            Child::Recovery => "recovery",
            Child::Claimer => "claimer",
            Child::Scheduler => "scheduler",
        }
    }
}

/// Where the permanent actors live, and when they were restarted.
pub(super) struct Children {
    pub(super) writer: Directory<WriterMessage>,
    pub(super) recovery: Directory<RecoveryMessage>,
    pub(super) claimer: Directory<ClaimerMessage>,
    cells: Vec<(ActorId, Child)>,
    restarts: VecDeque<Instant>,
}

impl Children {
    pub(super) fn new() -> Self {
        Self {
            writer: Directory::new(),
            recovery: Directory::new(),
            claimer: Directory::new(),
            cells: Vec::new(),
            restarts: VecDeque::new(),
        }
    }

    /// Notes a restart; false where there were too many.
    fn may_restart(&mut self, now: Instant) -> bool {
        self.restarts.retain(|at| now.duration_since(*at) < RESTART_PERIOD);
        self.restarts.push_back(now);
        self.restarts.len() <= RESTARTS_MAX
    }
}

impl SupervisorState {
    /// In this order: the Writer before those that need it, the Scheduler, which sets all in motion, last.
    pub(super) async fn start_children(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
    ) -> Result<(), ActorProcessingErr> {
        for child in Child::ALL {
            self.start_child(myself, child).await?;
        }
        Ok(())
    }

    async fn start_child(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: Child,
    ) -> Result<(), ActorProcessingErr> {
        let settings = &self.settings;
        let (store, outages, supervisor) =
            (settings.store.clone(), self.outages.clone(), myself.get_cell());
        let id = match child {
            Child::Writer => {
                let arguments = WriterArguments {
                    store,
                    outages,
                    insert_rows: settings.insert_rows,
                    inserts_max: settings.inserts_in_flight,
                    statement_timeout: settings.statement_timeout,
                };
                let (actor, _) = Actor::spawn_linked(None, Writer, arguments, supervisor).await?;
                self.children.writer.publish(actor.clone());
                actor.get_id()
            }
            Child::Recovery => {
                let arguments = RecoveryArguments {
                    store,
                    outages,
                    supervisor: myself.clone(),
                    claimer: self.children.claimer.address(),
                    worker_id: settings.worker_id,
                    model_name: settings.model.name.clone(),
                    policies: self.policies.clone(),
                    lease: settings.lease,
                    schedule: settings.recovery.schedule.clone(),
                    recordings_max: settings.recovery.recordings_max,
                };
                let Held { recovering, trouble, .. } = self.held();
                let arguments = (arguments, recovering, trouble.is_some());
                let (actor, _) = Actor::spawn_linked(None, Recovery, arguments, supervisor).await?;
                self.children.recovery.publish(actor.clone());
                if self.draining {
                    actor.cast(RecoveryMessage::Drain)?;
                }
                actor.get_id()
            }
            Child::Claimer => {
                let arguments = ClaimerArguments {
                    store,
                    embedder: settings.embedder.clone(),
                    outages,
                    supervisor: myself.clone(),
                    worker_id: settings.worker_id,
                    model_name: settings.model.name.clone(),
                    slots: settings.recordings_max,
                    lease: settings.lease,
                    leased_until: self.leased_until.clone(),
                    renewed: self.renewed.clone(),
                };
                let arguments = (arguments, self.held());
                let (actor, _) = Actor::spawn_linked(None, Claimer, arguments, supervisor).await?;
                self.children.claimer.publish(actor.clone());
                if self.draining {
                    actor.cast(ClaimerMessage::Drain)?;
                }
                actor.get_id()
            }
            Child::Scheduler => {
                let arguments = SchedulerArguments {
                    store,
                    outages,
                    model: settings.model.clone(),
                    worker_id: settings.worker_id,
                    schedule: settings.schedule.clone(),
                    keep_completed: settings.keep_completed,
                    claimer: self.children.claimer.address(),
                    recovery: self.children.recovery.address(),
                };
                let (actor, _) =
                    Actor::spawn_linked(None, Scheduler, arguments, supervisor).await?;
                actor.get_id()
            }
        };
        self.children.cells.push((id, child));
        Ok(())
    }

    /// What a new Claimer must know: its predecessor's memory is gone with it.
    fn held(&self) -> Held {
        let running = self.running.values().map(|running| &running.attempt.task);
        let tasks: Vec<_> = running.chain(self.unsettled.values().map(|u| u.task())).collect();
        Held {
            tokens: tasks.iter().map(|task| task.lease.token).collect(),
            recovering: tasks
                .iter()
                .filter(|task| task.part == Part::Recovery)
                .map(|task| task.lease.token)
                .collect(),
            alone: tasks.iter().any(|task| task.alone),
            draining: self.draining,
            trouble: self.trouble.clone(),
        }
    }

    /// A permanent actor ended, which it never should.
    pub(super) async fn restart_child(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        cell: &ActorCell,
        ending: &Ending,
    ) -> Result<(), ActorProcessingErr> {
        let position = self.children.cells.iter().position(|(id, _)| *id == cell.get_id());
        let Some(position) = position else { return Ok(()) };
        let (_, child) = self.children.cells.swap_remove(position);
        if !self.children.may_restart(Instant::now()) {
            let reason = format!(
                "{child:?} and its siblings failed more than {RESTARTS_MAX} times in {} s",
                RESTART_PERIOD.as_secs()
            );
            tracing::error!(%reason, "giving up");
            self.status.send_modify(|status| status.gave_up = Some(reason));
            myself.stop(None);
            return Ok(());
        }
        let crashed = matches!(ending, Ending::Crashed);
        tracing::error!(?child, crashed, "a permanent actor ended; it is restarted");
        metrics().actor_restarted(child.as_str());
        self.start_child(myself, child).await?;
        if child == Child::Claimer {
            myself.cast(SupervisorMessage::ClaimerTookOver)?;
        }
        Ok(())
    }
}
