//! How many tasks are in which state.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::task::TaskState;

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskCounts {
    /// Ready now.
    pub pending: u64,
    /// Leased.
    pub processing: u64,
    /// Done.
    pub completed: u64,
    /// Waiting for a retry.
    pub failed: u64,
    /// Given up.
    pub dead_letter: u64,
}

impl TaskCounts {
    /// Tasks that are neither completed nor dead.
    pub fn open(&self) -> u64 {
        self.pending + self.processing + self.failed
    }

    /// Each state and its tasks.
    pub fn by_state(&self) -> [(TaskState, u64); 5] {
        TaskState::ALL.map(|state| {
            let tasks = match state {
                TaskState::Pending => self.pending,
                TaskState::Processing => self.processing,
                TaskState::Completed => self.completed,
                TaskState::Failed => self.failed,
                TaskState::DeadLetter => self.dead_letter,
            };
            (state, tasks)
        })
    }
}
