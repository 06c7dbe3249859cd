//! The store and its schema on a real Postgres: the part of the protocol that lives in SQL.

mod adoption;
mod changes;
mod checks;
mod claims;
mod fence;
mod history;
mod import;
mod inspector;
mod jobs;
mod model;
mod notify;
mod reconcile;
mod recovering;
mod reembed;
mod replaced;
mod retention;
mod scale;
mod schema;
mod search;
mod search_plan;
mod sets;
mod settle;
mod sources;
mod swap;
mod verify;
mod workers;

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::domain::task::{Settlement, Task};
use embedding_recovery::ports::{
    ChunkRow, ChunkSet, ChunkSetRequest, ClaimOf, Completion, Destination, ImportedRecording,
    ImportedSegment, Model, Source, Store, Work,
};
use embedding_recovery::postgres::Violation;
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::harness::TestDatabase;
use crate::harness::calls::key;
use crate::harness::service::MODEL;

/// What `verify` calls a set whose chunks are not those of its transcript.
const CONTENTS: &str = "a set's chunks are those of its transcript";
const LEASE: Duration = Duration::from_secs(600);

/// A migrated database whose model is registered; no index, so that any vector can be stored.
async fn database() -> TestDatabase {
    let database = TestDatabase::new().await;
    database
        .execute(&format!("insert into embedding_models (name, dimensions) values ('{MODEL}', 3)"))
        .await;
    database
}

fn model() -> Model {
    Model { name: MODEL.into(), dimensions: 3 }
}

async fn number(database: &TestDatabase, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&database.pool).await.unwrap()
}

async fn text(database: &TestDatabase, query: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&database.pool).await.unwrap()
}

/// Everything that an attempt may write, as one text: equal means that nothing changed.
async fn everything(database: &TestDatabase) -> String {
    text(
        database,
        "select jsonb_build_array(
            (select jsonb_agg(to_jsonb(t) order by t.id) from embedding_queue t),
            (select jsonb_agg(to_jsonb(t) order by t.id) from embedding_attempts t),
            (select jsonb_agg(to_jsonb(t) order by t.id) from chunk_sets t),
            (select jsonb_agg(to_jsonb(t) order by t.id) from transcript_chunks t))::text",
    )
    .await
}

/// A call with one segment for each text, a minute apart.
fn call(recording_id: i64, texts: &[&str]) -> ImportedRecording {
    let segments = texts
        .iter()
        .enumerate()
        .map(|(minute, text)| ImportedSegment {
            speaker_name: Some("Ann".into()),
            speaker_email: None,
            text: (*text).into(),
            timestamp: Some(format!("00:{minute:02}:00")),
        })
        .collect();
    ImportedRecording {
        key: key(recording_id),
        title: Some(format!("Call {recording_id}")),
        created_at: "2024-05-01T10:00:00Z".parse().ok(),
        created_at_presumed: None,
        segments,
    }
}

/// Stores so many calls by plain SQL, without a task.
async fn plain_calls(database: &TestDatabase, user_id: &str, count: u32) {
    database
        .execute(&format!(
            "set embedding_recovery.enqueue = off;
             insert into fathom_calls (user_id, recording_id) select '{user_id}', n from generate_series(1, {count}) n;
             insert into fathom_transcripts (user_id, recording_id, text)
             select '{user_id}', n, 'words' from generate_series(1, {count}) n;
             reset embedding_recovery.enqueue"
        ))
        .await;
}

async fn claim(database: &TestDatabase, of: ClaimOf) -> Vec<Task> {
    database.store.claim(Uuid::new_v4(), MODEL, of, LEASE).await.unwrap().tasks
}

/// Claims the one task that is ready.
async fn claim_one(database: &TestDatabase) -> Task {
    let mut tasks = claim(database, ClaimOf::Healthy(10)).await;
    assert_eq!(tasks.len(), 1, "one task is ready");
    tasks.remove(0)
}

async fn expire(database: &TestDatabase, task: &Task) {
    let id = task.lease.task_id;
    database
        .execute(&format!(
            "update embedding_queue set lease_expires_at = clock_timestamp() - interval '1 second' where id = '{id}'"
        ))
        .await;
}

/// The lease expires, the sweep settles it, and another worker claims the task.
async fn take_over(database: &TestDatabase, task: &Task) -> Task {
    expire(database, task).await;
    let retry = Settlement::Retry { after: Duration::ZERO };
    assert!(database.store.settle(&task.lease, &Failure::LeaseExpired, &retry).await.unwrap());
    let mut tasks = claim(database, ClaimOf::Suspect).await;
    assert_eq!(tasks.len(), 1, "the task of the dead worker is claimed");
    tasks.remove(0)
}

