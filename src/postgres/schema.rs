//! The schema: what state it is in, adoption of tables that exist already, and the migrations.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::embedding_models::{ADVISORY_LOCK, LOCK_POLL};

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
    /// A later program migrated it.
    #[error(
        "the database's schema is newer than this program (it knows migration {version}, this program does not): install the newer program"
    )]
    Newer {
        /// The first migration that this program does not know.
        version: i64,
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
    /// A migration failed and was rolled back.
    #[error("migration failed: {0}")]
    Migrate(#[from] MigrateError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Columns that must have this type where their table exists already. Missing ones are added,
/// except those marked as needed: their values cannot be invented.
const EXPECTED: &[(&str, &str, &str, bool)] = &[
    ("fathom_calls", "recording_id", "bigint", true),
    ("fathom_calls", "user_id", "text", true),
    ("fathom_calls", "title", "text", false),
    ("fathom_calls", "created_at", "timestamp with time zone", false),
    ("fathom_transcripts", "id", "bigint", true),
    ("fathom_transcripts", "recording_id", "bigint", true),
    ("fathom_transcripts", "user_id", "text", true),
    ("fathom_transcripts", "speaker_name", "text", true),
    ("fathom_transcripts", "speaker_email", "text", false),
    ("fathom_transcripts", "text", "text", true),
    ("fathom_transcripts", "timestamp", "text", true),
    ("fathom_transcripts", "edited_text", "text", false),
    ("fathom_transcripts", "edited_speaker_name", "text", false),
    ("fathom_transcripts", "is_deleted", "boolean", false),
    ("embedding_jobs", "id", "uuid", true),
    ("embedding_queue", "id", "uuid", true),
    ("embedding_queue", "user_id", "text", true),
    ("embedding_queue", "job_id", "uuid", false),
    ("embedding_queue", "recording_id", "bigint", true),
    ("embedding_queue", "status", "text", true),
    ("embedding_queue", "attempts", "integer", false),
    ("embedding_queue", "max_attempts", "integer", false),
    ("embedding_queue", "last_error", "text", false),
    ("embedding_queue", "next_retry_at", "timestamp with time zone", false),
    ("embedding_queue", "locked_at", "timestamp with time zone", false),
    ("embedding_queue", "worker_id", "uuid", false),
    ("embedding_queue", "completed_at", "timestamp with time zone", false),
    ("embedding_queue", "created_at", "timestamp with time zone", false),
    ("embedding_queue", "priority", "integer", false),
    ("transcript_chunks", "user_id", "text", true),
    ("transcript_chunks", "recording_id", "bigint", true),
    ("transcript_chunks", "chunk_text", "text", true),
    ("transcript_chunks", "chunk_index", "integer", true),
    ("transcript_chunks", "speakers", "ARRAY", false),
    ("transcript_chunks", "timestamp_start", "text", false),
    ("transcript_chunks", "timestamp_end", "text", false),
    ("transcript_chunks", "call_title", "text", false),
    ("transcript_chunks", "call_date", "timestamp with time zone", false),
    ("transcript_chunks", "embedding", "vector", true),
    ("transcript_chunks", "embedding_model", "text", false),
];

/// Fails unless the schema is exactly what this program was built for.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let applied = applied(connection).await?;
    let known: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    if let Some(version) = applied.iter().find(|version| !known.contains(version)) {
        return Err(SchemaError::Newer { version: *version });
    }
    match known.iter().filter(|version| !applied.contains(version)).count() {
        0 => Ok(()),
        missing => Err(SchemaError::Outdated { missing }),
    }
}

/// Brings the schema up to date; returns how many migrations were applied. Any number of processes
/// may call it at once: they take turns.
pub(super) async fn migrate(url: &str) -> Result<usize, SchemaError> {
    let mut connection = PgConnection::connect(url).await?;
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
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
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

async fn migrate_locked(connection: &mut PgConnection) -> Result<usize, SchemaError> {
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
    migrator.run_direct(None, connection, false).await?;
    Ok(applied(connection).await?.len() - before.len())
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
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

async fn require_vector(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let available = sqlx::query_scalar!(
        r#"select exists (select from pg_available_extensions where name = 'vector') as "available!""#
    )
    .fetch_one(connection)
    .await?;
    if available { Ok(()) } else { Err(SchemaError::NoVector) }
}

/// Names each way in which tables that exist already do not fit.
async fn differences(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let found: Vec<(String, String, String)> = sqlx::query!(
        r#"select table_name as "table!", column_name as "column!",
                  case when data_type = 'USER-DEFINED' then udt_name else data_type end as "type!"
           from information_schema.columns where table_schema = current_schema()"#
    )
    .map(|row| (row.table, row.column, row.r#type))
    .fetch_all(&mut *connection)
    .await?;
    let mut differences = Vec::new();
    for (table, column, expected, needed) in EXPECTED {
        if !found.iter().any(|(of, ..)| of == table) {
            continue;
        }
        match found.iter().find(|(of, name, _)| of == table && name == column) {
            Some((_, _, actual)) if actual != expected => {
                differences.push(format!("{table}.{column} is {actual}, not {expected}"));
            }
            None if *needed => {
                differences.push(format!("{table} has no column {column} ({expected})"))
            }
            _ => {}
        }
    }
    differences.extend(foreign_unique_indexes(connection).await?);
    if differences.is_empty() {
        differences.extend(duplicates(connection, &found).await?);
    }
    Ok(differences)
}

/// Unique indexes of an earlier system would make an edited recording's new chunks, or a second
/// task after a completed one, collide with the old.
async fn foreign_unique_indexes(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query!(
        r#"select c.relname as "table!", i.indexrelid::regclass::text as "index!"
           from pg_index i join pg_class c on c.oid = i.indrelid
           where i.indisunique and not i.indisprimary and i.indpred is null
             and c.relname in ('embedding_queue', 'transcript_chunks') and pg_table_is_visible(c.oid)"#
    )
    .map(|row| format!("{} has the unique index {}, which would refuse new rows: drop it", row.table, row.index))
    .fetch_all(connection)
    .await
}

/// Rows that the unique keys would refuse. Not checked queries: the tables may not exist.
async fn duplicates(
    connection: &mut PgConnection,
    found: &[(String, String, String)],
) -> Result<Vec<String>, sqlx::Error> {
    let exists = |table: &str| found.iter().any(|(of, ..)| of == table);
    let mut differences = Vec::new();
    if exists("fathom_calls") {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from (select from fathom_calls group by user_id, recording_id
             having count(*) > 1 or bool_or(user_id is null or recording_id is null)) d",
        )
        .fetch_one(&mut *connection)
        .await?;
        if count > 0 {
            differences.push(format!(
                "fathom_calls has {count} recordings without a user or more than once for one user"
            ));
        }
    }
    if exists("embedding_queue") {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from (select from embedding_queue where status <> 'completed'
             group by user_id, recording_id having count(*) > 1) d",
        )
        .fetch_one(&mut *connection)
        .await?;
        if count > 0 {
            differences.push(format!("embedding_queue has {count} recordings with more than one open task: keep one of each, delete the others"));
        }
    }
    Ok(differences)
}
