//! A run of the service, from the first look at the provider to the last lease given back.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::embedding::with_way_out;
use super::{Database, Embedding};
use crate::actors::{DELETE_ROWS_MAX, RECONCILE_ROWS_MAX, Status, Tree, TreeSettings};
use crate::config::{EmbedderArgs, WorkArgs};
use crate::domain::failure::Failure;
use crate::ports::{Store, TaskCounts};
use crate::postgres::PgStore;

/// Between two looks at whether everything is done.
const IDLE_POLL: Duration = Duration::from_millis(500);

/// How a run of the service ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// Every task is completed or dead.
    Idle(TaskCounts),
    /// Somebody told it to stop.
    Stopped(TaskCounts),
    /// It cannot go on.
    CannotGoOn(String, TaskCounts),
}

/// Runs the service until it is told to stop, or until everything is done.
///
/// # Errors
/// It cannot start: the database, the schema, the API or the model is not as it must be.
pub async fn serve(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    exit_when_idle: bool,
) -> anyhow::Result<Ended> {
    let store = &database.store;
    let mut stop = std::pin::pin!(told_to_stop());
    let tree = tokio::select! {
        tree = start(database, embedder, work, exit_when_idle) => tree?,
        () = &mut stop => return Ok(Ended::Stopped(store.task_counts().await?)),
    };
    let end = tokio::select! {
        end = until_it_ends(store, tree.status(), exit_when_idle) => Some(end),
        () = &mut stop => None,
    };
    tree.stop(work.grace()).await;
    while store.delete_dead_chunks(DELETE_ROWS_MAX).await? == u64::from(DELETE_ROWS_MAX) {}
    let counts = store.task_counts().await?;
    Ok(match end {
        Some(End::Idle) => Ended::Idle(counts),
        Some(End::CannotGoOn(reason)) => Ended::CannotGoOn(reason, counts),
        None => Ended::Stopped(counts),
    })
}

/// Everything up to the running tree. Nothing is written before the embedder has answered and its
/// model fits what is stored.
async fn start(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    exit_when_idle: bool,
) -> anyhow::Result<Tree> {
    let store = &database.store;
    // A run that is to end does not wait for an API that is down; a service does.
    let stored = if exit_when_idle { None } else { store.stored_model().await? };
    let known_dimensions = stored.map(|model| model.dimensions);
    let Embedding { embedder, model } =
        Embedding::choose(embedder, database.is_own(), known_dimensions).await?;
    if !store.use_model(&model).await.map_err(with_way_out)? {
        tracing::warn!(
            dimensions = model.dimensions,
            "too many dimensions for an index: search will scan"
        );
    }
    while store.reconcile(&model, RECONCILE_ROWS_MAX).await? >= u64::from(RECONCILE_ROWS_MAX) {}
    let settings = TreeSettings {
        store: Arc::new(store.clone()),
        embedder,
        worker_id: Uuid::new_v4(),
        recordings_max: work.claim_batch,
        lease: work.lease(),
        retry: work.retry(),
        insert_rows: work.insert_batch.into(),
        statement_timeout: store.statement_timeout().await?,
        requests_in_flight: REQUESTS_OF_ONE_RECORDING,
        schedule: work.schedule.clone(),
        stall: work.stall(),
        model,
    };
    tracing::info!(
        worker = %settings.worker_id,
        model = settings.model.name,
        dimensions = settings.model.dimensions,
        "serving"
    );
    Ok(Tree::start(settings).await?)
}

/// Requests that one recording has in flight: one is bought while another is stored. All
/// recordings together share the embedder's limit.
const REQUESTS_OF_ONE_RECORDING: usize = 2;

pub(super) enum End {
    Idle,
    CannotGoOn(String),
}

pub(super) async fn until_it_ends(
    store: &PgStore,
    mut status: tokio::sync::watch::Receiver<Status>,
    exit_when_idle: bool,
) -> End {
    loop {
        let now = status.borrow_and_update().clone();
        if let Some(reason) = now.gave_up {
            return End::CannotGoOn(reason);
        }
        if exit_when_idle && now.is_idle() {
            if let Some(open) = now.circuit.filter(|open| open.needs_a_person()) {
                return End::CannotGoOn(open.failure.to_string());
            }
            match store.task_counts().await {
                Ok(counts) if counts.open() == 0 => return End::Idle,
                Ok(_) | Err(Failure::DatabaseUnavailable { .. }) => {}
                Err(failure) => return End::CannotGoOn(failure.to_string()),
            }
        }
        // A change of status ends the wait early; the database is looked at either way.
        let _ = tokio::time::timeout(IDLE_POLL, status.changed()).await;
    }
}

/// SIGTERM or Ctrl-C. A second one ends the process at once.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(SECOND_SIGNAL_EXIT_CODE);
    });
}

/// 128 + SIGINT, as shells count it.
const SECOND_SIGNAL_EXIT_CODE: i32 = 130;
