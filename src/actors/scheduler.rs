//! Cron ticks and database notifications: tells the others when to look.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::address::Address;
use super::claimer::ClaimerMessage;
use super::patience::Outages;
use super::recovery::RecoveryMessage;
use super::ticks::{TICK_AGAIN, next_tick, note_cron};
use crate::domain::failure::Failure;
use crate::ports::{Model, RunResult, Store};

/// Recordings that one reconciling statement enqueues.
pub const RECONCILE_ROWS_MAX: u32 = 500;
/// Such statements in one tick: the next tick goes on.
const RECONCILE_PAGES_MAX: u32 = 20;
/// Completed tasks that one statement forgets: each takes its attempts along.
const FORGET_ROWS_MAX: u32 = 1_000;
/// Such statements in one tick: the next tick goes on.
const FORGET_PAGES_MAX: u32 = 20;
/// After notifications broke off, until they are asked for again, and between polls meanwhile: how late
/// a task is found through a pooler that passes none.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Begins the name of this schedule among those that replicas share. The model ends it: while two are
/// worked for, each has ticks of its own.
const SCHEDULE: &str = "reconcile";
/// Name of the ticks at which one replica writes history and forgets what is old, for all models together.
const HISTORY: &str = "history";

/// Messages of the Scheduler.
pub(super) enum SchedulerMessage {
    /// Find out when the next tick falls.
    Arm,
    /// Tell others when ticks fall.
    NoteCron,
    /// The schedule fired.
    Tick(DateTime<Utc>),
    /// A task became ready.
    Notified,
}

/// What the Scheduler is given.
#[derive(Clone)]
pub(super) struct SchedulerArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    pub(super) model: Model,
    pub(super) worker_id: Uuid,
    pub(super) schedule: Cron,
    pub(super) keep_completed: Option<Duration>,
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
        myself.cast(SchedulerMessage::Arm)?;
        Ok(myself.cast(SchedulerMessage::NoteCron)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMessage::Arm => state.arm(&myself).await,
            SchedulerMessage::NoteCron => state.note_cron().await,
            SchedulerMessage::Tick(at) => {
                state.tick(at).await;
                myself.cast(SchedulerMessage::Arm)?;
            }
            SchedulerMessage::Notified => state.notified().await,
        }
        Ok(())
    }
}

impl SchedulerState {
    fn schedule_name(&self) -> String {
        format!("{SCHEDULE} {}", self.arguments.model.name)
    }

    async fn note_cron(&self) {
        let SchedulerArguments { store, outages, schedule, .. } = &self.arguments;
        note_cron(&**store, outages, &self.schedule_name(), schedule).await;
    }

    async fn arm(&self, myself: &ActorRef<SchedulerMessage>) {
        let SchedulerArguments { store, outages, schedule, .. } = &self.arguments;
        match next_tick(&**store, outages, schedule).await {
            Some((after, at)) => {
                myself.send_after(after, move || SchedulerMessage::Tick(at));
            }
            None => {
                myself.send_after(TICK_AGAIN, || SchedulerMessage::Arm);
            }
        }
    }

