//! All SQL, one file a table. [`PgStore`] is the adapter behind [`crate::ports::Store`].

mod admin_actions;
mod adoption;
mod backlog;
mod checkup;
mod chunk_sets;
mod claim_marks;
mod claims;
mod connection;
mod embedding_jobs;
mod embedding_models;
mod embedding_queue;
mod error;
mod fathom;
mod import;
mod inspector;
mod model_swap;
mod operator;
mod pauses;
mod pooling;
mod recovery;
mod reembedding;
mod reembedding_progress;
mod requests;
mod retention;
mod runs;
mod schedules;
mod schema;
mod search;
mod settlements;
mod store;
mod transcript_chunks;
mod vector_indexes;
mod vectors;
mod verify;
mod workers;

pub use backlog::{BacklogError, BacklogEstimate, BacklogLoad, IndexProgress};
pub use checkup::{Checkup, DatabaseFacts};
pub use connection::{ConnectError, Connections};
pub use embedding_jobs::{JobRequest, JobSummary, Selection};
pub use embedding_models::{ModelError, ModelInUse, ModelState, StoredModel};
pub use error::{may_pass, server_message};
pub use fathom::TRANSCRIPT_BYTES_MAX;
pub use import::Import;
pub use reembedding::{DeadLetter, ReembedError};
pub use reembedding_progress::{Estimate, Progress};
pub use schema::SchemaError;
pub use search::{Hit, QUERY_BYTES_MAX, SearchMode, SearchRequest, Span};
pub use verify::{Report, VIOLATIONS_MAX, Violation};

use connection::{Pool, Session, Transaction};

use crate::domain::checkup::Pooling;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::trace::Traceparent;
use crate::ports::{Model, TaskCounts};

/// The database.
#[derive(Debug, Clone)]
pub struct PgStore {
    pool: Pool,
    url: String,
    trace: Option<Traceparent>,
    claim_marks: claim_marks::ClaimMarks,
}

impl PgStore {
    /// Connects with at most `connections_max` connections, straight or through a pooler.
    ///
    /// # Errors
    /// The server does not answer or refuses, or a pooler allows no transactions.
    pub async fn connect(url: &str, connections_max: u32) -> Result<Self, ConnectError> {
        let pool = Pool::open(url, connections_max).await?;
        match pool.pooling() {
            Pooling::Statement => Err(ConnectError::StatementPooling),
            Pooling::Session | Pooling::Transaction => {
                let claim_marks = claim_marks::ClaimMarks::default();
                Ok(Self { pool, url: url.to_owned(), trace: None, claim_marks })
            }
        }
    }

    /// Migrations and index builds go over a URL of their own: where the other is a pooler's.
    pub fn with_admin_url(self, url: &str) -> Self {
        Self { pool: self.pool.with_admin_url(url), ..self }
    }

    /// What is asked for by way of this store belongs to `trace`, but where a request names its own.
    pub fn with_trace(self, trace: Traceparent) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// Looks at the database as it is.
    ///
    /// # Errors
    /// See [`Checkup::connect`] and [`Checkup::look`].
    pub async fn check_up(&self) -> Result<DatabaseFacts, ConnectError> {
        Checkup::connect(&self.url, None).await?.look().await
    }

    /// How the connections are used now.
    pub fn connections(&self) -> Connections {
        self.pool.connections()
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
        schema::migrate(&self.pool).await.map_err(SchemaError::explained)
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
            return Ok(ModelInUse { model, next: true, indexed: true, postponed: false });
        }
        let indexed = vector_indexes::has_index(&model);
        let postponed = !self.mend_index(&model).await? && indexed;
        Ok(ModelInUse { indexed, postponed, model, next: false })
    }

    /// Builds the index of the current model where it is missing or invalid, and drops those of retired
    /// ones. False, and nothing was done, where a backlog load is under way, which builds it at its end.
    ///
    /// # Errors
    /// The database's.
    pub async fn mend_index(&self, model: &Model) -> Result<bool, sqlx::Error> {
        if vector_indexes::indexes_are_right(&self.pool, model).await? {
            return Ok(true);
        }
        if backlog::is_under_way(&mut self.pool.acquire().await?).await? {
            return Ok(false);
        }
        let mut connection = self.pool.direct().await?;
        schema::lock(&mut connection).await?;
        // One may have begun while this waited; under this lock none drops the index.
        let mended = match backlog::is_under_way(&mut connection).await? {
            true => Ok(false),
            false => mend_locked(&mut connection, model).await.map(|()| true),
        };
        connection.close().await?;
        mended
    }

    /// Begins an import. `enqueue` opens a task for each recording that is new or changed.
    pub fn import(&self, enqueue: bool) -> Import {
        Import::new(self.pool.clone(), enqueue, self.trace.clone())
    }

    /// Enqueues recordings as one job.
    ///
    /// # Errors
    /// The database's.
    pub async fn enqueue(&self, request: &JobRequest) -> Result<JobSummary, Failure> {
        embedding_jobs::enqueue(&self.pool, request, self.trace.as_ref()).await
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

    /// True while dead letters of the model of this stored name are being recovered, or will be since
    /// somebody asked for it: a run that is under way or wanted, or requests of single recordings that
    /// no pause holds back. What is due by itself does not count.
    ///
    /// # Errors
    /// The database's.
    pub async fn recovers(&self, model_name: &str) -> Result<bool, Failure> {
        recovery::is_pending(&self.pool, model_name).await
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

async fn mend_locked(connection: &mut Session, model: &Model) -> Result<(), sqlx::Error> {
    let indexed = vector_indexes::ensure_index(&mut *connection, model).await;
    let dropped = vector_indexes::drop_retired_indexes(connection).await;
    indexed?;
    dropped
}

/// Begins a transaction in which any statement may take 2 minutes, whatever the role's
/// `statement_timeout` is. Inserts of chunks adapt to that one; for the others it would only be a way to
/// fail on a busy day. In one message, since each recording begins several.
async fn begin_patient(pool: &Pool) -> Result<Transaction, Failure> {
    Ok(pool.begin_with("begin; set local statement_timeout = '2min'").await?)
}

/// As [`begin_patient`], to read, and all statements see the same moment.
async fn begin_patient_snapshot(pool: &Pool) -> Result<Transaction, Failure> {
    let begin = "begin transaction isolation level repeatable read read only; \
         set local statement_timeout = '2min'";
    Ok(pool.begin_with(begin).await?)
}
