//! Search: the chunks nearest in meaning and those with the query's words, fused in one statement.
//!
//! The two lists are fused by reciprocal rank: a chunk at rank r of a list gets 1 / (k + r) from it
//! (Cormack, Clarke, Büttcher: Reciprocal Rank Fusion Outperforms Condorcet, SIGIR 2009). How words
//! are ranked, k and the lengths of the lists were measured: `tests/bench/README.md` has the numbers.

mod statement;

use chrono::{DateTime, Utc};
use pgvector::Vector;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row};

use self::statement::{CANDIDATES, MATCH_BEGINS, MATCH_ENDS, statement};
use super::connection::{Pool, Transaction};
use super::embedding_models;
use crate::domain::failure::Failure;

/// Most bytes that a query may have: two chunks' worth. What is longer is not a question.
pub const QUERY_BYTES_MAX: usize = 8 * 1024;

/// Chunks that the index may look at for those that a filter leaves: about a second's work.
const SCANNED_MAX: u32 = 100_000;
/// Memory for that, in units of `work_mem` (4 MB by default).
const SCAN_WORK_MEMS: u32 = 8;

/// Which lists a search draws on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    /// Both.
    Hybrid,
    /// The chunks nearest in meaning.
    Vector,
    /// The chunks with the query's words.
    Text,
}

/// What is searched for, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The question, as it was typed; at most [`QUERY_BYTES_MAX`].
    pub text: String,
    /// Its vector, of the stored model; without one only words are searched.
    pub embedding: Option<Vec<f32>>,
    /// Only recordings of this user.
    pub user_id: Option<String>,
    /// Only recordings of this number.
    pub recording_id: Option<i64>,
    /// Only calls that took place then or later.
    pub since: Option<DateTime<Utc>>,
    /// Only chunks in which somebody speaks whose name has this part, in any case.
    pub speaker: Option<String>,
    /// Most hits.
    pub limit: u32,
    /// The lists to draw on.
    pub mode: SearchMode,
}

/// One chunk that was found.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Hit {
    /// From 0 to 1, which is the first rank in every list that was drawn on.
    pub score: f64,
    /// Owner of this copy of the call.
    pub user_id: String,
    /// The call's number at its source.
    pub recording_id: i64,
    /// The chunk's place in the recording, from 0.
    pub chunk_index: i32,
    /// Title of the call.
    pub title: Option<String>,
    /// When the call took place.
    pub call_date: Option<DateTime<Utc>>,
    /// Who speaks in it, in order of appearance.
    pub speakers: Vec<String>,
    /// Its first time in the call, as `HH:MM:SS`.
    pub timestamp_start: Option<String>,
    /// The whole chunk, a line `Speaker: words` for each turn, in pieces that join without a gap.
    pub passage: Vec<Span>,
}

/// A piece of a passage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Span {
    /// The text.
    pub text: String,
    /// True for a word of the query, in whatever form it has.
    pub matched: bool,
}

/// The best chunks, best first, of one snapshot.
pub(super) async fn search(pool: &Pool, request: &SearchRequest) -> Result<Vec<Hit>, Failure> {
    let mut transaction = begin(pool).await?;
    let model = embedding_models::current(&mut *transaction).await?.map(|stored| stored.model);
    let sql = statement(request, model.as_ref());
    let rows = bound(sql, request).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    rows.iter().map(hit).collect()
}

/// True where any chunk can be found.
pub(super) async fn is_possible(pool: &Pool) -> Result<bool, Failure> {
    let exists =
        sqlx::query_scalar!(r#"select exists (select from searchable_chunks) as "exists!""#);
    Ok(exists.fetch_one(pool).await?)
}

/// The plan of a search, as `explain` prints it.
pub(super) async fn explain(pool: &Pool, request: &SearchRequest) -> Result<String, Failure> {
    let mut transaction = begin(pool).await?;
    let model = embedding_models::current(&mut *transaction).await?.map(|stored| stored.model);
    let sql = format!("explain {}", statement(request, model.as_ref()));
    let rows = bound(sql, request).fetch_all(&mut *transaction).await?;
    let lines: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    Ok(lines?.join("\n"))
}

async fn begin(pool: &Pool) -> Result<Transaction, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    // For this transaction. By default the index gives up after its first 40 candidates, however few
    // of them a filter leaves, and when told to go on, after 20,000 or at a work_mem's worth.
    sqlx::query!(
        "select set_config('hnsw.iterative_scan', 'relaxed_order', true) as scan,
                set_config('hnsw.ef_search', $1, true) as candidates,
                set_config('hnsw.max_scan_tuples', $2, true) as tuples,
                set_config('hnsw.scan_mem_multiplier', $3, true) as memory",
        CANDIDATES.to_string(),
        SCANNED_MAX.to_string(),
        SCAN_WORK_MEMS.to_string()
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(transaction)
}

/// Unnamed, so that the server plans it for these very values.
fn bound(sql: String, request: &SearchRequest) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql))
        // Postgres stores no NUL, so none can be found.
        .bind(request.text.replace('\0', " "))
        .bind(request.user_id.clone())
        .bind(request.recording_id)
        .bind(request.since)
        .bind(request.speaker.clone())
        .bind(i64::from(request.limit))
        .bind(request.embedding.clone().map(Vector::from))
        .persistent(false)
}

fn hit(row: &PgRow) -> Result<Hit, Failure> {
    Ok(Hit {
        score: row.try_get("score")?,
        user_id: row.try_get("user_id")?,
        recording_id: row.try_get("recording_id")?,
        chunk_index: row.try_get("chunk_index")?,
        title: row.try_get("call_title")?,
        call_date: row.try_get("call_date")?,
        speakers: row.try_get("speakers")?,
        timestamp_start: row.try_get("timestamp_start")?,
        passage: spans(row.try_get("passage")?),
    })
}

/// Cuts a text at the marks that the statement puts around matching words.
fn spans(marked: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut push = |text: &str, matched| {
        if !text.is_empty() {
            spans.push(Span { text: text.to_owned(), matched });
        }
    };
    for (index, piece) in marked.split(MATCH_BEGINS).enumerate() {
        match piece.split_once(MATCH_ENDS) {
            Some((word, rest)) if index > 0 => {
                push(word, true);
                push(rest, false);
            }
            _ => push(piece, false),
        }
    }
    spans
}
