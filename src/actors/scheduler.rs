//! Cron ticks and database notifications: tells the others when to look.

use std::sync::Arc;
use std::time::Duration;

use croner::Cron;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::address::Address;
use super::claimer::ClaimerMessage;
use super::patience::Outages;
use super::recovery::RecoveryMessage;
use crate::domain::failure::Failure;
use crate::ports::{Model, Store};

/// Recordings that one reconciling statement enqueues.
pub const RECONCILE_ROWS_MAX: u32 = 500;
/// Such statements in one tick: the next tick goes on.
const RECONCILE_PAGES_MAX: u32 = 20;
/// After notifications broke off, until they are asked for again. Ticks poll meanwhile.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// The longest time to a tick that could not be computed.
const TICK_AGAIN: Duration = Duration::from_secs(10);
/// Begins the name of this schedule among those that replicas share. The model ends it: while two are
/// worked for, each has ticks of its own.
const SCHEDULE: &str = "reconcile";

/// Messages of the Scheduler.
pub(super) enum SchedulerMessage {
    /// Find out when the next tick falls.
    Arm,
    /// The schedule fired.
    Tick(chrono::DateTime<chrono::Utc>),
    /// A task became ready.
    Notified,
}

/// What the Scheduler is given.
#[derive(Clone)]
pub(super) struct SchedulerArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    pub(super) model: Model,
    pub(super) schedule: Cron,
    pub(super) claimer: Address<ClaimerMessage>,
    pub(super) recovery: Address<RecoveryMessage>,
}

/// The actor.
pub(super) struct Scheduler;

pub(super) struct SchedulerState {
    arguments: SchedulerArguments,
    /// Ends with this state, however the actor ends.
    _listener: JoinSet<()>,
}

impl Actor for Scheduler {
    type Msg = SchedulerMessage;
    type State = SchedulerState;
    type Arguments = SchedulerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut listener = JoinSet::new();
        listener.spawn(listen(arguments.store.clone(), myself));
        Ok(SchedulerState { arguments, _listener: listener })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(myself.cast(SchedulerMessage::Arm)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMessage::Arm => state.arm(&myself).await,
            SchedulerMessage::Tick(at) => {
                state.tick(at).await;
                myself.cast(SchedulerMessage::Arm)?;
            }
            SchedulerMessage::Notified => state.arguments.claimer.cast(ClaimerMessage::Poll),
        }
        Ok(())
    }
}

impl SchedulerState {
    /// Ticks are computed from the database's time, so that replicas agree on them.
    async fn arm(&self, myself: &ActorRef<SchedulerMessage>) {
        let next = match self.arguments.outages.answered(self.arguments.store.now()).await {
            Ok(now) => {
                self.arguments.schedule.find_next_occurrence(&now, false).ok().map(|at| (now, at))
            }
            Err(failure) => {
                self.arguments.outages.note(&failure);
                None
            }
        };
        match next {
            Some((now, at)) => {
                let after = (at - now).to_std().unwrap_or_default();
                myself.send_after(after, move || SchedulerMessage::Tick(at));
            }
            None => {
                myself.send_after(TICK_AGAIN, || SchedulerMessage::Arm);
            }
        }
    }

    /// Every replica polls and sweeps; one reconciles.
    async fn tick(&self, at: chrono::DateTime<chrono::Utc>) {
        self.arguments.claimer.cast(ClaimerMessage::Poll);
        self.arguments.recovery.cast(RecoveryMessage::Sweep);
        self.arguments.recovery.cast(RecoveryMessage::Clean);
        match self.reconcile(at).await {
            Ok(0) => {}
            Ok(enqueued) => tracing::info!(enqueued, "enqueued recordings that nobody asked for"),
            Err(failure) => {
                self.arguments.outages.note(&failure);
                tracing::warn!(error = %failure, "reconciling will go on at the next tick");
            }
        }
    }

    async fn reconcile(&self, at: chrono::DateTime<chrono::Utc>) -> Result<u64, Failure> {
        let SchedulerArguments { store, outages, model, .. } = &self.arguments;
        let mut enqueued = 0;
        let schedule = format!("{SCHEDULE} {}", model.name);
        if outages.answered(store.take_tick(&schedule, at)).await? {
            for _ in 0..RECONCILE_PAGES_MAX {
                let reconciling = store.reconcile(model, RECONCILE_ROWS_MAX);
                let page = outages.answered(reconciling).await?;
                enqueued += page;
                if page < u64::from(RECONCILE_ROWS_MAX) {
                    break;
                }
            }
        }
        Ok(enqueued)
    }
}

/// Turns notifications into messages, one for however many came at once, and looks once after
/// each reconnection, since something may have been missed.
async fn listen(store: Arc<dyn Store>, scheduler: ActorRef<SchedulerMessage>) {
    loop {
        let (ready, mut notified) = mpsc::channel(1);
        let forward = async {
            while notified.recv().await.is_some() {
                if scheduler.cast(SchedulerMessage::Notified).is_err() {
                    return;
                }
            }
        };
        // In a task of its own, so that a panic in there is met like a broken connection, and in a
        // set, so that it ends with this.
        let mut listening = JoinSet::new();
        let store = store.clone();
        listening.spawn(async move { store.listen(ready).await });
        let (result, ()) = tokio::join!(listening.join_next(), forward);
        if let Err(failure) = result.unwrap_or(Ok(Ok(()))).unwrap_or(Err(Failure::Panicked)) {
            tracing::warn!(error = %failure, "no notifications from the database; polling by the schedule");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
        if scheduler.cast(SchedulerMessage::Notified).is_err() {
            return;
        }
    }
}