    /// Something became ready, or an administrator asked for something.
    async fn notified(&self) {
        let SchedulerArguments { store, outages, worker_id, .. } = &self.arguments;
        self.arguments.claimer.cast(ClaimerMessage::Poll);
        self.arguments.recovery.cast(RecoveryMessage::Look);
        // One notification may stand for several runs.
        loop {
            let asked_for = match outages.answered(store.begin_main_run(*worker_id)).await {
                Ok(Some(run_id)) => self.run(run_id).await,
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = asked_for {
                outages.note(&failure);
                tracing::warn!(error = %failure, "a run that was asked for is not carried out");
                return;
            }
        }
    }

    async fn run(&self, run_id: Uuid) -> Result<(), Failure> {
        let SchedulerArguments { store, outages, .. } = &self.arguments;
        let enqueued = self.enqueue_missing().await;
        let result = match &enqueued {
            Ok(enqueued) => RunResult { taken: *enqueued as u32, ..RunResult::default() },
            Err(failure) => {
                RunResult { stopped_because: Some(failure.to_string()), ..RunResult::default() }
            }
        };
        // Where this fails too, the next look ends the run.
        outages.answered(store.end_run(run_id, &result)).await?;
        tracing::info!(enqueued = enqueued?, "a run was asked for");
        Ok(())
    }

    /// Every replica polls and sweeps; one reconciles.
    async fn tick(&self, at: DateTime<Utc>) {
        self.arguments.recovery.cast(RecoveryMessage::Sweep);
        self.arguments.recovery.cast(RecoveryMessage::Clean);
        self.notified().await;
        match self.reconcile(at).await {
            Ok(0) => {}
            Ok(enqueued) => tracing::info!(enqueued, "enqueued recordings that nobody asked for"),
            Err(failure) => {
                self.arguments.outages.note(&failure);
                tracing::warn!(error = %failure, "reconciling will go on at the next tick");
            }
        }
        if let Err(failure) = self.keep_history(at).await {
            self.arguments.outages.note(&failure);
            tracing::warn!(error = %failure, "history will be kept at the next tick");
        }
    }

    /// One replica writes the history that is over, and then forgets the completed tasks that it holds.
    async fn keep_history(&self, at: DateTime<Utc>) -> Result<(), Failure> {
        let SchedulerArguments { store, outages, .. } = &self.arguments;
        if outages.answered(store.take_tick(HISTORY, at)).await? {
            outages.answered(store.roll_up_history()).await?;
            self.forget_completed().await?;
        }
        Ok(())
    }

    async fn forget_completed(&self) -> Result<(), Failure> {
        let SchedulerArguments { store, outages, keep_completed, .. } = &self.arguments;
        let Some(keep) = *keep_completed else { return Ok(()) };
        let mut forgotten = 0;
        for _ in 0..FORGET_PAGES_MAX {
            let page = outages.answered(store.forget_completed(keep, FORGET_ROWS_MAX)).await?;
            forgotten += page;
            if page < u64::from(FORGET_ROWS_MAX) {
                break;
            }
        }
        if forgotten > 0 {
            tracing::info!(forgotten, "completed tasks are old enough to be forgotten");
        }
        Ok(())
    }

    async fn reconcile(&self, at: DateTime<Utc>) -> Result<u64, Failure> {
        let SchedulerArguments { store, outages, worker_id, .. } = &self.arguments;
        if !outages.answered(store.take_tick(&self.schedule_name(), at)).await? {
            return Ok(0);
        }
        let enqueued = self.enqueue_missing().await?;
        if enqueued > 0 {
            outages.answered(store.note_main_tick(*worker_id, enqueued)).await?;
        }
        Ok(enqueued)
    }

    async fn enqueue_missing(&self) -> Result<u64, Failure> {
        let SchedulerArguments { store, outages, model, .. } = &self.arguments;
        let mut enqueued = 0;
        for _ in 0..RECONCILE_PAGES_MAX {
            let page = outages.answered(store.reconcile(model, RECONCILE_ROWS_MAX)).await?;
            enqueued += page;
            if page < u64::from(RECONCILE_ROWS_MAX) {
                break;
            }
        }
        Ok(enqueued)
    }
}

/// Turns notifications into messages, one for however many came at once. Where none pass it looks
/// every [`LISTEN_AGAIN`] instead, and after a break once, since something may have been missed.
async fn listen(store: Arc<dyn Store>, scheduler: ActorRef<SchedulerMessage>) {
    let mut told = None;
    loop {
        let (ready, mut notified) = mpsc::channel(1);
        let forward = async {
            let mut listened = false;
            while notified.recv().await.is_some() {
                listened = true;
                if scheduler.cast(SchedulerMessage::Notified).is_err() {
                    break;
                }
            }
            listened
        };
        // In a task of its own, so that a panic in there is met like a broken connection, and in a
        // set, so that it ends with this.
        let mut listening = JoinSet::new();
        let store = store.clone();
        listening.spawn(async move { store.listen(ready).await });
        let (result, listened) = tokio::join!(listening.join_next(), forward);
        if listened {
            told = None;
        }
        if let Err(failure) = result.unwrap_or(Ok(Ok(()))).unwrap_or(Err(Failure::Panicked))
            && told.as_ref() != Some(&failure)
        {
            tracing::warn!(
                error = %failure,
                "no notifications from the database; polling every {} s", LISTEN_AGAIN.as_secs()
            );
            told = Some(failure);
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
        if scheduler.cast(SchedulerMessage::Notified).is_err() {
            return;
        }
    }
}
