//! A task's states, its lease, and the one place that decides what becomes of it after an attempt.

use std::time::Duration;

use uuid::Uuid;

use super::failure::{Failure, Fault};
use super::recording::RecordingKey;
use super::retry::RetryPolicy;

/// The states of a task, as stored in `embedding_queue.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Ready now.
    Pending,
    /// Leased.
    Processing,
    /// Everything is embedded.
    Completed,
    /// Waiting for its retry.
    Failed,
    /// Given up, with a reason.
    DeadLetter,
}

impl TaskState {
    /// All states, in the order in which reports list them.
    pub const ALL: [TaskState; 5] =
        [Self::Pending, Self::Processing, Self::Completed, Self::Failed, Self::DeadLetter];

    /// The word stored in the table; its check mirrors this.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// The right of one worker to work on one task until a time that the database keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Row of `embedding_queue`.
    pub task_id: Uuid,
    /// Row of `embedding_attempts`: every ending of this lease is written under it, once.
    pub attempt_id: Uuid,
    /// The fence: a write under any other token changes nothing.
    pub token: Uuid,
}

/// A leased task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The lease it is worked on under.
    pub lease: Lease,
    /// The recording to embed.
    pub key: RecordingKey,
    /// Attempts used, this one included.
    pub attempts: u32,
    /// Attempts it is given.
    pub max_attempts: u32,
    /// How often a worker died while it worked on this task alone.
    pub crashes_alone: u32,
    /// How often it was released for a fault that was not its own.
    pub releases: u32,
    /// Claimed with nothing else in flight, because a worker died over it before.
    pub alone: bool,
}

/// What becomes of a task after an attempt that did not complete it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// `failed`: tried again after this time. The attempt is used.
    Retry {
        /// Wait before the next attempt.
        after: Duration,
    },
    /// `dead_letter`, with the failure as its reason.
    DeadLetter {
        /// Trying again cannot help: only a person brings it back.
        permanent: bool,
    },
    /// `pending` again, and the attempt is not counted.
    Release {
        /// The release itself is counted ([`RELEASES_MAX`]).
        counted: bool,
    },
}

/// A task released more often than this for others' faults has an attempt counted after all:
/// nothing goes round for ever.
pub const RELEASES_MAX: u32 = 20;

/// A task over which this many workers died while it was alone is not tried again by itself.
pub const CRASHES_ALONE_MAX: u32 = 2;

/// Classes of failures ([`Failure::class`]) that are nobody's fault in the queue: [`settle`] gives the
/// task back, until it was given back too often.
pub const BLAMELESS_CLASSES: [&str; 8] = [
    "rate_limited",
    "quota_exhausted",
    "key_refused",
    "provider_unavailable",
    "bad_answer",
    "collision",
    "database_unavailable",
    "shutdown",
];

/// Decides what becomes of `task` after `failure`. `jitter` in 0..=1 stretches a retry's delay.
pub fn settle(task: &Task, failure: &Failure, policy: &RetryPolicy, jitter: f64) -> Settlement {
    match failure.fault() {
        Fault::ItemPermanent => Settlement::DeadLetter { permanent: true },
        Fault::Item => count_attempt(task, policy, jitter),
        Fault::Provider | Fault::Database => match failure {
            // The Writer has already halved down to one row: this row is too slow by itself.
            Failure::StatementTimeout => count_attempt(task, policy, jitter),
            _ if task.releases >= RELEASES_MAX => count_attempt(task, policy, jitter),
            _ => Settlement::Release { counted: true },
        },
        Fault::Ours => match failure {
            Failure::Shutdown => Settlement::Release { counted: false },
            Failure::LeaseExpired if task.alone && task.crashes_alone + 1 >= CRASHES_ALONE_MAX => {
                Settlement::DeadLetter { permanent: true }
            }
            _ => count_attempt(task, policy, jitter),
        },
    }
}

