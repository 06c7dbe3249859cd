//! A task's states, its lease, and the one place that decides what becomes of it after an attempt.

use std::time::Duration;

use uuid::Uuid;

use super::failure::{Failure, Fault};
use super::part::Part;
use super::recording::RecordingKey;
use super::retry::{RecoveryPolicy, RetryPolicy};
use super::trace::Origins;

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
    /// Who claimed it, and by whose rules it is settled.
    pub part: Part,
    /// Recoveries of it that failed, in a row.
    pub recoveries: u32,
    /// Embed everything anew under a chunk set of this name, and copy nothing.
    pub afresh: Option<Uuid>,
    /// What its trace links to.
    pub origins: Origins,
    /// Time from when it was due to its claim; of one that was given back, from when it came.
    pub waited: Duration,
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
        /// Trying again cannot help: only a person brings it back. Else the next scheduled recovery
        /// takes it.
        permanent: bool,
    },
    /// `dead_letter` after a failed recovery, with this failure as its reason from now on.
    RecoverAgain {
        /// Wait before the next recovery.
        after: Duration,
    },
    /// What it was before its recovery, `dead_letter` but for one that was forced: it was interrupted
    /// by what is not its fault.
    Postpone {
        /// Wait before the next recovery.
        after: Duration,
        /// The interruption itself is counted ([`RELEASES_MAX`]).
        counted: bool,
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
pub const BLAMELESS_CLASSES: [&str; 9] = [
    "rate_limited",
    "quota_exhausted",
    "key_refused",
    "provider_unavailable",
    "bad_answer",
    "collision",
    "database_unavailable",
    "database_forbids",
    "shutdown",
];
/// A recovery that somebody else's fault interrupted is taken up again after this time.
pub const POSTPONED: Duration = Duration::from_secs(60);

/// How each part tries again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policies {
    /// Of the main part.
    pub retry: RetryPolicy,
    /// Of dead letters.
    pub recovery: RecoveryPolicy,
}

/// Decides what becomes of `task` after `failure`. `jitter` in 0..=1 stretches a retry's delay.
pub fn settle(task: &Task, failure: &Failure, policies: &Policies, jitter: f64) -> Settlement {
    let settlement = settle_in_main(task, failure, &policies.retry, jitter);
    match (task.part, settlement) {
        (Part::Main, settlement) => settlement,
        (Part::Recovery, Settlement::Release { counted }) => {
            let after = if counted { POSTPONED } else { Duration::ZERO };
            Settlement::Postpone { after, counted }
        }
        (Part::Recovery, Settlement::DeadLetter { permanent: true }) => {
            Settlement::DeadLetter { permanent: true }
        }
        (Part::Recovery, _) => {
            if waits_for_a_person(failure) {
                return Settlement::DeadLetter { permanent: true };
            }
            Settlement::RecoverAgain { after: policies.recovery.delay(task.recoveries, jitter) }
        }
    }
}

/// No recovery by itself can cure it: a transcript that did not come in all retries comes, if ever,
/// with a change of the recording, which brings the task back.
fn waits_for_a_person(failure: &Failure) -> bool {
    failure.fault() == Fault::ItemPermanent || *failure == Failure::TranscriptMissing
}

fn settle_in_main(task: &Task, failure: &Failure, policy: &RetryPolicy, jitter: f64) -> Settlement {
    match failure.fault() {
        Fault::ItemPermanent => Settlement::DeadLetter { permanent: true },
        Fault::Item => count_attempt(task, failure, policy, jitter),
        Fault::Provider | Fault::Database => match failure {
            // The Writer has already halved down to one row: this row is too slow by itself.
            Failure::StatementTimeout => count_attempt(task, failure, policy, jitter),
            _ if task.releases >= RELEASES_MAX => count_attempt(task, failure, policy, jitter),
            _ => Settlement::Release { counted: true },
        },
        Fault::Ours => match failure {
            Failure::Shutdown => Settlement::Release { counted: false },
            Failure::LeaseExpired if task.alone && task.crashes_alone + 1 >= CRASHES_ALONE_MAX => {
                Settlement::DeadLetter { permanent: true }
            }
            _ => count_attempt(task, failure, policy, jitter),
        },
    }
}

fn count_attempt(task: &Task, failure: &Failure, policy: &RetryPolicy, jitter: f64) -> Settlement {
    if task.attempts >= task.max_attempts {
        Settlement::DeadLetter { permanent: waits_for_a_person(failure) }
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
            part: Part::Main,
            recoveries: 0,
            afresh: None,
            origins: Origins::default(),
            waited: Duration::ZERO,
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
            Failure::DatabaseForbids { message: message.clone() },
            Failure::DatabaseRefuses { message },
            Failure::LeaseExpired,
            Failure::LeaseLost,
            Failure::Stalled { idle: Duration::from_secs(1) },
            Failure::Shutdown,
        ]
    }

    #[test]
    fn a_task_of_its_own_fault_gets_all_three_delays_and_then_is_dead() {
        let policy = Policies::default();
        let after = |attempts| settle(&task(attempts, 0), &Failure::Panicked, &policy, 0.0);
        for (attempts, secs) in [(1, 30), (2, 90), (3, 270)] {
            assert_eq!(after(attempts), Settlement::Retry { after: Duration::from_secs(secs) });
        }
        assert_eq!(after(4), Settlement::DeadLetter { permanent: false });
    }

    #[test]
    fn every_class_of_failure_is_listed_once() {
        let classes: Vec<&str> = failures().iter().map(Failure::class).collect();
        assert_eq!(classes, Failure::CLASSES);
    }

    #[test]
    fn nobody_is_blamed_for_the_provider_the_database_or_a_shutdown() {
        for failure in failures() {
            let uses_attempt = !matches!(
                settle(&task(1, 0), &failure, &Policies::default(), 0.0),
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
        let policy = Policies::default();
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

    #[test]
    fn a_recovery_never_retries_counts_only_its_own_faults_and_leaves_the_permanent_to_a_person() {
        let policies = Policies::default();
        for failure in failures() {
            let recovered = Task { part: Part::Recovery, recoveries: 1, ..task(4, 0) };
            let settlement = settle(&recovered, &failure, &policies, 0.0);
            let expected = match settle(&task(4, 0), &failure, &policies, 0.0) {
                Settlement::Release { counted: false } => {
                    Settlement::Postpone { after: Duration::ZERO, counted: false }
                }
                Settlement::Release { counted: true } => {
                    Settlement::Postpone { after: POSTPONED, counted: true }
                }
                Settlement::DeadLetter { permanent: true } => {
                    Settlement::DeadLetter { permanent: true }
                }
                _ => Settlement::RecoverAgain { after: Duration::from_secs(7_200) },
            };
            assert_eq!(settlement, expected, "{failure:?}");
        }
        let missing = settle(&task(4, 0), &Failure::TranscriptMissing, &policies, 0.0);
        assert_eq!(missing, Settlement::DeadLetter { permanent: true });
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
                match settle(&task, &all[*choice], &Policies::default(), 0.5) {
                    Settlement::Retry { .. } => prop_assert!(task.attempts < task.max_attempts),
                    Settlement::DeadLetter { .. } => return Ok(()),
                    Settlement::Release { counted } => {
                        task.attempts -= 1;
                        task.releases += u32::from(counted);
                    }
                    other => prop_assert!(false, "{other:?} in the main part"),
                }
                prop_assert!(rounds <= RELEASES_MAX + task.max_attempts, "went round {rounds} times");
            }
        }
    }
}
