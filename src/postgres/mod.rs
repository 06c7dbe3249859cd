//! All SQL, one file a table. [`PgStore`] is the adapter behind [`Store`].

mod adoption;
mod checkup;
mod chunk_sets;
mod embedding_jobs;
mod embedding_models;
mod embedding_queue;
mod error;
mod fathom;
mod import;
mod model_swap;
mod reembedding;
mod reembedding_progress;
mod schedules;
mod schema;
mod search;
mod transcript_chunks;
mod verify;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use checkup::{Checkup, CheckupError, DatabaseFacts};
pub use embedding_jobs::{JobRequest, JobSummary, Selection};
pub use embedding_models::{ModelError, ModelInUse, ModelState, StoredModel};
pub use fathom::TRANSCRIPT_BYTES_MAX;
pub use import::Import;
pub use reembedding::{DeadLetter, ReembedError};
pub use reembedding_progress::{Estimate, Progress};
pub use schema::SchemaError;
pub use search::{Hit, QUERY_BYTES_MAX, SearchMode, SearchRequest, Span};
pub use verify::{Report, VIOLATIONS_MAX, Violation};

use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Settlement};
use crate::ports::{
    ChunkRow, ChunkSet, ChunkSetRequest, ClaimOf, Claimed, Completion, Destination, Model, Source,
    Store, TaskCounts, Work,
};

/// The channel that a ready task is announced on.
const CHANNEL: &str = "embedding_recovery";
/// A connection must come within this time, or the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database.
#[derive(Debug, Clone)]
pub struct PgStore {
    pool: PgPool,
    url: String,
}

impl PgStore {
    /// Connects with at most `connections_max` connections.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub async fn connect(url: &str, connections_max: u32) -> Result<Self, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        // The pool would try again until its time-out and then not say why.
        PgConnection::connect_with(&options).await?.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.application_name("embedding-recovery"))
            .await?;
        Ok(Self { pool, url: url.to_owned() })
    }

    /// Looks at the database as it is.
    ///
    /// # Errors
    /// See [`Checkup::connect`] and [`Checkup::look`].
    pub async fn check_up(&self) -> Result<DatabaseFacts, CheckupError> {
        Checkup::connect(&self.url).await?.look().await
    }

    /// Closes the connections, so that a server that this program owns can stop.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Fails unless the schema is what this program was built for.
    ///
    /// # Errors
    /// [`SchemaError::Outdated`], [`SchemaError::Newer`], or the database's.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut connection = self.pool.acquire().await?;
        schema::check(&mut connection).await.map_err(SchemaError::explained)
    }

    /// Brings the schema up to date over a connection of its own; returns the number of
    /// migrations applied.
    ///
    /// # Errors
    /// See [`SchemaError`]; nothing was changed where it fails before the first migration.
    pub async fn migrate(&self) -> Result<usize, SchemaError> {
        schema::migrate(&self.url).await.map_err(SchemaError::explained)
    }

    /// The model that search is on, once anything was embedded, under its stored name.
    ///
    /// # Errors
    /// The database's.
    pub async fn stored_model(&self) -> Result<Option<Model>, sqlx::Error> {
        Ok(embedding_models::current(&self.pool).await?.map(|stored| stored.model))
    }

    /// Every model that this database has or had, the oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn models(&self) -> Result<Vec<StoredModel>, sqlx::Error> {
        embedding_models::all(&self.pool).await
    }

    /// Finds a model, as the provider knows it, and refuses one that the database is not on before
    /// anything is written; registers the first one. Builds the index of the current model.
    ///
    /// # Errors
    /// [`ModelError::Changed`], [`ModelError::Replaced`], or the database's.
    pub async fn use_model(&self, asked: &Model) -> Result<ModelInUse, ModelError> {
        let StoredModel { model, state, .. } =
            embedding_models::register(&self.pool, asked).await?;
        if state == ModelState::Next {
            return Ok(ModelInUse { model, next: true, indexed: true });
        }
        if embedding_models::indexes_are_right(&self.pool, &model).await? {
            let indexed = embedding_models::has_index(&model);
            return Ok(ModelInUse { indexed, model, next: false });
        }
        let mut connection = PgConnection::connect(&self.url).await?;
        schema::lock(&mut connection).await?;
        let indexed = embedding_models::ensure_index(&mut connection, &model).await;
        let dropped = embedding_models::drop_retired_indexes(&mut connection).await;
        connection.close().await?;
        dropped?;
        Ok(ModelInUse { indexed: indexed?, model, next: false })
    }

    /// Begins an import. `enqueue` opens a task for each recording that is new or changed.
    pub fn import(&self, enqueue: bool) -> Import {
        Import::new(self.pool.clone(), enqueue)
    }

    /// Enqueues recordings as one job.
    ///
    /// # Errors
    /// The database's.
    pub async fn enqueue(&self, request: &JobRequest) -> Result<JobSummary, Failure> {
        embedding_jobs::enqueue(&self.pool, request).await
    }

    /// The recordings of this number: one for each user who holds it.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_recordings(
        &self,
        recording_id: i64,
        user_id: Option<&str>,
    ) -> Result<Vec<RecordingKey>, Failure> {
        embedding_jobs::find(&self.pool, recording_id, user_id).await
    }

    /// Tasks by state, of the model of this stored name only.
    ///
    /// # Errors
    /// The database's.
    pub async fn task_counts_of(&self, model_name: &str) -> Result<TaskCounts, Failure> {
        embedding_queue::counts(&self.pool, Some(model_name)).await
    }

    /// The best chunks for a question, best first. Nothing where nothing was embedded.
    ///
    /// # Errors
    /// The database's.
    pub async fn search(&self, request: &SearchRequest) -> Result<Vec<Hit>, Failure> {
        search::search(&self.pool, request).await
    }

    /// True where a search can find anything at all.
    ///
    /// # Errors
    /// The database's.
    pub async fn has_searchable_chunks(&self) -> Result<bool, Failure> {
        search::is_possible(&self.pool).await
    }

    /// How the database goes about a search: `explain` of the statement that [`PgStore::search`]
    /// runs.
    ///
    /// # Errors
    /// The database's.
    pub async fn explain_search(&self, request: &SearchRequest) -> Result<String, Failure> {
        search::explain(&self.pool, request).await
    }

    /// Checks the invariants against what is stored.
    ///
    /// # Errors
    /// The database's.
    pub async fn verify(&self) -> Result<Report, Failure> {
        verify::verify(&self.pool).await
    }
}

