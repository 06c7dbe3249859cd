//! A recovery that somebody waits for: done by a service that runs elsewhere, or by a tree of its own
//! that recovers what was asked for and nothing else.

use std::time::Duration;

use uuid::Uuid;

use super::embedding::embedding_of_worker;
use super::serve::tree_settings;
use super::{Database, Embedding, StopSignal};
use crate::actors::{Status, Tree};
use crate::config::{EmbedderArgs, WorkArgs};
use crate::domain::failure::{Failure, Fault};
use crate::postgres::{ActionState, ModelInUse, PgStore};

/// Between two looks at how far it is.
const LOOK_PERIOD: Duration = Duration::from_millis(300);

/// Waits until an action is done with; `None` where somebody told it to stop.
///
/// # Errors
/// The database refuses.
pub async fn wait_for_action(
    store: &PgStore,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> anyhow::Result<Option<ActionState>> {
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        state = until_done(store, action_id, show) => Ok(Some(state?)),
        () = stop.told() => Ok(None),
    }
}

/// Runs a tree until an action is done with; `None` where somebody told it to stop.
///
/// # Errors
/// The tree cannot start or go on, or the database refuses.
pub async fn recover(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> anyhow::Result<Option<ActionState>> {
    let store = &database.store;
    let (Embedding { embedder, .. }, ModelInUse { model, .. }) =
        embedding_of_worker(database, embedder, false).await?;
    let mut settings = tree_settings(store, embedder, model, work).await?;
    // What is merely queued is a service's to embed.
    settings.recordings_max = 0;
    let tree = Tree::start(settings).await?;
    let mut status = tree.status();
    let ended = tokio::select! {
        waited = wait_for_action(store, action_id, show) => waited,
        reason = cannot_go_on(&mut status) => Err(anyhow::anyhow!("cannot go on: {reason}")),
    };
    tree.stop(work.grace()).await;
    ended
}

async fn cannot_go_on(status: &mut tokio::sync::watch::Receiver<Status>) -> String {
    let gave_up = |status: &Status| {
        let circuit = status.circuit.as_ref().filter(|open| open.needs_a_person());
        status.gave_up.clone().or(circuit.map(|open| open.failure.to_string()))
    };
    match status.wait_for(|status| gave_up(status).is_some()).await {
        Ok(status) => gave_up(&status).unwrap_or_default(),
        // The tree is gone.
        Err(_) => "the supervisor ended".into(),
    }
}

async fn until_done(
    store: &PgStore,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> Result<ActionState, Failure> {
    loop {
        match store.outcome_of(action_id).await {
            Ok(state) => {
                show(&state);
                if state.outcome.is_some() {
                    return Ok(state);
                }
            }
            Err(failure) if failure.fault() == Fault::Database => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
