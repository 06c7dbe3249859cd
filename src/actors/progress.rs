//! Whether a recording moves: what the Supervisor looks at to end one that hangs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Moved by the attempt, read by the Supervisor.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    moved_at: Instant,
    suspended: u32,
}

/// While one lives, standing still is no stall.
pub(super) struct Suspended<'a>(&'a Progress);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { moved_at: Instant::now(), suspended: 0 }))
    }

    /// Something got done.
    pub(super) fn moved(&self) {
        self.with(|state| state.moved_at = Instant::now());
    }

    /// For a wait that has a bound of its own: the provider's limit and its time-outs.
    pub(super) fn suspend(&self) -> Suspended<'_> {
        self.with(|state| state.suspended += 1);
        Suspended(self)
    }

    /// How long nothing moved.
    pub(super) fn idle(&self) -> Duration {
        self.with(|state| match state.suspended {
            0 => state.moved_at.elapsed(),
            _ => Duration::ZERO,
        })
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        // A panic while the lock is held leaves two plain values: still good.
        action(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.suspended -= 1;
            state.moved_at = Instant::now();
        });
    }
}
