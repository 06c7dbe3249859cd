//! A run of the service, from the first look at the provider to the last lease given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::embedding::embedding_of_worker;
use super::sampling::Sampling;
use super::waiting::wait_out;
use super::{Database, Embedding, ServiceVitals, StopSignal};
use crate::actors::{
    DELETE_ROWS_MAX, RECONCILE_ROWS_MAX, RecoverySettings, Status, Tree, TreeSettings,
};
use crate::config::{EmbedderArgs, WorkArgs};
use crate::domain::failure::Failure;
use crate::domain::retry::RecoveryPolicy;
use crate::ports::{Model, Store, TaskCounts};
use crate::postgres::{ModelInUse, ModelState, PgStore};
use crate::telemetry;

/// Between two looks at whether another model took the place of the service's own.
const MODEL_POLL: Duration = Duration::from_secs(2);
/// Between two looks at whether a backlog load is under way.
const BACKLOG_POLL: Duration = Duration::from_secs(5);
/// Between two looks at whether everything is done.
const IDLE_POLL: Duration = Duration::from_millis(500);

/// Time for the last look at the tasks.
const COUNT_TIME: Duration = Duration::from_secs(2);

/// How a run of the service ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// Every task is completed or dead.
    Idle(TaskCounts),
    /// Somebody told it to stop. The tasks are not counted where the database is away.
    Stopped(Option<TaskCounts>),
    /// It cannot go on. The tasks are not counted where the database is away.
    CannotGoOn(String, Option<TaskCounts>),
}

/// Runs the service until it is told to stop, or until everything is done. Where another model takes
/// the place of its own, it goes on with that.
///
/// # Errors
/// It cannot start: the schema, the API or the model is not as it must be, or, with `exit_when_idle`, the
/// database is away.
pub async fn serve(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    exit_when_idle: bool,
    vitals: &ServiceVitals,
    stop: &mut StopSignal,
) -> anyhow::Result<Ended> {
    let store = &database.store;
    let _sampling = Sampling::start(store.clone());
    let patient = !exit_when_idle && !database.is_own();
    loop {
        let starting = wait_out(
            patient,
            |reason| vitals.wait(reason),
            async || start(database, embedder, work, exit_when_idle).await,
        );
        let Started { tree, model, next, postponed } = tokio::select! {
            started = starting => started?,
            () = stop.told() => return Ok(Ended::Stopped(counted(store, None).await)),
        };
        vitals.serve(tree.pulse(), store.clone());
        let end = tokio::select! {
            end = until_it_ends(store, &model, tree.status(), exit_when_idle) => Some(end),
            () = stop.told() => None,
            never = mend_index(store, &model, next, postponed) => match never {},
        };
        if matches!(end, Some(End::Replaced)) {
            tracing::warn!(model = model.name, "another model took its place; starting again");
            vitals.wait("another model took its place");
            // The swap took the leases away: there is nothing to finish.
            tree.stop(Duration::ZERO).await;
            continue;
        }
        // Before anything else ends: nobody is to count on this process any more.
        vitals.stop();
        tree.stop(work.grace()).await;
        return Ok(match end {
            Some(End::Idle) => {
                let page = u64::from(DELETE_ROWS_MAX);
                while store.delete_dead_chunks(DELETE_ROWS_MAX).await? == page {}
                Ended::Idle(store.task_counts_of(&model.name).await?)
            }
            Some(End::CannotGoOn(reason)) => {
                Ended::CannotGoOn(reason, counted(store, Some(&model)).await)
            }
            Some(End::Replaced) | None => Ended::Stopped(counted(store, Some(&model)).await),
        });
    }
}

/// The tasks at the end, of a model or of all. Nobody who goes down waits for a database that is away.
pub(super) async fn counted(store: &PgStore, model: Option<&Model>) -> Option<TaskCounts> {
    let counting = async {
        match model {
            Some(model) => store.task_counts_of(&model.name).await,
            None => store.task_counts().await,
        }
    };
    tokio::time::timeout(COUNT_TIME, counting).await.ok()?.ok()
}

/// A service that runs.
pub(super) struct Started {
    pub(super) tree: Tree,
    /// What it works for.
    pub(super) model: Model,
    /// It is the next model, which search does not see yet.
    pub(super) next: bool,
    /// The index of the model is left to a backlog load.
    pub(super) postponed: bool,
}

/// Everything up to the running tree.
pub(super) async fn start(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    exit_when_idle: bool,
) -> anyhow::Result<Started> {
    let store = &database.store;
    // A run that is to end does not wait for an API that is down; a service does.
    let (embedding, ModelInUse { model, next, indexed, postponed }) =
        embedding_of_worker(database, embedder, !exit_when_idle).await?;
    if !indexed {
        tracing::warn!(
            dimensions = model.dimensions,
            "too many dimensions for an index: search will scan"
        );
    }
    if postponed {
        tracing::info!("a backlog load is under way: it builds the search index at its end");
    }
    if next {
        tracing::info!(
            "it is the next model: search stays on the current one until `reembed` ends"
        );
    }
    while store.reconcile(&model, RECONCILE_ROWS_MAX).await? >= u64::from(RECONCILE_ROWS_MAX) {}
    let settings = tree_settings(store, &embedding, model.clone(), work).await?;
    tracing::info!(
        worker = %settings.worker_id,
        model = model.name,
        dimensions = model.dimensions,
        "serving"
    );
    Ok(Started { tree: Tree::start(settings).await?, model, next, postponed })
}

