//! What the tree is doing, for whoever watches it: the command line, a shutdown, a test.

use std::sync::Arc;

use super::progress::{ChunkProgress, Progress};
use crate::domain::circuit::Open;
use crate::domain::recording::RecordingKey;

/// What the tree is doing. Published when something begins, ends or changes; how far a recording is
/// changes with each request and is looked at through [`InFlight`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Recordings being worked on, in no order.
    pub recordings: Vec<InFlight>,
    /// Endings that are not stored yet.
    pub unsettled: usize,
    /// Why the provider is not called.
    pub circuit: Option<Open>,
    /// Told to stop: nothing more will be claimed.
    pub drained: bool,
    /// The tree failed too often to go on.
    pub gave_up: Option<String>,
    /// Recordings that this tree completed.
    pub completed: u64,
    /// Recordings that crashed and were restarted in place.
    pub restarts: u64,
    pub(super) chunks_of_ended: u64,
}

impl Status {
    /// Nothing is in flight and everything is stored.
    pub fn is_idle(&self) -> bool {
        self.recordings.is_empty() && self.unsettled == 0
    }

    /// Chunks that this tree has stored by now, those of attempts that failed later included.
    pub fn chunks_stored(&self) -> u64 {
        let in_flight = self.recordings.iter().map(|recording| recording.progress.chunks_stored());
        self.chunks_of_ended + in_flight.sum::<u64>()
    }
}

/// A recording in flight, with a live view of its progress: looking at it costs the tree nothing.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// Its name.
    pub key: RecordingKey,
    /// How often its actor crashed and was restarted under this attempt.
    pub restarts: u32,
    pub(super) progress: Arc<Progress>,
}

impl InFlight {
    /// How many of its chunks are stored; `None` until an actor knows, and again after a restart.
    pub fn chunks(&self) -> Option<ChunkProgress> {
        self.progress.look().1
    }

    /// Title of the call, once it is loaded, where it has one.
    pub fn title(&self) -> Option<String> {
        self.progress.look().0
    }
}

impl PartialEq for InFlight {
    /// The same attempt in the same incarnation, however far it is.
    fn eq(&self, other: &Self) -> bool {
        self.restarts == other.restarts && Arc::ptr_eq(&self.progress, &other.progress)
    }
}