/// Time that any statement but an insert of chunks may take, in the server's notation, whatever the
/// role's `statement_timeout` is. Inserts adapt to that one; for the others it would only be a way
/// to fail on a busy day.
const PATIENT_TIMEOUT: &str = "2min";

/// Begins a transaction whose statements may take [`PATIENT_TIMEOUT`].
async fn begin_patient(pool: &PgPool) -> Result<sqlx::Transaction<'static, Postgres>, Failure> {
    let mut transaction = pool.begin().await?;
    be_patient(&mut transaction).await?;
    Ok(transaction)
}

/// Lets the statements of the transaction at hand take [`PATIENT_TIMEOUT`].
async fn be_patient(connection: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query!("select set_config('statement_timeout', $1, true)", PATIENT_TIMEOUT)
        .fetch_one(connection)
        .await?;
    Ok(())
}

#[async_trait]
impl Store for PgStore {
    async fn claim(
        &self,
        worker: Uuid,
        model_name: &str,
        of: ClaimOf,
        lease: Duration,
    ) -> Result<Claimed, Failure> {
        embedding_queue::claim(&self.pool, worker, model_name, of, lease).await
    }

    async fn renew(&self, tokens: &[Uuid], lease: Duration) -> Result<Vec<Uuid>, Failure> {
        embedding_queue::renew(&self.pool, tokens, lease).await
    }

    async fn release_unknown(&self, worker: Uuid, known: &[Uuid]) -> Result<u64, Failure> {
        embedding_queue::release_unknown(&self.pool, worker, known).await
    }

    async fn expired(&self, rows_max: u32) -> Result<Vec<crate::domain::task::Task>, Failure> {
        embedding_queue::expired(&self.pool, rows_max).await
    }

    async fn settle(
        &self,
        lease: &Lease,
        failure: &Failure,
        settlement: &Settlement,
    ) -> Result<bool, Failure> {
        embedding_queue::settle(&self.pool, lease, failure, settlement).await
    }

    async fn note_trace(&self, lease: &Lease, trace_id: &str) -> Result<(), Failure> {
        sqlx::query!(
            "update embedding_attempts set trace_id = $2 where id = $1",
            lease.attempt_id,
            trace_id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn load(&self, key: &RecordingKey) -> Result<Source, Failure> {
        fathom::load(&self.pool, key).await
    }

    async fn open_chunk_set(
        &self,
        lease: &Lease,
        key: &RecordingKey,
        request: &ChunkSetRequest,
    ) -> Result<ChunkSet, Failure> {
        chunk_sets::open(&self.pool, lease, key, request).await
    }

    async fn insert_chunks(
        &self,
        destination: &Destination,
        rows: &[ChunkRow],
    ) -> Result<(), Failure> {
        transcript_chunks::insert(&self.pool, destination, rows).await
    }

    async fn complete(
        &self,
        lease: &Lease,
        chunk_set_id: Uuid,
        work: Work,
    ) -> Result<Completion, Failure> {
        chunk_sets::complete(&self.pool, lease, chunk_set_id, work).await
    }

    async fn delete_dead_chunks(&self, rows_max: u32) -> Result<u64, Failure> {
        transcript_chunks::delete_dead(&self.pool, rows_max).await
    }

    async fn reconcile(&self, model: &Model, rows_max: u32) -> Result<u64, Failure> {
        embedding_jobs::reconcile(&self.pool, model, rows_max).await
    }

    async fn take_tick(&self, schedule: &str, at: DateTime<Utc>) -> Result<bool, Failure> {
        schedules::take_tick(&self.pool, schedule, at).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, Failure> {
        schedules::now(&self.pool).await
    }

    async fn task_counts(&self) -> Result<TaskCounts, Failure> {
        embedding_queue::counts(&self.pool, None).await
    }

    async fn statement_timeout(&self) -> Result<Option<Duration>, Failure> {
        let millis = sqlx::query_scalar!(
            r#"select setting::bigint as "millis!" from pg_settings where name = 'statement_timeout'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((millis > 0).then(|| Duration::from_millis(millis as u64)))
    }

    async fn listen(&self, ready: mpsc::Sender<()>) -> Result<(), Failure> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // A full channel means that a look at the queue is due already. The first one is for
            // what came before this listened.
            match ready.try_send(()) {
                Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
                Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
            }
            // `None` says that the connection was lost and made anew: something may have been
            // missed, so it counts as a notification.
            listener.try_recv().await?;
        }
    }
}
