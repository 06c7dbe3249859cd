//! The demo's parts: a Postgres of its own that is gone afterwards, the built-in model at the pace
//! of an API, and the real tree between them. What the user set for real use is not looked at.

mod pace;
mod place;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use pace::{Pace, Workload};
use place::Place;

use super::serve::{End, inserts_in_flight, until_it_ends};
use crate::actors::{RecoverySettings, Status, Tree, TreeSettings};
use crate::config::DatabaseArgs;
use crate::domain::recording::RecordingKey;
use crate::domain::retry::{RecoveryPolicy, RetryPolicy};
use crate::embedded::{
    EmbeddedError, EmbeddedOptions, EmbeddedPostgres, default_cache_dir, default_data_dir,
};
use crate::embedders::local::{self, LocalEmbedder};
use crate::embedders::paced::PacedEmbedder;
use crate::ports::{Embedder, Model};
use crate::postgres::{Hit, PgStore, SearchMode, SearchRequest};

/// Time for connections to be given back when the demo ends; the server is stopped all the same.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// A demo, from its empty place to the same place removed. Call [`Demo::end`], whatever happened.
pub struct Demo {
    place: Place,
    options: EmbeddedOptions,
    connections_max: u32,
    /// Runs to its end even where nobody waits for it any more: a server that is half started is
    /// hard to stop.
    starting: Option<JoinHandle<Result<EmbeddedPostgres, EmbeddedError>>>,
    server: Option<EmbeddedPostgres>,
    store: Option<PgStore>,
    running: Option<Running>,
}

struct Running {
    tree: Tree,
    model: Model,
    embedder: Arc<PacedEmbedder>,
}

impl Demo {
    /// Takes the demo's own place beside the program's data directory. The database of the
    /// settings is not looked at.
    ///
    /// # Errors
    /// Another demo runs there, or it cannot be made.
    pub fn claim(args: &DatabaseArgs) -> anyhow::Result<Self> {
        let data_dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
        let place = Place::claim(&data_dir)?;
        let options = EmbeddedOptions {
            data_dir: place.data_dir(),
            cache_dir: default_cache_dir(),
            bin_dir: args.postgres_bin_dir.clone(),
            durable: false,
        };
        Ok(Self {
            place,
            options,
            connections_max: args.database_connections,
            starting: None,
            server: None,
            store: None,
            running: None,
        })
    }

    /// Finds a Postgres, or has it fetched. May be broken off.
    ///
    /// # Errors
    /// There is none.
    pub async fn find_postgres(&self) -> anyhow::Result<()> {
        Ok(EmbeddedPostgres::find(&self.options).await?)
    }

    /// Starts an empty, migrated database; clears away first what a demo that was killed has left.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let options = self.options.clone();
        let starting = self.starting.insert(tokio::spawn(async move {
            EmbeddedPostgres::remove(&options).await?;
            EmbeddedPostgres::start(options).await
        }));
        let started = starting.await.context("the start of Postgres panicked");
        self.starting = None;
        let server = self.server.insert(started??);
        tracing::info!("{}", server.describe());
        let store = PgStore::connect(server.url(), self.connections_max).await?;
        self.store.insert(store).migrate().await?;
        Ok(())
    }

    /// The database.
    ///
    /// # Errors
    /// It was not started.
    pub fn store(&self) -> anyhow::Result<&PgStore> {
        self.store.as_ref().context("the demo's database is not started")
    }

    /// Starts the tree, at this pace.
    ///
    /// # Errors
    /// It cannot start.
    pub async fn serve(&mut self, pace: &Pace) -> anyhow::Result<()> {
        let store = self.store()?.clone();
        let inner = Arc::new(LocalEmbedder::load()?);
        let embedder = Arc::new(PacedEmbedder::new(inner, pace.inputs_max as usize, pace.latency));
        let model =
            Model { name: local::STORED_MODEL.into(), dimensions: local::DIMENSIONS as u32 };
        store.use_model(&model).await?;
        let settings = TreeSettings {
            store: Arc::new(store.clone()),
            embedder: embedder.clone(),
            model: model.clone(),
            worker_id: Uuid::new_v4(),
            recordings_max: pace.recordings_at_once,
            lease: Duration::from_secs(30),
            // Nobody waits minutes for a demo to try again.
            retry: RetryPolicy::new(vec![Duration::from_secs(1)]),
            insert_rows: 50,
            statement_timeout: None,
            inserts_in_flight: inserts_in_flight(&store),
            requests_in_flight: pace.requests_at_once as usize,
            schedule: "* * * * *".parse()?,
            keep_completed: None,
            stall: Duration::from_secs(60),
            recovery: RecoverySettings {
                schedule: "0 */6 * * *".parse()?,
                recordings_max: 1,
                policy: RecoveryPolicy::default(),
                small_batches_above: 200,
            },
        };
        let tree = Tree::start(settings).await?;
        self.running = Some(Running { tree, model, embedder });
        Ok(())
    }

    /// What the tree is doing.
    ///
    /// # Errors
    /// It was not started.
    pub fn look(&self) -> anyhow::Result<Status> {
        Ok(self.running()?.tree.status().borrow().clone())
    }

    /// Kills the actor of a recording.
    ///
    /// # Errors
    /// The tree was not started.
    pub fn crash_recording(&self, key: &RecordingKey) -> anyhow::Result<()> {
        self.running()?.tree.crash_recording(key);
        Ok(())
    }

    /// Chunks that the embedder was asked for so far.
    ///
    /// # Errors
    /// The tree was not started.
    pub fn chunks_bought(&self) -> anyhow::Result<u64> {
        Ok(self.running()?.embedder.inputs())
    }

    /// Returns when every recording is completed or dead.
    ///
    /// # Errors
    /// The tree cannot go on.
    pub async fn until_idle(&self) -> anyhow::Result<()> {
        let Running { tree, model, .. } = self.running()?;
        match until_it_ends(self.store()?, model, tree.status(), true).await {
            End::Idle => Ok(()),
            End::CannotGoOn(reason) => bail!("the demo cannot go on: {reason}"),
            End::Replaced => bail!("the demo's model was replaced"),
        }
    }

    /// Asks a question of what is stored.
    ///
    /// # Errors
    /// The search fails.
    pub async fn ask(&self, question: &str, limit: u32) -> anyhow::Result<Vec<Hit>> {
        let vectors = LocalEmbedder::load()?.embed(&[question.to_owned()]).await?.vectors;
        let request = SearchRequest {
            text: question.to_owned(),
            embedding: vectors.into_iter().next(),
            user_id: None,
            recording_id: None,
            since: None,
            speaker: None,
            limit,
            mode: SearchMode::Hybrid,
        };
        Ok(self.store()?.search(&request).await?)
    }

    /// Stops all that was started and removes all that was written.
    ///
    /// # Errors
    /// The server does not stop, or its data cannot be removed.
    pub async fn end(self) -> anyhow::Result<()> {
        if let Some(running) = self.running {
            running.tree.stop(Duration::ZERO).await;
        }
        if let Some(starting) = self.starting {
            // Whether it succeeds or not: what it made is removed.
            drop(starting.await);
        }
        if let Some(store) = self.store {
            let _ = tokio::time::timeout(CLOSE_TIME, store.close()).await;
        }
        drop(self.server);
        EmbeddedPostgres::remove(&self.options).await?;
        self.place.remove();
        Ok(())
    }

    fn running(&self) -> anyhow::Result<&Running> {
        self.running.as_ref().context("the demo's tree is not started")
    }
}
