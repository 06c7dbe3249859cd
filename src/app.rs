//! The composition root: the one place that names concrete adapters, and the order in which they
//! start and stop.

mod admin;
mod backlog;
pub mod demo;
mod doctor;
mod embedding;
mod recover;
mod reembed;
mod sampling;
mod search;
mod serve;
mod stop;
mod told;
mod vitals;
mod waiting;

use std::time::Duration;

use anyhow::Context;

use crate::config::DatabaseArgs;
use crate::domain::trace::Traceparent;
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres, default_cache_dir, default_data_dir};
use crate::postgres::PgStore;

pub use crate::actors::{ChunkProgress, InFlight, Status};
pub use admin::AdminServer;
pub use backlog::{BacklogLoaded, LoadStep, load_backlog};
pub use doctor::examine;
pub use embedding::{Embedding, embedding_of_worker};
pub use recover::{recover, wait_for_action, wait_or_recover};
pub use reembed::{Reembedded, Step, cancel_reembedding, reembed};
pub use search::{Found, search};
pub use serve::{Ended, serve};
pub use stop::StopSignal;
pub use told::told;
pub use vitals::ServiceVitals;

/// Time for connections to be closed well.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// The database, and the server behind it where it is the program's own.
pub struct Database {
    /// All SQL.
    pub store: PgStore,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// Connects to the user's database, or starts or joins the program's own. The schema is not
    /// looked at.
    ///
    /// # Errors
    /// No server can be reached or started.
    pub async fn connect(args: &DatabaseArgs) -> anyhow::Result<Self> {
        let embedded = match args.url() {
            Some(_) => None,
            None => {
                let server = EmbeddedPostgres::start(embedded_options(args)).await?;
                tracing::info!("{}", server.describe());
                Some(server)
            }
        };
        let url = match (&embedded, args.url()) {
            (Some(server), _) => server.url(),
            (None, url) => url.unwrap_or_default(),
        };
        let store = PgStore::connect(url, args.database_connections)
            .await
            .context("cannot connect to the database (--database-url, DATABASE_URL)")?;
        // The program's own has nothing in between.
        let store = match args.admin_url().filter(|_| embedded.is_none()) {
            Some(url) => store.with_admin_url(url),
            None => store,
        };
        let store = match started_within() {
            Some(trace) => store.with_trace(trace),
            None => store,
        };
        Ok(Self { store, embedded })
    }

    /// Connects and makes sure that the schema fits: the program's own database is migrated, the
    /// user's is not touched.
    ///
    /// # Errors
    /// As [`Database::connect`], or the schema is older or newer than the program.
    pub async fn open(args: &DatabaseArgs) -> anyhow::Result<Self> {
        let database = Self::connect(args).await?;
        if database.is_own() {
            database.store.migrate().await?;
        } else {
            database.store.check_schema().await?;
        }
        Ok(database)
    }

    /// True where the server is the program's own.
    pub fn is_own(&self) -> bool {
        self.embedded.is_some()
    }

    /// Closes the connections, and stops an own server that nobody else uses.
    ///
    /// # Errors
    /// The server does not stop.
    pub async fn close(self) -> anyhow::Result<()> {
        // A database that is away does not say goodbye.
        let _ = tokio::time::timeout(CLOSE_TIME, self.store.close()).await;
        if let Some(server) = self.embedded {
            server.stop_if_last().await?;
        }
        Ok(())
    }
}

/// The trace that this command was started within: the variable `TRACEPARENT`, as W3C writes it. One
/// that names none is ignored.
pub fn started_within() -> Option<Traceparent> {
    std::env::var("TRACEPARENT").ok().and_then(|text| Traceparent::parse(&text))
}

/// What the program's own Postgres is run with.
fn embedded_options(args: &DatabaseArgs) -> EmbeddedOptions {
    EmbeddedOptions {
        data_dir: args.data_dir.clone().unwrap_or_else(default_data_dir),
        cache_dir: default_cache_dir(),
        bin_dir: args.postgres_bin_dir.clone(),
        durable: true,
    }
}
