//! The program's own private Postgres with pgvector, for runs without a
//! database URL. It is a real server (many connections, real locks, real
//! time-outs), so that what is tried out without a database holds with one.
//!
//! Unix only (Linux and macOS): on Windows give a database URL.
//!
//! The server outlives the program that started it, however that ends. Further
//! processes on the same data directory join it, and the last one to call
//! [`EmbeddedPostgres::stop_if_last`] stops it. The crate `postgresql_embedded`
//! is not used: it cannot run as root and downloads from a place that many
//! networks block.

mod error;
mod find;
mod init;
mod look;
mod place;
mod remove;
mod server;
mod socket;
mod state;
mod wheel;

pub use error::EmbeddedError;
pub use find::SearchPlaces;
pub use look::{Outlook, Programs};
pub use place::{default_cache_dir, default_data_dir};

use place::{DataDir, ServerUser, prepare_dir};
use server::{Server, Stop};
use sqlx::{Connection, PgConnection};
use state::State;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The database that is created for the program.
const DATABASE: &str = "embedding_recovery";
/// How long connections that were just closed may show before they count as
/// somebody else's; their backends end within milliseconds.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two looks at who is connected.
const LEAVE_POLL: Duration = Duration::from_millis(20);

/// What to run, and where its files go.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Keeps the data between runs; see [`default_data_dir`].
    pub data_dir: PathBuf,
    /// Keeps the unpacked wheel; see [`default_cache_dir`].
    pub cache_dir: PathBuf,
    /// Programs of the Postgres to run (`--postgres-bin-dir`); searched for if `None`.
    pub bin_dir: Option<PathBuf>,
    /// `false` turns `fsync`, `synchronous_commit` and `full_page_writes` off,
    /// for tests: what was committed in the last 0.6 s is then lost if the
    /// server is killed, and everything may be lost in a power cut. The end of
    /// the program loses nothing either way. Data set up with `false` stay less
    /// safe; a process that joins a running server takes it as it is.
    pub durable: bool,
}

/// The running server, as this process sees it.
///
/// It holds one connection, by which other processes see that the server is in
/// use. Dropping it gives that up but leaves the server running.
pub struct EmbeddedPostgres {
    url: String,
    description: String,
    server: Server,
    /// `None` once this process has left.
    presence: Mutex<Option<PgConnection>>,
}

impl EmbeddedPostgres {
    /// Finds a Postgres on this machine, sets up the data directory the first
    /// time (about 1 s; some more until it is safely on disk), and starts the
    /// server (0.2 s) or joins a running one.
    ///
    /// If the future is dropped half way, the server may stay; the next start
    /// joins it.
    ///
    /// # Errors
    /// Any [`EmbeddedError`]; each names the way out.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        Self::start_in(options, &SearchPlaces::of_this_machine()).await
    }

    /// [`EmbeddedPostgres::start`] with the places of the search given.
    ///
    /// # Errors
    /// Any [`EmbeddedError`].
    pub async fn start_in(
        options: EmbeddedOptions,
        places: &SearchPlaces,
    ) -> Result<Self, EmbeddedError> {
        let user = ServerUser::needed()?;
        // Nobody needs to pass through; what matters below is 0700 by itself.
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        let data = DataDir(prepare_dir(&options.data_dir, mode, user, "data directory")?);
        let found = find::find(&options, places, &data, user).await?;
        let server = Server {
            bin_dir: found.bin_dir,
            major: found.major,
            data,
            user,
            durable: options.durable,
        };

        let _lock = server.lock().await?;
        server.init_if_needed().await?;
        let mut running = server.start_or_join().await?;
        let version = create_database(&mut running.connection)
            .await
            .map_err(|source| server.refused("create the database", source))?;
        let how = if running.started_here { "started" } else { "joined the running server" };
        let description = format!(
            "Postgres {version} ({}, {}), data in {}, {how}",
            found.origin,
            server.bin_dir.display(),
            server.data.0.display(),
        );
        Ok(Self {
            url: server.url(&running.socket_dir, DATABASE)?,
            description,
            server,
            presence: Mutex::new(Some(running.connection)),
        })
    }

    /// Makes sure that there is a Postgres to run, which may be fetched for that: the part of a
    /// start that can take a while, and that may be broken off.
    ///
    /// # Errors
    /// Any [`EmbeddedError`] but those of the server itself.
    pub async fn find(options: &EmbeddedOptions) -> Result<(), EmbeddedError> {
        let data = DataDir(options.data_dir.clone());
        let places = SearchPlaces::of_this_machine();
        find::find(options, &places, &data, ServerUser::needed()?).await?;
        Ok(())
    }

    /// The URL of the database `embedding_recovery`, as a superuser (so that
    /// `create extension vector` works). It holds the password: do not log it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One line for people: the version, where the server is from, where its
    /// data lie, and whether it was started or joined.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Leaves the server, and stops it if nobody else is connected to any of
    /// its databases. Close your own pools first: they count. A second call
    /// does nothing.
    ///
    /// `true` if this call stopped the server.
    ///
    /// # Errors
    /// `Locked`, `Database`, or `Program` if `pg_ctl` cannot stop it.
    pub async fn stop_if_last(&self) -> Result<bool, EmbeddedError> {
        // Under the lock nobody joins between the look and the stop, and of two
        // that leave at once the second finds the first gone.
        let _lock = self.server.lock().await?;
        let held = self.presence.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut connection) = held else {
            return Ok(false);
        };
        if connection.ping().await.is_err() {
            // The server ended without us, and perhaps was started again.
            match self.server.state().await? {
                State::Up(fresh, _) => connection = *fresh,
                State::Busy | State::Absent => return Ok(false),
            }
        }
        let alone = is_alone(&mut connection)
            .await
            .map_err(|source| self.server.refused("tell who is connected", source))?;
        // A server that is cut off in closing is as good as closed.
        let _ = connection.close().await;
        if alone {
            self.server.stop(Stop::Fast).await?;
        }
        Ok(alone)
    }
}

/// Creates the program's database if it is missing; gives the server's version.
async fn create_database(connection: &mut PgConnection) -> sqlx::Result<String> {
    let known: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut *connection)
            .await?;
    if !known {
        sqlx::query("create database embedding_recovery").execute(&mut *connection).await?;
    }
    sqlx::query_scalar("select split_part(current_setting('server_version'), ' ', 1)")
        .fetch_one(connection)
        .await
}

/// Whether no other client is connected, once those that leave have left.
async fn is_alone(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let deadline = Instant::now() + LEAVE_LIMIT;
    loop {
        let others: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity \
             where backend_type = 'client backend' and pid <> pg_backend_pid())",
        )
        .fetch_one(&mut *connection)
        .await?;
        if !others || Instant::now() >= deadline {
            return Ok(!others);
        }
        tokio::time::sleep(LEAVE_POLL).await;
    }
}
