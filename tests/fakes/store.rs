//! A store whose calls go wrong as they are told, over a real one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::part::Part;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::domain::task::{Lease, Settlement, Task};
use embedding_recovery::domain::trace::Traceparent;
use embedding_recovery::ports::{
    ChunkRow, ChunkSet, ChunkSetRequest, ClaimOf, Claimed, Completion, Destination, Model,
    Occasion, Recovery, RecoveryRun, RunResult, Runs, Source, Store, TaskCounts, Work, WorkerState,
};
use embedding_recovery::postgres::PgStore;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::harness::within_deadline;

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It fails and does nothing.
    Fail(Failure),
    /// It does its work, and fails all the same: the reply is lost.
    LoseReply(Failure),
    /// It does its work and replies after [`FaultyStore::release`].
    HoldReply,
    /// It neither does anything nor ends.
    Hang,
    /// It panics.
    Panic,
    /// It does its work, and panics all the same.
    PanicAfter,
}

/// The calls of an operation that go wrong: so many, after so many that do not.
struct Plan {
    spared: usize,
    left: usize,
    fault: Fault,
}

/// The wrapper. Until told otherwise it only passes calls on.
pub struct FaultyStore {
    inner: PgStore,
    plans: Mutex<HashMap<&'static str, Plan>>,
    struck: watch::Sender<HashMap<&'static str, usize>>,
    releases: watch::Sender<u64>,
    /// Calls that the database itself did not serve.
    unavailable: watch::Sender<usize>,
}

impl FaultyStore {
    pub fn new(inner: PgStore) -> Arc<Self> {
        let (plans, struck) = (Mutex::default(), watch::Sender::default());
        let (releases, unavailable) = (watch::Sender::default(), watch::Sender::default());
        Arc::new(Self { inner, plans, struck, releases, unavailable })
    }

    /// The next `times` calls of `operation`, a method of [`Store`], go wrong.
    pub fn fail(&self, operation: &'static str, times: usize, fault: Fault) {
        self.plan(operation, Plan { spared: 0, left: times, fault });
    }

    /// The `nth` call of `operation` from now on, from 1, goes wrong.
    pub fn fail_at(&self, operation: &'static str, nth: usize, fault: Fault) {
        self.plan(operation, Plan { spared: nth - 1, left: 1, fault });
    }

    /// So many calls of `operation` go wrong, after so many that do not.
    pub fn fail_after(&self, operation: &'static str, spared: usize, times: usize, fault: Fault) {
        self.plan(operation, Plan { spared, left: times, fault });
    }

    fn plan(&self, operation: &'static str, plan: Plan) {
        assert!(OPERATIONS.contains(&operation), "the store has no {operation}");
        self.plans.lock().unwrap().insert(operation, plan);
    }

    /// Forgets what was to go wrong.
    pub fn recover(&self) {
        self.plans.lock().unwrap().clear();
    }

    /// Lets held replies go.
    pub fn release(&self) {
        self.releases.send_modify(|releases| *releases += 1);
    }

    /// How many calls of `operation` went wrong.
    pub fn struck(&self, operation: &str) -> usize {
        self.struck.borrow().get(operation).copied().unwrap_or_default()
    }

    /// Waits until `count` calls of `operation` went wrong.
    pub async fn wait_until_struck(&self, operation: &str, count: usize) {
        let mut struck = self.struck.subscribe();
        let enough =
            struck.wait_for(|struck| struck.get(operation).copied().unwrap_or_default() >= count);
        within_deadline(operation, enough).await.unwrap();
    }

    /// Waits until the database itself did not serve `count` more calls.
    pub async fn wait_until_unavailable(&self, count: usize) {
        let mut unavailable = self.unavailable.subscribe();
        let enough = *unavailable.borrow() + count;
        let waiting = unavailable.wait_for(|count| *count >= enough);
        within_deadline("the database does not serve", waiting).await.unwrap();
    }

