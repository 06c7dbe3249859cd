//! [`PgStore`] as the port that the actors speak to: each method is one function of a table's file.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    PgStore, chunk_sets, claims, embedding_jobs, embedding_queue, fathom, inspector, recovery,
    retention, runs, schedules, settlements, transcript_chunks, workers,
};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Settlement, Task};
use crate::domain::trace::Traceparent;
use crate::ports::{
    ChunkRow, ChunkSet, ChunkSetRequest, ClaimOf, Claimed, Completion, Destination, Model,
    Occasion, Recovery, RecoveryRun, RunResult, Runs, Source, Store, TaskCounts, Work, WorkerState,
};

/// The channel that a ready task, and what an administrator asks for, is announced on.
pub(super) const CHANNEL: &str = "embedding_recovery";

#[async_trait]
impl Store for PgStore {
    async fn claim(
        &self,
        worker: Uuid,
        model_name: &str,
        of: ClaimOf,
        lease: Duration,
    ) -> Result<Claimed, Failure> {
        claims::claim(&self.pool, &self.claim_marks, worker, model_name, of, lease).await
    }

    async fn renew(&self, tokens: &[Uuid], lease: Duration) -> Result<Vec<Uuid>, Failure> {
        embedding_queue::renew(&self.pool, tokens, lease).await
    }

    async fn release_unknown(
        &self,
        worker: Uuid,
        part: Part,
        known: &[Uuid],
    ) -> Result<u64, Failure> {
        embedding_queue::release_unknown(&self.pool, worker, part, known).await
    }

    async fn heartbeat(&self, worker: &WorkerState, lease: Duration) -> Result<u32, Failure> {
        workers::heartbeat(&self.pool, worker, lease).await
    }

    async fn sign_off(&self, worker: Uuid) -> Result<(), Failure> {
        workers::sign_off(&self.pool, worker).await
    }

    async fn expired(&self, rows_max: u32) -> Result<Vec<Task>, Failure> {
        embedding_queue::expired(&self.pool, rows_max).await
    }

    async fn settle(
        &self,
        lease: &Lease,
        failure: &Failure,
        settlement: &Settlement,
    ) -> Result<bool, Failure> {
        settlements::settle(&self.pool, lease, failure, settlement).await
    }

    async fn note_trace(&self, lease: &Lease, trace: &Traceparent) -> Result<(), Failure> {
        sqlx::query!(
            // An attempt does not wait until the disk has it: a crash of the server may lose it, and nothing
            // else with it.
            "update embedding_attempts set traceparent = $2::text, trace_id = $3
             where id = $1 and set_config('synchronous_commit', 'off', true) is not null",
            lease.attempt_id,
            trace.as_str(),
            trace.trace_id()
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn load(&self, key: &RecordingKey) -> Result<Source, Failure> {
        fathom::load(&self.pool, key).await
    }

    async fn open_chunk_set(
        &self,
        lease: &Lease,
        key: &RecordingKey,
        request: &ChunkSetRequest,
    ) -> Result<ChunkSet, Failure> {
        chunk_sets::open(&self.pool, lease, key, request).await
    }

    async fn insert_chunks(
        &self,
        destination: &Destination,
        rows: &[ChunkRow],
    ) -> Result<(), Failure> {
        if !destination.patient {
            return transcript_chunks::insert(&self.pool, destination, rows).await;
        }
        let mut transaction = super::begin_patient(&self.pool).await?;
        transcript_chunks::insert(&mut *transaction, destination, rows).await?;
        Ok(transaction.commit().await?)
    }

    async fn complete(
        &self,
        lease: &Lease,
        chunk_set_id: Uuid,
        work: Work,
    ) -> Result<Completion, Failure> {
        chunk_sets::complete(&self.pool, lease, chunk_set_id, work).await
    }

    async fn delete_dead_chunks(&self, rows_max: u32) -> Result<u64, Failure> {
        transcript_chunks::delete_dead(&self.pool, rows_max).await
    }

    async fn forget_completed(&self, after: Duration, rows_max: u32) -> Result<u64, Failure> {
        retention::forget_completed(&self.pool, after, rows_max).await
    }

    async fn reconcile(&self, model: &Model, rows_max: u32) -> Result<u64, Failure> {
        embedding_jobs::reconcile(&self.pool, model, rows_max).await
    }

    async fn take_tick(&self, schedule: &str, at: DateTime<Utc>) -> Result<bool, Failure> {
        schedules::take_tick(&self.pool, schedule, at).await
    }

    async fn take_missed_tick(&self, schedule: &str, at: DateTime<Utc>) -> Result<bool, Failure> {
        schedules::take_missed_tick(&self.pool, schedule, at).await
    }

    async fn note_cron(&self, schedule: &str, cron: &str) -> Result<(), Failure> {
        schedules::note_cron(&self.pool, schedule, cron).await
    }

    async fn roll_up_history(&self) -> Result<u64, Failure> {
        inspector::roll_up(&self.pool).await
    }

    async fn now(&self) -> Result<DateTime<Utc>, Failure> {
        schedules::now(&self.pool).await
    }

    async fn task_counts(&self) -> Result<TaskCounts, Failure> {
        embedding_queue::counts(&self.pool, None).await
    }

    async fn statement_timeout(&self) -> Result<Option<Duration>, Failure> {
        let millis = sqlx::query_scalar!(
            r#"select setting::bigint as "millis!" from pg_settings where name = 'statement_timeout'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((millis > 0).then(|| Duration::from_millis(millis as u64)))
    }

    async fn listen(&self, ready: mpsc::Sender<()>) -> Result<(), Failure> {
        let Some(pool) = self.pool.notifying() else {
            let message = "LISTEN has no effect through a pooler in transaction mode".into();
            return Err(Failure::DatabaseRefuses { message });
        };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // A full channel means that a look at the queue is due already. The first one is for
            // what came before this listened.
            match ready.try_send(()) {
                Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
                Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
            }
            // `None` says that the connection was lost and made anew: something may have been
            // missed, so it counts as a notification.
            listener.try_recv().await?;
        }
    }
}

#[async_trait]
impl Runs for PgStore {
    async fn begin_recovery(
        &self,
        worker: Uuid,
        model_name: &str,
        occasion: Occasion,
    ) -> Result<Recovery, Failure> {
        recovery::begin(&self.pool, worker, model_name, occasion).await
    }

    async fn claim_recovery(
        &self,
        worker: Uuid,
        model_name: &str,
        run: &RecoveryRun,
        rows_max: u32,
        lease: Duration,
    ) -> Result<Vec<Task>, Failure> {
        claims::claim_dead_letters(&self.pool, worker, model_name, run, rows_max, lease).await
    }

    async fn end_run(&self, run_id: Uuid, result: &RunResult) -> Result<(), Failure> {
        runs::end(&self.pool, run_id, result).await
    }

    async fn hold_off(
        &self,
        model_name: &str,
        fingerprint: &str,
        after: Duration,
    ) -> Result<u64, Failure> {
        recovery::hold_off(&self.pool, model_name, fingerprint, after).await
    }

    async fn begin_main_run(&self, worker: Uuid) -> Result<Option<Uuid>, Failure> {
        runs::end_abandoned(&self.pool, Part::Main, worker).await?;
        runs::take_up(&self.pool, Part::Main, worker).await
    }

    async fn note_main_tick(&self, worker: Uuid, enqueued: u64) -> Result<(), Failure> {
        runs::note_main_tick(&self.pool, worker, enqueued).await
    }
}
