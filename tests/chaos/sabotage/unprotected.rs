//! The two ports with one protection switched off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use embedding_recovery::domain::failure::{Failure, Fault};
use embedding_recovery::domain::packing::RequestLimits;
use embedding_recovery::domain::part::Part;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::domain::task::{Lease, Settlement, Task};
use embedding_recovery::domain::trace::Traceparent;
use embedding_recovery::ports::{
    ChunkRow, ChunkSet, ChunkSetRequest, ClaimOf, Claimed, Completion, Destination, Embedded,
    Embedder, Model, Occasion, Recovery, RecoveryRun, RunResult, Runs, Source, Store, TaskCounts,
    Work, WorkerState,
};
use embedding_recovery::postgres::PgStore;
use sqlx::PgPool;
use tokio::sync::mpsc;
use uuid::Uuid;

/// What keeps a promise, and can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// A write under a stale lease changes nothing.
    Fence,
    /// A chunk set is seen by search once it is whole.
    Swap,
    /// What is stored already is known when an attempt begins.
    Checkpoint,
    /// While the provider fails, nobody else is blamed and nothing is claimed.
    Circuit,
}

/// A store without one of its protections, or with all.
pub struct UnprotectedStore {
    pub inner: PgStore,
    pub pool: PgPool,
    pub off: Option<Protection>,
}

impl UnprotectedStore {
    /// The lease to write under: without the fence that of whoever holds the task.
    async fn passing(&self, lease: &Lease) -> Lease {
        if self.off != Some(Protection::Fence) {
            return *lease;
        }
        let holder: Option<(Uuid, Uuid)> = sqlx::query_as(
            "select a.id, q.lease_token from embedding_queue q
             join embedding_attempts a on a.task_id = q.id and a.outcome is null
             where q.id = $1 and q.status = 'processing'",
        )
        .bind(lease.task_id)
        .fetch_optional(&self.pool)
        .await
        .unwrap();
        holder.map_or(*lease, |(attempt_id, token)| Lease { attempt_id, token, ..*lease })
    }

    /// Makes a set current before it is whole.
    async fn show(&self, set: &ChunkSet) {
        for statement in [
            "update chunk_sets o set state = 'dead', died_at = clock_timestamp()
             from chunk_sets n where n.id = $1 and o.id <> n.id and o.state <> 'dead'
               and (o.user_id, o.recording_id, o.model) = (n.user_id, n.recording_id, n.model)",
            "update chunk_sets set state = 'current', completed_at = clock_timestamp() where id = $1",
        ] {
            sqlx::query(statement).bind(set.id).execute(&self.pool).await.unwrap();
        }
    }
}

macro_rules! runs {
    ($($operation:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Runs for UnprotectedStore {
            $(async fn $operation(&self, $($argument: $type),*) -> Result<$result, Failure> {
                self.inner.$operation($($argument),*).await
            })*
        }
    };
}

macro_rules! store {
    ($($operation:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Store for UnprotectedStore {
            $(async fn $operation(&self, $($argument: $type),*) -> Result<$result, Failure> {
                self.inner.$operation($($argument),*).await
            })*

            async fn settle(
                &self,
                lease: &Lease,
                failure: &Failure,
                settlement: &Settlement,
            ) -> Result<bool, Failure> {
                self.inner.settle(&self.passing(lease).await, failure, settlement).await
            }

            async fn open_chunk_set(
                &self,
                lease: &Lease,
                key: &RecordingKey,
                request: &ChunkSetRequest,
            ) -> Result<ChunkSet, Failure> {
                let mut set = self.inner.open_chunk_set(lease, key, request).await?;
                match self.off {
                    Some(Protection::Swap) => self.show(&set).await,
                    Some(Protection::Checkpoint) => (set.stored, set.reusable) = Default::default(),
                    _ => {}
                }
                Ok(set)
            }

            async fn insert_chunks(
                &self,
                destination: &Destination,
                rows: &[ChunkRow],
            ) -> Result<(), Failure> {
                let lease = self.passing(&destination.lease).await;
                let destination = Destination { lease, ..destination.clone() };
                self.inner.insert_chunks(&destination, rows).await
            }

            async fn complete(
                &self,
                lease: &Lease,
                chunk_set_id: Uuid,
                work: Work,
            ) -> Result<Completion, Failure> {
                self.inner.complete(&self.passing(lease).await, chunk_set_id, work).await
            }
        }
    };
}

// What no protection is in.
runs! {
    begin_recovery(worker: Uuid, model_name: &str, occasion: Occasion) -> Recovery;
    claim_recovery(worker: Uuid, model_name: &str, run: &RecoveryRun, rows_max: u32, lease: Duration) -> Vec<Task>;
    end_run(run_id: Uuid, result: &RunResult) -> ();
    hold_off(model_name: &str, fingerprint: &str, after: Duration) -> u64;
    begin_main_run(worker: Uuid) -> Option<Uuid>;
    note_main_tick(worker: Uuid, enqueued: u64) -> ();
}
store! {
    claim(worker: Uuid, model_name: &str, of: ClaimOf, lease: Duration) -> Claimed;
    renew(tokens: &[Uuid], lease: Duration) -> Vec<Uuid>;
    release_unknown(worker: Uuid, part: Part, known: &[Uuid]) -> u64;
    heartbeat(worker: &WorkerState, lease: Duration) -> u32;
    sign_off(worker: Uuid) -> ();
    note_cron(schedule: &str, cron: &str) -> ();
    roll_up_history() -> u64;
    expired(rows_max: u32) -> Vec<Task>;
    note_trace(lease: &Lease, trace: &Traceparent) -> ();
    load(key: &RecordingKey) -> Source;
    delete_dead_chunks(rows_max: u32) -> u64;
    forget_completed(after: Duration, rows_max: u32) -> u64;
    reconcile(model: &Model, rows_max: u32) -> u64;
    take_tick(schedule: &str, at: DateTime<Utc>) -> bool;
    take_missed_tick(schedule: &str, at: DateTime<Utc>) -> bool;
    now() -> DateTime<Utc>;
    task_counts() -> TaskCounts;
    statement_timeout() -> Option<Duration>;
    listen(ready: mpsc::Sender<()>) -> ();
}

/// An embedder that may take every failure of the provider for the recording's: nothing ever opens the
/// circuit, but three different recordings in a row.
pub struct BlamingEmbedder {
    pub inner: Arc<dyn Embedder>,
    pub blames: bool,
}

#[async_trait]
impl Embedder for BlamingEmbedder {
    fn limits(&self) -> RequestLimits {
        self.inner.limits()
    }

    fn learn_inputs_max(&self, inputs_max: usize) {
        self.inner.learn_inputs_max(inputs_max);
    }

    fn share(&self, replicas: u32) {
        self.inner.share(replicas);
    }

    fn paused_until(&self) -> Option<Instant> {
        self.inner.paused_until()
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        self.inner.embed(inputs).await.map_err(|failure| {
            if self.blames && failure.fault() == Fault::Provider {
                Failure::ProviderRejectsItem { message: failure.to_string() }
            } else {
                failure
            }
        })
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        self.inner.probe().await
    }
}
