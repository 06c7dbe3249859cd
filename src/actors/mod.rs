//! The supervision tree:
//!
//! ```text
//! Supervisor
//! ├─ Writer       bounded; the one place that writes chunks   ┐
//! ├─ Recovery     dead letters, expired leases, dead sets     │ permanent; 5 restarts in 30 s,
//! ├─ Claimer      free slots -> leased tasks; renews leases   │ then the process exits 1
//! ├─ Scheduler    cron ticks and notifications                ┘
//! └─ Recording    one for each leased task; temporary
//! ```
//!
//! Actors know the outside through [`crate::ports`] only. Nothing is registered by name (names are
//! global in ractor): a permanent actor is reached through its `Address`, which outlives it.

mod address;
mod attempt;
mod claimer;
mod patience;
mod progress;
mod pulse;
mod recording;
mod recovery;
mod scheduler;
mod status;
mod supervisor;
mod ticks;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use progress::ChunkProgress;
pub use pulse::Pulse;
use pulse::Renewal;
pub use recovery::DELETE_ROWS_MAX;
pub use scheduler::RECONCILE_ROWS_MAX;
pub use status::{InFlight, Status};
use supervisor::SupervisorMessage;

use crate::domain::recording::RecordingKey;
use crate::domain::retry::{RecoveryPolicy, RetryPolicy};
use crate::ports::{Embedder, Model, Store};

/// What the tree works with and how hard.
#[derive(Clone)]
pub struct TreeSettings {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The provider.
    pub embedder: Arc<dyn Embedder>,
    /// The model that the embedder speaks for.
    pub model: Model,
    /// Names this process in the queue.
    pub worker_id: Uuid,
    /// Recordings worked on at once.
    pub recordings_max: u32,
    /// Length of a lease; renewed at a third of it.
    pub lease: Duration,
    /// Retries of a failed task.
    pub retry: RetryPolicy,
    /// Rows of the first insert.
    pub insert_rows: usize,
    /// The database's, which the size of later inserts follows; `None` for none.
    pub statement_timeout: Option<Duration>,
    /// Inserts in flight at most, of quick ones and again of patient ones.
    pub inserts_in_flight: usize,
    /// API requests in flight for one recording.
    pub requests_in_flight: usize,
    /// When the queue is reconciled and swept.
    pub schedule: croner::Cron,
    /// How long completed tasks and their attempts are kept; `None` for ever.
    pub keep_completed: Option<Duration>,
    /// A recording that makes no progress for this long is ended.
    pub stall: Duration,
    /// How dead letters are brought back.
    pub recovery: RecoverySettings,
}

/// When and how hard dead letters are recovered.
#[derive(Clone)]
pub struct RecoverySettings {
    /// When all that are due are taken.
    pub schedule: croner::Cron,
    /// Recordings recovered at once.
    pub recordings_max: u32,
    /// When one is tried again whose recovery failed.
    pub policy: RecoveryPolicy,
    /// A recording of more chunks is written in small batches from its first attempt.
    pub small_batches_above: u32,
}

/// A running tree.
pub struct Tree {
    supervisor: ActorRef<SupervisorMessage>,
    status: watch::Receiver<Status>,
    pulse: Pulse,
    ended: JoinHandle<()>,
    store: Arc<dyn Store>,
    worker_id: Uuid,
}

impl Tree {
    /// Starts the tree.
    ///
    /// # Errors
    /// The supervisor cannot be spawned.
    pub async fn start(settings: TreeSettings) -> Result<Self, SpawnErr> {
        let (publish, status) = watch::channel(Status::default());
        let (renewed, renewal) = watch::channel(Renewal::default());
        let (store, worker_id, lease) =
            (settings.store.clone(), settings.worker_id, settings.lease);
        let arguments = supervisor::Arguments { settings, status: publish, renewed };
        let (supervisor, ended) = Actor::spawn(None, supervisor::Supervisor, arguments).await?;
        let pulse = Pulse { supervisor: supervisor.clone(), renewal, lease };
        Ok(Self { supervisor, status, pulse, ended, store, worker_id })
    }

    /// What the tree is doing, as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Whether the tree is alive and may work, at any time.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Kills the actor that works on this recording, if one does, as a crash would: the Supervisor
    /// restarts it in place. For drills.
    pub fn crash_recording(&self, key: &RecordingKey) {
        // A supervisor that is gone has no recordings.
        let _ = self.supervisor.cast(SupervisorMessage::Crash(key.clone()));
    }

    /// Stops in order: claiming at once; recordings may finish within `grace`, then they are
    /// released without using an attempt; the Supervisor goes last, and the worker signs off.
    pub async fn stop(mut self, grace: Duration) {
        // A send to a supervisor that is gone already has nothing left to stop.
        let _ = self.supervisor.cast(SupervisorMessage::Drain);
        let idle = |status: &Status| status.drained && status.is_idle() || status.gave_up.is_some();
        if tokio::time::timeout(grace, self.status.wait_for(idle)).await.is_err() {
            let _ = self.supervisor.cast(SupervisorMessage::ReleaseAll);
            let settled = tokio::time::timeout(RELEASE_TIME, self.status.wait_for(idle)).await;
            if settled.is_err() {
                tracing::warn!("leases could not be released in time; they expire by themselves");
            }
        }
        self.supervisor.stop(None);
        let _ = self.ended.await;
        let (store, worker_id) = (self.store, self.worker_id);
        // In a task of its own: a panic in there is no reason not to end well.
        let signing_off = tokio::spawn(async move { store.sign_off(worker_id).await });
        if !matches!(tokio::time::timeout(RELEASE_TIME, signing_off).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the worker could not sign off; it counts as alive for a lease");
        }
    }
}

/// Time to write the releases of a shutdown, after its grace period, and as much to sign off.
const RELEASE_TIME: Duration = Duration::from_secs(5);
