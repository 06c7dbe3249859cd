//! How far a recording is, and whether it moves: told by the attempt, read by the Supervisor, which
//! ends one that hangs, and by whoever watches the tree.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Moved by the attempt, read from outside. One for all incarnations of a Recording.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

#[derive(Debug)]
struct State {
    moved_at: Instant,
    suspended: u32,
    title: Option<String>,
    chunks: Option<ChunkProgress>,
    /// What the incarnation before had stored when it crashed, as far as it knew.
    stored_at_crash: Option<u32>,
    /// Of all incarnations; what an earlier attempt left is not in it.
    chunks_stored: u64,
}

/// How many chunks of a recording are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkProgress {
    /// Chunks of the recording.
    pub total: u32,
    /// Stored by now.
    pub stored: u32,
    /// Stored before this incarnation began: what it need not buy.
    pub kept: u32,
}

/// While one lives, standing still is no stall.
pub(super) struct Suspended<'a>(&'a Progress);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            moved_at: Instant::now(),
            suspended: 0,
            title: None,
            chunks: None,
            stored_at_crash: None,
            chunks_stored: 0,
        }))
    }

    /// Something got done.
    pub(super) fn moved(&self) {
        self.with(|state| state.moved_at = Instant::now());
    }

    /// The transcript is cut, and it is known how many of its chunks are there already.
    pub(super) fn opened(&self, title: Option<&str>, total: u32, stored: u32) {
        self.with(|state| {
            if let Some(before) = state.stored_at_crash.take() {
                // What the Writer still stored for the incarnation that crashed.
                state.chunks_stored += u64::from(stored.saturating_sub(before));
            }
            state.title = title.map(str::to_owned);
            state.chunks = Some(ChunkProgress { total, stored, kept: stored });
        });
    }

    /// A new incarnation begins, which does not know yet what is stored.
    pub(super) fn restarted(&self) {
        self.with(|state| {
            if let Some(chunks) = state.chunks.take() {
                state.stored_at_crash = Some(chunks.stored);
            }
        });
    }

    /// Rows of this incarnation were stored.
    pub(super) fn stored(&self, rows: u32) {
        self.with(|state| {
            state.chunks_stored += u64::from(rows);
            if let Some(chunks) = &mut state.chunks {
                chunks.stored += rows;
            }
        });
    }

    /// Title of the call, and its chunks; `None` until they are known.
    pub(super) fn look(&self) -> (Option<String>, Option<ChunkProgress>) {
        self.with(|state| (state.title.clone(), state.chunks))
    }

    /// Chunks that the incarnations so far stored.
    pub(super) fn chunks_stored(&self) -> u64 {
        self.with(|state| state.chunks_stored)
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
        // A panic while the lock is held leaves plain values: still good.
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
