//! A backlog load: a run of the service until everything queued is stored, without the vector index,
//! which is built at the end.

use std::time::{Duration, Instant};

use super::serve::{End, Started, counted, start, until_it_ends};
use super::{Database, Ended, StopSignal};
use crate::actors::{DELETE_ROWS_MAX, Tree};
use crate::config::{EmbedderArgs, WorkArgs};
use crate::domain::failure::Failure;
use crate::domain::index_build::IndexBuild;
use crate::ports::{Model, Store, TaskCounts};
use crate::postgres::{BacklogLoad, IndexProgress, PgStore};

/// The least time between two looks at how far it is.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// A look takes at most one part in so many of the time: over a large queue it is slow.
const LOOK_SHARE: u32 = 10;

/// What a backlog load is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadStep {
    /// It embeds and stores, and is so far.
    Loading(TaskCounts),
    /// Everything is stored; the index is built.
    Indexing,
    /// The build is so far.
    Building(IndexProgress),
}

/// How a backlog load ended.
#[derive(Debug, Clone, PartialEq)]
pub struct BacklogLoaded {
    /// As a run of the service that ends when it is idle.
    pub ended: Ended,
    /// The index is there and valid.
    pub indexed: bool,
}

/// Loads what is queued without the vector index, then builds it. Where it cannot go on loading, it
/// builds the index over what there is; where it is told to stop, whoever comes next builds it.
///
/// # Errors
/// It cannot start, another load is under way, or the database refuses.
pub async fn load_backlog(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    build: IndexBuild,
    show: &mut (dyn FnMut(LoadStep) + Send),
) -> anyhow::Result<BacklogLoaded> {
    let store = &database.store;
    let mut stop = StopSignal::listen()?;
    // Before the model is looked for: nobody builds an index from here on.
    let mut load = store.begin_backlog_load().await?;
    let Started { tree, model, next, .. } = tokio::select! {
        started = start(database, embedder, work, true) => started?,
        () = stop.told() => {
            let ended = Ended::Stopped(counted(store, None).await);
            return Ok(BacklogLoaded { ended, indexed: false });
        }
    };
    // The next model's index is built where its re-embedding ends; search keeps the current one's.
    let end = match next {
        true => Ok(Some(End::CannotGoOn(NEXT_MODEL.into()))),
        false => tokio::select! {
            loaded = load_all(store, &mut load, &tree, &model, show) => loaded.map(Some),
            () = stop.told() => Ok(None),
        },
    };
    tree.stop(work.grace()).await;
    let end = end?;
    // They would be in the index only to be taken out of it again.
    while store.delete_dead_chunks(DELETE_ROWS_MAX).await? == u64::from(DELETE_ROWS_MAX) {}
    let counts = counted(store, Some(&model)).await;
    let ended = match end {
        Some(End::Idle) => Ended::Idle(store.task_counts_of(&model.name).await?),
        Some(End::CannotGoOn(reason)) => Ended::CannotGoOn(reason, counts),
        Some(End::Replaced) => Ended::CannotGoOn(REPLACED.into(), counts),
        None => Ended::Stopped(counts),
    };
    if matches!(ended, Ended::Stopped(_)) || next {
        return Ok(BacklogLoaded { ended, indexed: false });
    }
    show(LoadStep::Indexing);
    let mut show_build = |progress| show(LoadStep::Building(progress));
    let built = tokio::select! {
        built = load.build_index(&model, build, &mut show_build) => Some(built?),
        () = stop.told() => None,
    };
    let Some(indexed) = built else {
        load.cancel().await?;
        return Ok(BacklogLoaded { ended: Ended::Stopped(counts), indexed: false });
    };
    load.end().await?;
    Ok(BacklogLoaded { ended, indexed })
}

/// Why it does not load for a model that is not the current one yet.
const NEXT_MODEL: &str = "it is the next model, whose index `reembed` builds at its end anyway";
const REPLACED: &str = "another model took its place";

/// Drops the index while the first recordings are on their way, then waits for the last.
async fn load_all(
    store: &PgStore,
    load: &mut BacklogLoad,
    tree: &Tree,
    model: &Model,
    show: &mut (dyn FnMut(LoadStep) + Send),
) -> Result<End, Failure> {
    load.drop_index(model).await?;
    tokio::select! {
        end = until_it_ends(store, model, tree.status(), true) => Ok(end),
        never = show_counts(store, model, show) => match never {},
    }
}

async fn show_counts(
    store: &PgStore,
    model: &Model,
    show: &mut (dyn FnMut(LoadStep) + Send),
) -> std::convert::Infallible {
    loop {
        let looked = Instant::now();
        // What the database does not answer now, it will.
        if let Ok(counts) = store.task_counts_of(&model.name).await {
            show(LoadStep::Loading(counts));
        }
        tokio::time::sleep(LOOK_PERIOD.max(looked.elapsed() * LOOK_SHARE)).await;
    }
}
