//! A recovery that somebody waits for: done by a service that runs elsewhere, or by a tree of its own
//! that recovers what was asked for, by whomever, and what falls due meanwhile, and embeds nothing that is
//! merely queued.

use std::time::{Duration, Instant};

use anyhow::Context;
use uuid::Uuid;

use super::embedding::embedding_of_worker;
use super::serve::tree_settings;
use super::{Database, Embedding, StopSignal};
use crate::actors::{Status, Tree};
use crate::config::{EmbedderArgs, WorkArgs};
use crate::domain::failure::{Failure, Fault};
use crate::ports::inspector::{ActionState, Inspector};
use crate::postgres::{ModelInUse, PgStore};

/// Between two looks at how far it is.
const LOOK_PERIOD: Duration = Duration::from_millis(300);
/// Without a service, until a command that waited for it does the work: longer than a restart takes.
const SERVICE_AWAY: Duration = Duration::from_secs(5);

/// Waits until an action is done with; `None` where somebody told it to stop.
///
/// # Errors
/// The action is not known, or whoever is asked refuses to tell.
pub async fn wait_for_action(
    inspector: &dyn Inspector,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> anyhow::Result<Option<ActionState>> {
    let mut stop = StopSignal::listen()?;
    tokio::select! {
        state = until_done(inspector, action_id, show) => Ok(Some(state?)),
        () = stop.told() => Ok(None),
    }
}

/// Waits for the service until an action is done with; where no service is alive any more, does as
/// [`recover`] does.
///
/// # Errors
/// As those of [`wait_for_action`] and [`recover`].
pub async fn wait_or_recover(
    database: &Database,
    embedder: &EmbedderArgs,
    work: &WorkArgs,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> anyhow::Result<Option<ActionState>> {
    tokio::select! {
        waited = wait_for_action(&database.store, action_id, &mut *show) => return waited,
        () = left_alone(&database.store) => {}
    }
    let recovered = recover(database, embedder, work, action_id, show).await;
    recovered.context("no service is alive any more")
}

/// Ends where no service has been alive for a while. While the database is away, nobody knows.
async fn left_alone(store: &PgStore) {
    let mut since = None;
    loop {
        match store.is_served().await {
            Ok(false) if since.get_or_insert_with(Instant::now).elapsed() >= SERVICE_AWAY => return,
            Ok(false) => {}
            Ok(true) | Err(_) => since = None,
        }
        tokio::time::sleep(LOOK_PERIOD).await;
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
    inspector: &dyn Inspector,
    action_id: Uuid,
    show: &mut dyn FnMut(&ActionState),
) -> anyhow::Result<ActionState> {
    let mut away = false;
    loop {
        match inspector.action(action_id).await {
            Ok(Some(state)) => {
                away = false;
                show(&state);
                if state.outcome.is_some() {
                    return Ok(state);
                }
            }
            Ok(None) => anyhow::bail!("nothing is known of action {action_id} any more"),
            Err(failure) if passes(&failure) => {
                if !away {
                    tracing::warn!("{failure}; asking again until there is an answer");
                }
                away = true;
            }
            Err(failure) => return Err(failure.into()),
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// What was asked for is kept, so that whoever tells of it may be away for a while.
fn passes(failure: &Failure) -> bool {
    failure.fault() == Fault::Database || matches!(failure, Failure::ServiceUnavailable { .. })
}