/// Fails a task for good.
async fn bury(database: &TestDatabase, task: &Task) {
    let settlement = Settlement::DeadLetter { permanent: true };
    assert!(database.store.settle(&task.lease, &Failure::Panicked, &settlement).await.unwrap());
}

fn row(index: u32, text: &str) -> ChunkRow {
    let content_hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let embedding = content_hash[..3].iter().map(|byte| f32::from(*byte) + 1.0).collect();
    ChunkRow {
        index,
        text: text.into(),
        content_hash,
        speakers: vec!["Ann".into(), "Bob \"B\" \\ {x,y}".into()],
        start_secs: Some(60 * index),
        end_secs: Some(60 * index + 30),
        embedding: Some(embedding),
    }
}

fn rows(texts: &[&str]) -> Vec<ChunkRow> {
    texts.iter().zip(0..).map(|(text, index)| row(index, text)).collect()
}

/// An attempt that has loaded its recording and opened its set.
struct Attempt {
    task: Task,
    set: ChunkSet,
    destination: Destination,
}

impl Attempt {
    /// Loads the recording of `task`; its chunks are to be `texts`.
    async fn begin(database: &TestDatabase, task: Task, texts: &[&str]) -> Result<Self, Failure> {
        let source = database.store.load(&task.key).await?;
        Self::open(database, task, source, texts).await
    }

    async fn open(
        database: &TestDatabase,
        task: Task,
        source: Source,
        texts: &[&str],
    ) -> Result<Self, Failure> {
        Self::open_for(MODEL, database, task, source, texts).await
    }

    async fn open_for(
        model_name: &str,
        database: &TestDatabase,
        task: Task,
        source: Source,
        texts: &[&str],
    ) -> Result<Self, Failure> {
        let request = ChunkSetRequest {
            model_name: model_name.into(),
            fingerprint: texts.join("|"),
            digest: source.digest,
            content_hashes: rows(texts).iter().map(|row| row.content_hash).collect(),
            afresh: false,
        };
        let set = database.store.open_chunk_set(&task.lease, &task.key, &request).await?;
        let destination = Destination {
            lease: task.lease,
            chunk_set_id: set.id,
            key: task.key.clone(),
            model_name: model_name.into(),
            call_title: source.recording.title,
            call_date: source.recording.created_at,
            patient: false,
        };
        Ok(Self { task, set, destination })
    }

    async fn insert(&self, database: &TestDatabase, rows: &[ChunkRow]) -> Result<(), Failure> {
        database.store.insert_chunks(&self.destination, rows).await
    }

    async fn complete(&self, database: &TestDatabase) -> Result<Completion, Failure> {
        let work = Work { chunks: 7, chunks_reused: 5, tokens: 1_000 };
        database.store.complete(&self.task.lease, self.set.id, work).await
    }
}

/// Embeds the recording of the one task that is ready, as a whole.
async fn embed(database: &TestDatabase, texts: &[&str]) -> Attempt {
    let task = claim_one(database).await;
    let attempt = Attempt::begin(database, task, texts).await.unwrap();
    attempt.insert(database, &rows(texts)).await.unwrap();
    assert_eq!(attempt.complete(database).await, Ok(Completion::Completed));
    attempt
}

/// Imports a call, replacing what is stored of it, and embeds it.
async fn import_and_embed(database: &TestDatabase, recording_id: i64, texts: &[&str]) -> Attempt {
    database.import(&[call(recording_id, texts)]).await;
    embed(database, texts).await
}

/// What search sees of a recording: its chunks in order.
async fn searchable(database: &TestDatabase, recording_id: i64) -> Vec<String> {
    sqlx::query_scalar(
        "select chunk_text from searchable_chunks where recording_id = $1 order by chunk_index",
    )
    .bind(recording_id)
    .fetch_all(&database.pool)
    .await
    .unwrap()
}

async fn status(database: &TestDatabase, recording_id: i64) -> String {
    text(
        database,
        &format!(
            "select status from embedding_queue where recording_id = {recording_id}
             order by created_at desc limit 1"
        ),
    )
    .await
}

/// What `verify` finds. Most chunks of these tests are made up, so they are not those of their
/// transcripts.
async fn violations(database: &TestDatabase) -> Vec<Violation> {
    let mut violations = database.store.verify().await.unwrap().violations;
    violations.retain(|violation| violation.invariant != CONTENTS);
    violations
}

async fn assert_sound(database: &TestDatabase) {
    assert_eq!(violations(database).await, [], "invariants are violated");
}

fn user_key(user_id: &str, recording_id: i64) -> RecordingKey {
    RecordingKey { user_id: user_id.into(), recording_id }
}

/// Waits until so many sessions of this database wait for a lock.
async fn wait_for_blocked(database: &TestDatabase, sessions: i64) {
    crate::harness::eventually("sessions wait for a lock", async || {
        number(
            database,
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .await
            == sessions
    })
    .await;
}
