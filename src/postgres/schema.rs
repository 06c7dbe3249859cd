//! The schema: what state it is in, and the migrations that bring it up to date.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};

use super::adoption::differences;
use super::connection::{Pool, Session};
use super::error::forbidden;
use crate::domain::program_version::ProgramVersion;

/// Serialises index builds and migrations of all processes: an arbitrary, fixed key.
pub(super) const ADVISORY_LOCK: i64 = 0x0065_6d62_7265_6376;
/// Between two looks at that lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why the schema cannot be used or migrated. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The program needs migrations that were not applied.
    #[error(
        "the database's schema is older than this program ({missing} migrations are missing): run `embedding-recovery migrate`"
    )]
    Outdated {
        /// How many.
        missing: usize,
    },
    /// It serves later programs only.
    #[error(
        "the database's schema is newer than this program: it serves version {oldest} and later, and this is {}: install the newer program",
        ProgramVersion::own()
    )]
    Newer {
        /// The oldest program that it serves.
        oldest: ProgramVersion,
    },
    /// Tables of these names exist and do not fit.
    #[error("the database has tables of these names that do not fit; nothing was changed:\n  - {}", differences.join("\n  - "))]
    Differs {
        /// One sentence each.
        differences: Vec<String>,
    },
    /// The server has no pgvector.
    #[error(
        "the server has no pgvector extension: install it on the server (package postgresql-NN-pgvector, or your provider's switch), then run this again"
    )]
    NoVector,
    /// The role lacks a right.
    #[error("{message}: `embedding-recovery doctor` says what to grant")]
    Forbidden {
        /// Postgres's own words.
        message: String,
    },
    /// A migration failed and was rolled back.
    #[error("migration failed: {0}")]
    Migrate(#[from] MigrateError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl SchemaError {
    /// Tells a missing right from other errors, with the way out.
    pub(super) fn explained(self) -> Self {
        let message = match &self {
            Self::Database(error) => forbidden(error),
            other => forbidden(other),
        };
        match message {
            Some(message) => Self::Forbidden { message },
            None => self,
        }
    }
}

/// Fails unless the schema has all that this program needs, and serves it. Later migrations do no harm:
/// one that would says so.
pub(super) async fn check(connection: &mut Session) -> Result<(), SchemaError> {
    if let Some(oldest) = oldest_served(connection).await?
        && ProgramVersion::own() < oldest
    {
        return Err(SchemaError::Newer { oldest });
    }
    let applied = applied(connection).await?;
    match MIGRATIONS.iter().filter(|needed| !applied.contains(&needed.version)).count() {
        0 => Ok(()),
        missing => Err(SchemaError::Outdated { missing }),
    }
}

/// The oldest program that the schema serves; `None` where it is too old to say.
async fn oldest_served(connection: &mut Session) -> Result<Option<ProgramVersion>, sqlx::Error> {
    let exists =
        sqlx::query_scalar!(r#"select to_regclass('served_programs') is not null as "exists!""#)
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        return Ok(None);
    }
    let oldest = sqlx::query_scalar!("select oldest_version from served_programs")
        .fetch_optional(connection)
        .await?;
    // The table's own check lets nothing else in.
    Ok(oldest.and_then(|oldest| oldest.parse().ok()))
}

/// Brings the schema up to date; returns how many migrations were applied. Any number of processes
/// may call it at once: they take turns.
pub(super) async fn migrate(pool: &Pool) -> Result<usize, SchemaError> {
    let mut connection = pool.direct().await?;
    sqlx::raw_sql("set statement_timeout = 0; set client_min_messages = warning")
        .execute(&mut connection)
        .await?;
    lock(&mut connection).await?;
    // The lock goes with the session, so that a killed migrator leaves none behind.
    let applied = migrate_locked(&mut connection).await;
    connection.close().await?;
    applied
}

/// Waits for the lock by asking: a blocking wait would hold a snapshot, and deadlock with a
/// concurrent index build that waits for all of them.
pub(super) async fn lock(connection: &mut Session) -> Result<(), sqlx::Error> {
    loop {
        let locked =
            sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, ADVISORY_LOCK)
                .fetch_one(&mut *connection)
                .await?;
        if locked {
            return Ok(());
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

async fn migrate_locked(connection: &mut Session) -> Result<usize, SchemaError> {
    match check(connection).await {
        Ok(()) => return Ok(0),
        Err(SchemaError::Outdated { .. }) => {}
        Err(error) => return Err(error),
    }
    let before = applied(connection).await?;
    if before.is_empty() {
        require_vector(connection).await?;
        let differences = differences(connection).await?;
        if !differences.is_empty() {
            return Err(SchemaError::Differs { differences });
        }
    }
    let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_locking(false);
    migrator.run_direct(None, connection.driver(), false).await?;
    Ok(applied(connection).await?.len() - before.len())
}

/// What the migrations create: the word after `create KIND`, with the line that it stands in.
pub(super) fn created(kind: &str) -> Vec<(&'static str, &'static str)> {
    let begins = [format!("create {kind} if not exists "), format!("create {kind} ")];
    let lines = MIGRATIONS.migrations.iter().flat_map(|migration| migration.sql.as_str().lines());
    let found = lines.filter_map(|line| {
        let rest =
            begins.iter().find_map(|begin| line.trim_start().strip_prefix(begin.as_str()))?;
        let name = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
        Some((name, line))
    });
    found.collect()
}

pub(super) async fn applied(connection: &mut Session) -> Result<Vec<i64>, sqlx::Error> {
    let exists =
        sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#)
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        return Ok(Vec::new());
    }
    // Not a checked query: the table is the migrator's and need not exist when this is built.
    sqlx::query_scalar("select version from _sqlx_migrations where success order by version")
        .fetch_all(connection)
        .await
}

async fn require_vector(connection: &mut Session) -> Result<(), SchemaError> {
    let available = sqlx::query_scalar!(
        r#"select exists (select from pg_available_extensions where name = 'vector') as "available!""#
    )
    .fetch_one(connection)
    .await?;
    if available { Ok(()) } else { Err(SchemaError::NoVector) }
}
