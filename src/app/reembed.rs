//! A change of the model: a supervision tree that works for the next one, until search can change
//! over.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::serve::tree_settings;
use super::{Database, Embedding, StopSignal};
use crate::actors::{DELETE_ROWS_MAX, RECONCILE_ROWS_MAX, Status, Tree};
use crate::config::WorkArgs;
use crate::domain::failure::{Failure, Fault};
use crate::ports::{Model, Store};
use crate::postgres::{DeadLetter, ModelState, PgStore, Progress, StoredModel};

/// The least time between two looks at how far it is.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A look takes at most one part in so many of the time: over many recordings it is slow.
const LOOK_SHARE: u32 = 10;

/// What a re-embedding is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It embeds, and is so far.
    Embedding(Progress),
    /// Every recording has the model; its index is built.
    Indexing,
    /// Search is on the model; what is left of the old one is removed.
    CleaningUp,
}

/// How a run of a re-embedding ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Reembedded {
    /// Search is on the new model.
    Swapped {
        /// As it was when it was last looked at before.
        progress: Option<Progress>,
        /// Tasks that are still open.
        open: u64,
        /// What was left of the old model is removed.
        cleaned_up: bool,
    },
    /// Somebody told it to stop.
    Stopped(Option<Progress>),
    /// Somebody cancelled it.
    Cancelled,
    /// All that is missing are dead letters: the first hundred of them.
    DeadLetters(Vec<DeadLetter>, Progress),
    /// It cannot go on.
    CannotGoOn(String),
}

/// Begins or joins a re-embedding, and works for it until search has changed over, or cannot.
/// `leave_dead` lets search lose the recordings that the model failed on.
///
/// # Errors
/// It cannot begin, or the database refuses.
pub async fn reembed(
    database: &Database,
    embedding: Embedding,
    work: &WorkArgs,
    leave_dead: bool,
    show: &mut dyn FnMut(Step),
) -> anyhow::Result<Reembedded> {
    let store = &database.store;
    let mut stop = StopSignal::listen()?;
    let next = store.begin_reembedding(&embedding.model).await?.model;
    let settings = tree_settings(store, &embedding, next.clone(), work).await?;
    let tree = Tree::start(settings).await?;
    let mut run = Run { store, next: &next, leave_dead, last: None, show };
    let end = tokio::select! {
        end = run.until_it_ends(tree.status()) => end,
        () = stop.told() => Ok(End::Stopped),
    };
    tree.stop(work.grace()).await;
    Ok(match end? {
        End::Swapped => {
            (run.show)(Step::CleaningUp);
            let cleaned_up = tokio::select! {
                cleaned = clean_up(store) => cleaned.map(|()| true)?,
                () = stop.told() => false,
            };
            let open = store.task_counts_of(&next.name).await?.open();
            Reembedded::Swapped { progress: run.last, open, cleaned_up }
        }
        End::Stopped => {
            let now = store.now().await?;
            Reembedded::Stopped(store.reembedding(&next.name, now).await?)
        }
        End::Cancelled => Reembedded::Cancelled,
        End::DeadLetters(progress) => {
            let letters = store.reembedding_dead_letters(&next.name).await?;
            Reembedded::DeadLetters(letters, progress)
        }
        End::CannotGoOn(reason) => Reembedded::CannotGoOn(reason),
    })
}

/// Gives a re-embedding up and removes what there is of it. `None` where there is none.
///
/// # Errors
/// The database's.
pub async fn cancel_reembedding(database: &Database) -> anyhow::Result<Option<StoredModel>> {
    let cancelled = database.store.cancel_reembedding().await?;
    if cancelled.is_some() {
        clean_up(&database.store).await?;
    }
    Ok(cancelled)
}

/// The indexes first: chunks go more quickly without.
async fn clean_up(store: &PgStore) -> Result<(), Failure> {
    store.drop_retired_indexes().await?;
    while store.delete_dead_chunks(DELETE_ROWS_MAX).await? >= u64::from(DELETE_ROWS_MAX) {}
    Ok(())
}

enum End {
    Swapped,
    Stopped,
    Cancelled,
    DeadLetters(Progress),
    CannotGoOn(String),
}

struct Run<'a> {
    store: &'a PgStore,
    next: &'a Model,
    leave_dead: bool,
    last: Option<Progress>,
    show: &'a mut dyn FnMut(Step),
}

impl Run<'_> {
    async fn until_it_ends(&mut self, status: watch::Receiver<Status>) -> Result<End, Failure> {
        let mut began = None;
        loop {
            let looked = Instant::now();
            match self.look(&mut began).await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => {}
                Err(failure) if failure.fault() == Fault::Database => {
                    tracing::warn!(error = %failure, "the re-embedding will look again");
                }
                Err(failure) => return Err(failure),
            }
            let now = status.borrow().clone();
            if let Some(reason) = now.gave_up {
                return Ok(End::CannotGoOn(reason));
            }
            let idle = now.is_idle();
            if let Some(open) = now.circuit.filter(|open| open.needs_a_person())
                && idle
            {
                return Ok(End::CannotGoOn(open.failure.to_string()));
            }
            tokio::time::sleep(LOOK_PERIOD.max(looked.elapsed() * LOOK_SHARE)).await;
        }
    }

    /// Looks how far it is, and changes over when it is time. `began` is when all recordings that
    /// were there had their tasks: later ones need not be waited for.
    async fn look(&mut self, began: &mut Option<DateTime<Utc>>) -> Result<Option<End>, Failure> {
        let began = match *began {
            Some(began) => began,
            None => {
                self.enqueue().await?;
                *began.insert(self.store.now().await?)
            }
        };
        let Some(progress) = self.store.reembedding(&self.next.name, began).await? else {
            return Ok(Some(End::Cancelled));
        };
        match progress.state {
            ModelState::Next => {
                self.last = Some(progress);
                (self.show)(Step::Embedding(progress));
            }
            ModelState::Current => return Ok(Some(End::Swapped)),
            ModelState::Retired { .. } => return Ok(Some(End::Cancelled)),
        }
        if progress.waiting > 0 {
            return Ok(None);
        }
        if progress.missing == 0 || self.leave_dead && progress.missing == progress.missing_dead {
            (self.show)(Step::Indexing);
            self.store.build_index(self.next).await?;
            let swapped = self.store.swap_models(&self.next.name, self.leave_dead).await?;
            return Ok(swapped.then_some(End::Swapped));
        }
        if progress.missing == progress.missing_dead {
            return Ok(Some(End::DeadLetters(progress)));
        }
        if progress.open == 0 {
            // It changed unseen, where triggers are missing.
            self.enqueue().await?;
        }
        Ok(None)
    }

    async fn enqueue(&self) -> Result<(), Failure> {
        let page = u64::from(RECONCILE_ROWS_MAX);
        while self.store.reconcile(self.next, RECONCILE_ROWS_MAX).await? >= page {}
        Ok(())
    }
}
