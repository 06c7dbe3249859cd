//! Holds requests back: a bound on how many are under way at once, the user's ceiling, and one pause
//! for everyone where the provider says that its rate limit is used up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::ceiling::{Ceiling, Pace};
use crate::domain::failure::Failure;

/// A longer pause is not waited for but reported: whoever called has a lease to keep, and an
/// operator should hear of it.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What the server asks for is believed up to a day, the longest period of a known rate limit.
const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);

/// The wait where the server refuses but names no time.
const UNASKED: Duration = Duration::from_secs(1);

/// The shortest pause, doubled with each refusal in a row: `retry-after: 0` makes no hot loop.
const FLOOR_FIRST: Duration = Duration::from_millis(200);

/// The floor grows no further than this.
const FLOOR_MAX: Duration = Duration::from_secs(60);

/// A reset that comes with a success is only a hint (it may be the time until a whole day's budget
/// is back) and is followed no longer than this. To be refused after that costs nothing.
const HINT_MAX: Duration = Duration::from_secs(60);

/// What is left of one of the provider's budgets, as an answer's headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Requests or tokens that may still be sent before the reset.
    pub remaining: u64,
    /// Time until the reset.
    pub reset_after: Duration,
}

/// One for each provider and process.
pub(super) struct Limiter {
    permits: Semaphore,
    state: Mutex<State>,
}

/// A budget with its reset as a point in time.
#[derive(Debug, Clone, Copy)]
struct Known {
    remaining: u64,
    reset_at: Instant,
}

#[derive(Debug)]
struct State {
    paused_until: Option<Instant>,
    requests: Option<Known>,
    tokens: Option<Known>,
    pace: Pace,
}

/// When to ask again, and who says so.
enum Held {
    Provider(Instant),
    Ceiling(Instant),
}

impl Limiter {
    /// Lets at most `requests_in_flight` through at once, and no more than the ceiling allows.
    pub fn new(requests_in_flight: usize, ceiling: Ceiling) -> Self {
        let state =
            State { paused_until: None, requests: None, tokens: None, pace: Pace::new(ceiling) };
        Self { permits: Semaphore::new(requests_in_flight), state: Mutex::new(state) }
    }

    /// So many replicas share the ceiling.
    pub fn share(&self, replicas: u32) {
        self.state().pace.share(replicas);
    }

    /// Tokens that the ceiling leaves to this replica in a minute.
    pub fn tokens_max(&self) -> Option<usize> {
        self.state().pace.tokens_max()
    }

    /// Until when the provider wants no request; `None` where it takes them.
    pub fn paused_until(&self) -> Option<Instant> {
        self.state().paused_until.filter(|until| *until > Instant::now())
    }

    /// Waits until a request of about `tokens` may be sent; it may run while the permit is held.
    ///
    /// # Errors
    /// [`Failure::RateLimited`] where the pause is longer than [`PAUSE_MAX`].
    pub async fn admit(&self, tokens: u64) -> Result<SemaphorePermit<'_>, Failure> {
        loop {
            // Nobody keeps a permit through a pause, or a probe would have to wait with them.
            let permit = self.permit().await?;
            let Err(held) = self.state().spend(tokens, Instant::now()) else {
                return Ok(permit);
            };
            drop(permit);
            match held {
                Held::Provider(until) => {
                    let retry_after = until.saturating_duration_since(Instant::now());
                    if retry_after > PAUSE_MAX {
                        return Err(Failure::RateLimited { retry_after });
                    }
                    sleep_until(until).await;
                }
                // The user's own will is no trouble to report, however long it takes.
                Held::Ceiling(until) => sleep_until(until).await,
            }
        }
    }

    /// Like [`Limiter::admit`], for a probe of `tokens`: it does not wait for a pause, follows no hint,
    /// and counts under the ceiling without waiting for it.
    ///
    /// # Errors
    /// [`Failure::RateLimited`] during a pause.
    pub async fn admit_probe(&self, tokens: u64) -> Result<SemaphorePermit<'_>, Failure> {
        let permit = self.permit().await?;
        let now = Instant::now();
        let mut state = self.state();
        if let Some(until) = state.paused_until.filter(|until| *until > now) {
            return Err(Failure::RateLimited { retry_after: until - now });
        }
        state.pace.spend(tokens, now);
        Ok(permit)
    }

    /// The provider refused a request, the `repeats`th in a row after the first: everyone pauses.
    /// `asked` is the wait it asks for. Returns the wait.
    pub fn pause(&self, asked: Option<Duration>, repeats: u32) -> Duration {
        let floor = FLOOR_FIRST.saturating_mul(2_u32.saturating_pow(repeats)).min(FLOOR_MAX);
        let wait = asked.unwrap_or(UNASKED).min(ASKED_MAX).max(floor);
        let until = Instant::now() + wait;
        let mut state = self.state();
        // A hint that came with the refusal says when the budget is full again; the wait says when
        // it has room for this request.
        (state.requests, state.tokens) = (None, None);
        state.paused_until = state.paused_until.max(Some(until));
        wait
    }

    /// Notes what an answer says is left. What it does not say stays as it is.
    pub fn note(&self, requests: Option<Budget>, tokens: Option<Budget>) {
        let now = Instant::now();
        let known = |budget: Budget| Known {
            remaining: budget.remaining,
            reset_at: now + budget.reset_after.min(HINT_MAX),
        };
        let mut state = self.state();
        state.requests = requests.map(known).or(state.requests);
        state.tokens = tokens.map(known).or(state.tokens);
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        // The semaphore is never closed; if it were, that would be the end of the service.
        self.permits.acquire().await.map_err(|_| Failure::Shutdown)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes one request of `tokens` from what is known to be left, or says when to ask again.
    fn spend(&mut self, tokens: u64, now: Instant) -> Result<(), Held> {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        // After its reset nothing is known of a budget until the next answer.
        self.requests = self.requests.filter(|known| known.reset_at > now);
        self.tokens = self.tokens.filter(|known| known.reset_at > now);
        let wait_for = |known: Option<Known>, needed: u64| {
            known.filter(|known| known.remaining < needed).map(|known| known.reset_at)
        };
        let until =
            self.paused_until.max(wait_for(self.requests, 1)).max(wait_for(self.tokens, tokens));
        if let Some(until) = until {
            return Err(Held::Provider(until));
        }
        if let Some(until) = self.pace.free_at().filter(|until| *until > now) {
            return Err(Held::Ceiling(until));
        }
        self.pace.spend(tokens, now);
        // Those that are let in before the next answer comes must not all count on the same rest.
        for (known, spent) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(known) = known {
                known.remaining -= spent;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
