//! Whether a tree is alive and may work: asked of the Supervisor itself, and read from the last renewal
//! of its leases.

use std::time::{Duration, Instant};

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::sync::watch;

use super::supervisor::SupervisorMessage;
use crate::domain::failure::Failure;

/// The Supervisor never waits for IO: where it takes longer to answer, it hangs.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How the last renewal of this process's leases, and of its own row, went.
#[derive(Debug, Clone, Default)]
pub(super) enum Renewal {
    /// There was none yet.
    #[default]
    Due,
    /// It was stored.
    Stored(Instant),
    /// It was not.
    Failed(Failure),
}

/// A running tree, as it is felt from outside.
#[derive(Clone)]
pub struct Pulse {
    pub(super) supervisor: ActorRef<SupervisorMessage>,
    pub(super) renewal: watch::Receiver<Renewal>,
    pub(super) lease: Duration,
}

impl Pulse {
    /// True where the Supervisor answers.
    pub async fn beats(&self) -> bool {
        let asked = self.supervisor.call(SupervisorMessage::Answer, Some(ANSWER_TIME)).await;
        matches!(asked, Ok(CallResult::Success(())))
    }

    /// Fails, with the reason, unless leases were renewed within their length.
    pub fn renewal(&self) -> Result<(), String> {
        match &*self.renewal.borrow() {
            Renewal::Due => Err("its first heartbeat is not stored yet".into()),
            Renewal::Stored(at) if at.elapsed() < self.lease => Ok(()),
            Renewal::Stored(at) => Err(format!(
                "leases were renewed {} s ago for the last time",
                at.elapsed().as_secs()
            )),
            Renewal::Failed(failure) => Err(format!("leases cannot be renewed: {failure}")),
        }
    }
}