/// Watches backlog loads of other processes: one that was broken off has left no index, or half of one.
async fn mend_index(
    store: &PgStore,
    model: &Model,
    next: bool,
    mut seen: bool,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(BACKLOG_POLL).await;
        // What the database does not answer now, it will. The next model's index is `reembed`'s.
        let Ok(under_way) = store.backlog_load_is_under_way().await else { continue };
        if seen && !under_way && !next {
            match store.mend_index(model).await {
                // Another load began meanwhile.
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(%error, "the index that a backlog load left out cannot be built");
                }
            }
        }
        seen = under_way;
    }
}

/// What a tree works with, by the settings of the user and of the database.
pub(super) async fn tree_settings(
    store: &PgStore,
    embedding: &Embedding,
    model: Model,
    work: &WorkArgs,
) -> Result<TreeSettings, Failure> {
    Ok(TreeSettings {
        store: Arc::new(store.clone()),
        embedder: embedding.embedder.clone(),
        model,
        worker_id: telemetry::instance_id(),
        recordings_max: work.claim_batch,
        lease: work.lease(),
        retry: work.retry(),
        insert_rows: work.insert_batch.into(),
        statement_timeout: store.statement_timeout().await?,
        inserts_in_flight: inserts_in_flight(store),
        requests_in_flight: requests_of_one_recording(
            embedding.requests_in_flight,
            work.claim_batch,
        ),
        schedule: work.schedule.clone(),
        keep_completed: work.keep_completed,
        stall: work.stall(),
        recovery: RecoverySettings {
            schedule: work.recovery_schedule.clone(),
            recordings_max: work.recovery_concurrency,
            policy: RecoveryPolicy::default(),
            small_batches_above: work.small_batches_above,
        },
    })
}

/// A quarter of the connections: quick and patient inserts may have as many in flight each, and half of
/// the connections is for all else, the renewal of leases first.
pub(super) fn inserts_in_flight(store: &PgStore) -> usize {
    (store.connections().max as usize / 4).max(1)
}

/// Requests that one recording has in flight: two at least, so that one is bought while another is
/// stored, and no more than it takes for all recordings together to reach the embedder's bound. What
/// is bought waits in memory for its insert.
fn requests_of_one_recording(requests_in_flight: usize, recordings_max: u32) -> usize {
    requests_in_flight.div_ceil(recordings_max.max(1) as usize).max(2)
}

pub(super) enum End {
    Idle,
    CannotGoOn(String),
    /// Another model is the current one now.
    Replaced,
}

pub(super) async fn until_it_ends(
    store: &PgStore,
    model: &Model,
    mut status: tokio::sync::watch::Receiver<Status>,
    exit_when_idle: bool,
) -> End {
    let mut looked_at = Instant::now();
    loop {
        if looked_at.elapsed() >= MODEL_POLL {
            if let Some(end) = end_of_model(store, model).await {
                return end;
            }
            looked_at = Instant::now();
        }
        let now = status.borrow_and_update().clone();
        if let Some(reason) = now.gave_up {
            return End::CannotGoOn(reason);
        }
        if exit_when_idle && now.is_idle() {
            if let Some(open) = now.circuit.filter(|open| open.needs_a_person()) {
                return End::CannotGoOn(open.failure.to_string());
            }
            match store.task_counts_of(&model.name).await {
                // A model that was replaced has no tasks either.
                Ok(counts) if counts.open() == 0 => {
                    // What is not answered now is asked again.
                    if store.recovers(&model.name).await == Ok(false) {
                        return end_of_model(store, model).await.unwrap_or(End::Idle);
                    }
                }
                Ok(_) | Err(Failure::DatabaseUnavailable { .. }) => {}
                Err(failure) => return End::CannotGoOn(failure.to_string()),
            }
        }
        // A change of status ends the wait early; the database is looked at either way.
        let _ = tokio::time::timeout(IDLE_POLL, status.changed()).await;
    }
}

/// Whether the model is still one to work for. What the database does not answer now, it will.
async fn end_of_model(store: &PgStore, model: &Model) -> Option<End> {
    let models = store.models().await.ok()?;
    match models.into_iter().find(|stored| stored.model == *model)?.state {
        ModelState::Current | ModelState::Next => None,
        ModelState::Retired { replaced: true } => Some(End::Replaced),
        ModelState::Retired { replaced: false } => {
            Some(End::CannotGoOn(format!("the re-embedding with {} was cancelled", model.name)))
        }
    }
}