    fn next_fault(&self, operation: &str) -> Option<Fault> {
        let mut plans = self.plans.lock().unwrap();
        let plan = plans.get_mut(operation)?;
        if plan.spared > 0 {
            plan.spared -= 1;
            return None;
        }
        plan.left = plan.left.checked_sub(1)?;
        Some(plan.fault.clone())
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(fault) = self.next_fault(operation) else {
            let result = work.await;
            if result.as_ref().is_err_and(Failure::is_outage) {
                self.unavailable.send_modify(|count| *count += 1);
            }
            return result;
        };
        let mut releases = self.releases.subscribe();
        let strike =
            || self.struck.send_modify(|struck| *struck.entry(operation).or_default() += 1);
        match fault {
            Fault::Fail(failure) => {
                strike();
                Err(failure)
            }
            Fault::LoseReply(failure) => {
                work.await?;
                strike();
                Err(failure)
            }
            Fault::HoldReply => {
                let result = work.await;
                strike();
                let _ = releases.changed().await;
                result
            }
            Fault::Hang => {
                strike();
                std::future::pending().await
            }
            Fault::PanicAfter => {
                work.await?;
                strike();
                panic!("a panic that the test asked for");
            }
            Fault::Panic => {
                strike();
                panic!("a panic that the test asked for");
            }
        }
    }
}

macro_rules! pass_on {
    ($($port:ident { $($operation:ident($($argument:ident: $type:ty),*) -> $result:ty;)* })*) => {
        /// Every method of the ports.
        pub const OPERATIONS: &[&str] = &[$($(stringify!($operation)),*),*];

        $(#[async_trait]
        impl $port for FaultyStore {
            $(async fn $operation(&self, $($argument: $type),*) -> Result<$result, Failure> {
                self.call(stringify!($operation), self.inner.$operation($($argument),*)).await
            })*
        })*
    };
}

pass_on! {
Runs {
    begin_recovery(worker: Uuid, model_name: &str, occasion: Occasion) -> Recovery;
    claim_recovery(worker: Uuid, model_name: &str, run: &RecoveryRun, rows_max: u32, lease: Duration) -> Vec<Task>;
    end_run(run_id: Uuid, result: &RunResult) -> ();
    hold_off(model_name: &str, fingerprint: &str, after: Duration) -> u64;
    begin_main_run(worker: Uuid) -> Option<Uuid>;
    note_main_tick(worker: Uuid, enqueued: u64) -> ();
}
Store {
    claim(worker: Uuid, model_name: &str, of: ClaimOf, lease: Duration) -> Claimed;
    renew(tokens: &[Uuid], lease: Duration) -> Vec<Uuid>;
    release_unknown(worker: Uuid, part: Part, known: &[Uuid]) -> u64;
    heartbeat(worker: &WorkerState, lease: Duration) -> u32;
    sign_off(worker: Uuid) -> ();
    expired(rows_max: u32) -> Vec<Task>;
    settle(lease: &Lease, failure: &Failure, settlement: &Settlement) -> bool;
    note_trace(lease: &Lease, trace: &Traceparent) -> ();
    load(key: &RecordingKey) -> Source;
    open_chunk_set(lease: &Lease, key: &RecordingKey, request: &ChunkSetRequest) -> ChunkSet;
    insert_chunks(destination: &Destination, rows: &[ChunkRow]) -> ();
    complete(lease: &Lease, chunk_set_id: Uuid, work: Work) -> Completion;
    delete_dead_chunks(rows_max: u32) -> u64;
    forget_completed(after: Duration, rows_max: u32) -> u64;
    reconcile(model: &Model, rows_max: u32) -> u64;
    take_tick(schedule: &str, at: DateTime<Utc>) -> bool;
    take_missed_tick(schedule: &str, at: DateTime<Utc>) -> bool;
    note_cron(schedule: &str, cron: &str) -> ();
    roll_up_history() -> u64;
    now() -> DateTime<Utc>;
    task_counts() -> TaskCounts;
    statement_timeout() -> Option<Duration>;
    listen(ready: mpsc::Sender<()>) -> ();
}
}
