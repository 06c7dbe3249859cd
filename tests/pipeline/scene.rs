//! What these tests share: a database, a provider, the tree between them, and what to ask of each.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::actors::{Tree, TreeSettings};
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::retry::RetryPolicy;
use embedding_recovery::domain::task::{Lease, Settlement};
use embedding_recovery::embedders::openai::{OpenAiEmbedder, OpenAiSettings, PROBE_TEXT};
use embedding_recovery::ports::Store;
use uuid::Uuid;

use crate::fakes::embedder::FaultyEmbedder;
use crate::fakes::openai::{FakeOpenAi, hash_of};
use crate::fakes::store::FaultyStore;
use crate::harness::calls::USER;
use crate::harness::service::{MODEL, settings};
use crate::harness::{TestDatabase, eventually};

pub const DIMENSIONS: u32 = 8;
/// Inputs of one request: few, so that small calls take several.
pub const INPUTS_MAX: usize = 4;
/// Longer than any test holds an answer back.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A database, a provider, and both ports between them, ready to fail.
pub struct Scene {
    pub database: TestDatabase,
    pub fake: FakeOpenAi,
    pub store: Arc<FaultyStore>,
    pub embedder: Arc<FaultyEmbedder>,
}

/// A row of `embedding_queue`.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct TaskRow {
    pub status: String,
    pub attempts: i32,
    pub releases: i32,
    pub crashes: i32,
    pub failure_class: Option<String>,
    pub dead_letter_reason: Option<String>,
    pub dead_letter_permanent: bool,
}

impl TaskRow {
    /// Status, attempts used, releases that were somebody else's fault.
    pub fn summary(&self) -> (&str, i32, i32) {
        (&self.status, self.attempts, self.releases)
    }
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(DIMENSIONS, INPUTS_MAX).await
    }

    pub async fn with(dimensions: u32, inputs_max: usize) -> Self {
        let database = TestDatabase::new().await;
        let fake = FakeOpenAi::start(dimensions as usize);
        let store = FaultyStore::new(database.store.clone());
        let embedder = embedder(&fake, dimensions, inputs_max, READ_TIMEOUT);
        Self { database, fake, store, embedder }
    }

    /// Settings that wait a moment only.
    pub fn settings(&self) -> TreeSettings {
        let mut settings = settings(self.store.clone(), self.embedder.clone(), DIMENSIONS);
        settings.requests_in_flight = 1;
        settings
    }

    pub async fn serve(&self) -> Tree {
        self.database.serve(self.settings()).await
    }

    /// Stops the tree and asserts that every invariant holds.
    pub async fn end(&self, tree: Tree) {
        tree.stop(Duration::from_secs(5)).await;
        self.database.assert_sound().await;
    }

    /// The newest task of a recording.
    pub async fn task(&self, recording_id: i64) -> TaskRow {
        sqlx::query_as(
            "select status, attempts, releases, crashes, failure_class, dead_letter_reason,
                    dead_letter_permanent
             from embedding_queue where user_id = $1 and recording_id = $2
             order by created_at desc limit 1",
        )
        .bind(USER)
        .bind(recording_id)
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }

    /// Waits until the newest task of a recording is as `condition` wants it.
    pub async fn wait_for_task(
        &self,
        recording_id: i64,
        condition: impl Fn(&TaskRow) -> bool,
    ) -> TaskRow {
        let mut last = None;
        eventually("the task is as it should be", async || {
            let task = self.task(recording_id).await;
            let fits = condition(&task);
            last = Some(task);
            fits
        })
        .await;
        last.unwrap()
    }

    /// Outcomes of a recording's attempts with their failure classes, in order, as `retry panicked`.
    pub async fn attempts(&self, recording_id: i64) -> Vec<String> {
        sqlx::query_scalar(
            "select concat_ws(' ', coalesce(outcome, 'running'), failure_class) from embedding_attempts
             where user_id = $1 and recording_id = $2 order by started_at",
        )
        .bind(USER)
        .bind(recording_id)
        .fetch_all(&self.database.pool)
        .await
        .unwrap()
    }

    /// Chunks of a recording that a reader finds.
    pub async fn searchable(&self, recording_id: i64) -> i64 {
        self.count("select count(*) from searchable_chunks where recording_id = $1", recording_id)
            .await
    }

    /// Chunks of a recording in any set.
    pub async fn stored(&self, recording_id: i64) -> i64 {
        self.count("select count(*) from transcript_chunks where recording_id = $1", recording_id)
            .await
    }

    /// A query that counts for one recording.
    pub async fn count(&self, query: &'static str, recording_id: i64) -> i64 {
        sqlx::query_scalar(query).bind(recording_id).fetch_one(&self.database.pool).await.unwrap()
    }

    /// Ends the one lease there is as another process would: its task is pending again.
    pub async fn take_lease_away(&self) {
        let (task_id, attempt_id, token): (Uuid, Uuid, Uuid) = sqlx::query_as(
            "select q.id, a.id, q.lease_token from embedding_queue q
             join embedding_attempts a on a.task_id = q.id and a.outcome is null",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap();
        let lease = Lease { task_id, attempt_id, token };
        let settlement = Settlement::Release { counted: false };
        let store = &self.database.store;
        assert!(store.settle(&lease, &Failure::Shutdown, &settlement).await.unwrap());
    }

    /// How many chunks were bought; asserts that none was bought twice.
    pub fn bought_once(&self) -> usize {
        let probe = hash_of(PROBE_TEXT);
        let bought: Vec<u64> =
            self.fake.bought_hashes().into_iter().filter(|hash| *hash != probe).collect();
        let different: HashSet<&u64> = bought.iter().collect();
        assert_eq!(different.len(), bought.len(), "a chunk was bought twice");
        bought.len()
    }

    /// The requests that were probes.
    pub fn probes(&self) -> usize {
        self.fake.requests().iter().filter(|seen| seen.inputs == [PROBE_TEXT]).count()
    }
}

/// An embedder over the fake API that is patient for a moment only.
pub fn embedder(
    fake: &FakeOpenAi,
    dimensions: u32,
    inputs_max: usize,
    read_timeout: Duration,
) -> Arc<FaultyEmbedder> {
    let settings = OpenAiSettings {
        dimensions: Some(dimensions),
        read_timeout,
        retry_delays: vec![Duration::from_millis(5); 2],
        requests_in_flight: 16,
        ..OpenAiSettings::new(fake.base_url().parse().unwrap(), None, MODEL.into())
    };
    Arc::new(FaultyEmbedder::new(Arc::new(OpenAiEmbedder::new(settings).unwrap()), inputs_max))
}

/// Whether one of the inputs is this turn of this call.
pub fn is_turn(recording_id: i64, turn: usize) -> impl Fn(&[String]) -> bool {
    let text = format!("call{recording_id}turn{turn} ");
    move |inputs| inputs.iter().any(|input| input.contains(&text))
}

/// Whether the inputs are of this call.
pub fn is_call(recording_id: i64) -> impl Fn(&[String]) -> bool {
    let text = format!("call{recording_id}turn");
    move |inputs| inputs.iter().any(|input| input.contains(&text))
}

/// Retries after `delay`.
pub fn retries(delay: Duration) -> RetryPolicy {
    RetryPolicy::new(vec![delay; 3])
}
