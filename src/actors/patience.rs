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

/// When this process last saw the database fail, and how long it waits for an answer.
#[derive(Clone)]
pub(super) struct Outages {
    seen: watch::Sender<Option<Instant>>,
    forbidden: watch::Sender<Option<(Instant, String)>>,
    answer_max: Duration,
}

impl Outages {
    pub(super) fn new(answer_max: Duration) -> Self {
        Self { seen: watch::Sender::new(None), forbidden: watch::Sender::new(None), answer_max }
    }

    /// Notes an outage where `failure` is one.
    pub(super) fn note(&self, failure: &Failure) {
        if failure.is_outage() {
            tracing::warn!(error = %failure, "waiting for the database");
            self.seen.send_replace(Some(Instant::now()));
        }
        if let Failure::DatabaseForbids { .. } = failure {
            self.forbidden.send_replace(Some((Instant::now(), failure.to_string())));
        }
    }

    /// True where an outage was seen within `time`.
    pub(super) fn seen_within(&self, time: Duration) -> bool {
        self.seen.borrow().is_some_and(|seen| seen.elapsed() < time)
    }

    /// What the database forbade this process within `time`.
    pub(super) fn forbidden_within(&self, time: Duration) -> Option<String> {
        let forbidden = self.forbidden.borrow();
        forbidden.as_ref().filter(|(at, _)| at.elapsed() < time).map(|(_, what)| what.clone())
    }

    /// Waits for an answer as long as this process waits for any: a connection that is dead without
    /// saying so must not hold an actor, or a slot, for ever.
    pub(super) async fn answered<T>(
        &self,
        operation: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        answered_within(self.answer_max, operation).await
    }

    /// Repeats `operation` until the database answers: for ever while it is unavailable, a bounded
    /// number of times where transactions collide. `operation` must be idempotent. With `progress`
    /// the Supervisor ends whoever gets no answer; else a time-out does.
    pub(super) async fn wait_out<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        progress: Option<&Progress>,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let mut wait = WAIT_FIRST;
        let mut collisions = 0;
        loop {
            let answer = match progress {
                Some(_) => operation().await,
                None => self.answered(operation()).await,
            };
            let failure = match answer {
                Err(failure) if failure.is_outage() => failure,
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

/// No answer within `time` is an outage.
pub(super) async fn answered_within<T>(
    time: Duration,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(time, operation).await.unwrap_or_else(|_| {
        Err(Failure::DatabaseUnavailable { message: format!("no answer within {time:?}") })
    })
}