fn count_attempt(task: &Task, policy: &RetryPolicy, jitter: f64) -> Settlement {
    if task.attempts >= task.max_attempts {
        Settlement::DeadLetter { permanent: false }
    } else {
        Settlement::Retry { after: policy.delay(task.attempts, jitter) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task(attempts: u32, releases: u32) -> Task {
        Task {
            lease: Lease { task_id: Uuid::nil(), attempt_id: Uuid::nil(), token: Uuid::nil() },
            key: RecordingKey { user_id: "u".into(), recording_id: 1 },
            attempts,
            max_attempts: 4,
            crashes_alone: 0,
            releases,
            alone: false,
        }
    }

    fn failures() -> Vec<Failure> {
        let message = String::from("m");
        vec![
            Failure::RecordingDeleted,
            Failure::TranscriptMissing,
            Failure::TranscriptTooLarge { bytes: 2, bytes_max: 1 },
            Failure::ChunkRefused { chunk_index: 3, message: message.clone() },
            Failure::RequestRefused { message: message.clone() },
            Failure::ProviderRejectsItem { message: message.clone() },
            Failure::Panicked,
            Failure::Incomplete { stored: 1, expected: 2 },
            Failure::RateLimited { retry_after: Duration::from_secs(1) },
            Failure::QuotaExhausted { message: message.clone() },
            Failure::KeyRefused { message: message.clone() },
            Failure::ProviderUnavailable { message: message.clone() },
            Failure::BadAnswer { message: message.clone() },
            Failure::StatementTimeout,
            Failure::Collision,
            Failure::DatabaseUnavailable { message: message.clone() },
            Failure::DatabaseRefuses { message },
            Failure::LeaseExpired,
            Failure::LeaseLost,
            Failure::Stalled { idle: Duration::from_secs(1) },
            Failure::Shutdown,
        ]
    }

    #[test]
    fn a_task_of_its_own_fault_gets_all_three_delays_and_then_is_dead() {
        let policy = RetryPolicy::default();
        let after = |attempts| settle(&task(attempts, 0), &Failure::Panicked, &policy, 0.0);
        for (attempts, secs) in [(1, 30), (2, 90), (3, 270)] {
            assert_eq!(after(attempts), Settlement::Retry { after: Duration::from_secs(secs) });
        }
        assert_eq!(after(4), Settlement::DeadLetter { permanent: false });
    }

    #[test]
    fn nobody_is_blamed_for_the_provider_the_database_or_a_shutdown() {
        for failure in failures() {
            let uses_attempt = !matches!(
                settle(&task(1, 0), &failure, &RetryPolicy::default(), 0.0),
                Settlement::Release { .. }
            );
            let innocent = matches!(failure.fault(), Fault::Provider | Fault::Database)
                && failure != Failure::StatementTimeout
                || failure == Failure::Shutdown;
            assert_eq!(uses_attempt, !innocent, "{failure:?}");
            assert_eq!(BLAMELESS_CLASSES.contains(&failure.class()), innocent, "{failure:?}");
        }
    }

    #[test]
    fn only_crashes_while_alone_make_a_crash_permanent() {
        let policy = RetryPolicy::default();
        let mut crashed = task(2, 0);
        crashed.crashes_alone = 1;
        assert!(matches!(
            settle(&crashed, &Failure::LeaseExpired, &policy, 0.0),
            Settlement::Retry { .. }
        ));
        crashed.alone = true;
        assert_eq!(
            settle(&crashed, &Failure::LeaseExpired, &policy, 0.0),
            Settlement::DeadLetter { permanent: true }
        );
    }

    proptest! {
        /// Applies the settlements as the store does: whatever fails, the task dies in bounded rounds.
        #[test]
        fn every_task_ends_in_bounded_attempts(choices in prop::collection::vec(0usize..21, 200)) {
            let all = failures();
            let mut task = task(0, 0);
            let mut rounds = 0;
            for choice in choices.iter().filter(|choice| all[**choice] != Failure::Shutdown) {
                rounds += 1;
                task.attempts += 1;
                match settle(&task, &all[*choice], &RetryPolicy::default(), 0.5) {
                    Settlement::Retry { .. } => prop_assert!(task.attempts < task.max_attempts),
                    Settlement::DeadLetter { .. } => return Ok(()),
                    Settlement::Release { counted } => {
                        task.attempts -= 1;
                        task.releases += u32::from(counted);
                    }
                }
                prop_assert!(rounds <= RELEASES_MAX + task.max_attempts, "went round {rounds} times");
            }
        }
    }
}
