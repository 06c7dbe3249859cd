//! Waiting out the database: an outage is nobody's fault, so work pauses with what it has.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::progress::Progress;
use crate::domain::failure::Failure;

/// First wait after a failure; doubled up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait: how late an end of the outage is noticed.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// A statement that collides this often in a row collides with something that does not go away.
const COLLISIONS_MAX: u32 = 20;

/// When this process last saw the database fail.
#[derive(Clone)]
pub(super) struct Outages(watch::Sender<Option<Instant>>);

impl Outages {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Notes an outage where `failure` is one.
    pub(super) fn note(&self, failure: &Failure) {
        if matches!(failure, Failure::DatabaseUnavailable { .. }) {
            tracing::warn!(error = %failure, "waiting for the database");
            self.0.send_replace(Some(Instant::now()));
        }
    }

    /// True where an outage was seen within `time`.
    pub(super) fn seen_within(&self, time: Duration) -> bool {
        self.0.borrow().is_some_and(|seen| seen.elapsed() < time)
    }

    /// Repeats `operation` until the database answers: for ever while it is unavailable, a bounded
    /// number of times where transactions collide. `operation` must be idempotent.
    pub(super) async fn wait_out<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        progress: Option<&Progress>,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut wait = WAIT_FIRST;
        let mut collisions = 0;
        loop {
            let failure = match operation().await {
                Err(failure @ Failure::DatabaseUnavailable { .. }) => failure,
                Err(Failure::Collision) if collisions < COLLISIONS_MAX => {
                    collisions += 1;
                    continue;
                }
                result => return result,
            };
            self.note(&failure);
            if let Some(progress) = progress {
                progress.moved();
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }
}
