//! Checks the invariants against what is really stored. A check is one query that finds what must not
//! be; only the chunks' contents are compared here, where the chunker is.

mod attempts;
mod chunks;
mod contents;
mod tasks;

use super::connection::{Pool, Session, Transaction};

use super::embedding_queue;
use crate::domain::failure::Failure;
use crate::ports::TaskCounts;

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which invariant, in a word.
    pub invariant: &'static str,
    /// Owner of the recording.
    pub user_id: String,
    /// The recording.
    pub recording_id: i64,
    /// What was found.
    pub detail: String,
}

/// What a database holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Tasks by state.
    pub tasks: TaskCounts,
    /// Chunks that search can see.
    pub chunks: u64,
    /// Recordings with a current set.
    pub recordings: u64,
    /// At most [`VIOLATIONS_MAX`] of each invariant.
    pub violations: Vec<Violation>,
}

/// Violations listed of each invariant: enough to see, few enough to read.
pub const VIOLATIONS_MAX: i64 = 100;

/// Time that a check may take, in the server's notation.
const STATEMENT_TIMEOUT: &str = "30min";

/// Runs every check: those that are queries in one snapshot, contents in one for each page, so that a
/// long comparison does not keep the server from tidying up.
pub(super) async fn verify(pool: &Pool) -> Result<Report, Failure> {
    let mut snapshot = snapshot(pool).await?;
    let totals = sqlx::query!(
        r#"select (select count(*) from searchable_chunks) as "chunks!",
                  (select count(*) from chunk_sets s join embedding_models m on m.name = s.model
                   where s.state = 'current' and m.state = 'current') as "recordings!""#
    )
    .fetch_one(&mut *snapshot)
    .await?;
    let mut violations = queries(&mut snapshot).await?;
    let tasks = embedding_queue::counts(&mut *snapshot, None).await?;
    snapshot.commit().await?;
    violations.extend(contents::other_than_transcript(pool).await?);
    Ok(Report {
        tasks,
        chunks: totals.chunks as u64,
        recordings: totals.recordings as u64,
        violations,
    })
}

async fn queries(snapshot: &mut Session) -> Result<Vec<Violation>, Failure> {
    let mut violations = tasks::illegal(snapshot).await?;
    violations.extend(tasks::double_leases(snapshot).await?);
    violations.extend(tasks::miscounted_by_jobs(snapshot).await?);
    violations.extend(attempts::miscounted(snapshot).await?);
    violations.extend(attempts::unjust(snapshot).await?);
    violations.extend(attempts::left_open(snapshot).await?);
    violations.extend(chunks::completed_without_set(snapshot).await?);
    violations.extend(chunks::incomplete_sets(snapshot).await?);
    violations.extend(chunks::bad_vectors(snapshot).await?);
    violations.extend(chunks::old_dead_sets(snapshot).await?);
    Ok(violations)
}

/// Begins a transaction that sees the database as it is now, until it ends.
async fn snapshot(pool: &Pool) -> Result<Transaction, Failure> {
    let mut snapshot =
        pool.begin_with("begin transaction isolation level repeatable read read only").await?;
    sqlx::query!("select set_config('statement_timeout', $1, true)", STATEMENT_TIMEOUT)
        .fetch_one(&mut *snapshot)
        .await?;
    Ok(snapshot)
}
