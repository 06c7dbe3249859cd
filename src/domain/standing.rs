//! Why a recording is where it is, in a sentence, and the command that would move it.

use std::time::Duration;

use super::span::told;
use super::task::TaskState;

/// What is known of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct StandingFacts {
    /// Its number.
    pub recording_id: i64,
    /// Its owner, where others too hold a recording of this number.
    pub user_id: Option<String>,
    /// False where it was deleted.
    pub is_stored: bool,
    /// Segments of its transcript, empty and deleted ones too.
    pub segments: u64,
    /// Search sees chunks of it, or there is nothing in it to be seen.
    pub is_current: bool,
    /// Its newest task; `None` where it was never queued.
    pub task: Option<TaskFacts>,
    /// Processes that are alive.
    pub workers: u64,
    /// Why none of them claims anything: the provider's fault, as one of them tells it.
    pub provider_trouble: Option<String>,
    /// Who paused the main part.
    pub main_paused_by: Option<String>,
    /// Who paused recovery.
    pub recovery_paused_by: Option<String>,
}

/// What is known of its newest task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskFacts {
    /// Where it is.
    pub state: TaskState,
    /// Attempts used.
    pub attempts: u32,
    /// Attempts it is given.
    pub max_attempts: u32,
    /// A dead letter that is not tried again by itself.
    pub is_permanent: bool,
    /// A worker died over it: it is claimed by a worker that has nothing else in flight.
    pub is_suspect: bool,
    /// Until it is tried again, zero where that time has come; `None` where none is set.
    pub due_in: Option<Duration>,
    /// Until its lease ends, zero where it is over; `None` where nobody holds it.
    pub lease_ends_in: Option<Duration>,
    /// Tasks that are claimed before it.
    pub ahead: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it waits for, in a sentence.
    pub waits_for: String,
    /// The command that would move it, where one would.
    pub way_out: Option<String>,
}

/// Why the recording is where it is.
pub fn standing(facts: &StandingFacts) -> Standing {
    let recording = recording_argument(facts.recording_id, facts.user_id.as_deref());
    let recover = format!("embedding-recovery recover {recording}");
    let enqueue = format!("embedding-recovery enqueue --recording {recording}");
    let Some(task) = &facts.task else {
        return match facts.segments {
            _ if facts.is_current => because("nothing: it is searchable", None),
            0 => because("its transcript: it has no segments, so it was never queued", None),
            _ => because("a request: it was never queued", Some(enqueue)),
        };
    };
    match task.state {
        TaskState::Pending | TaskState::Failed => match task.due_in.filter(|due| !due.is_zero()) {
            Some(due) => because(
                format!(
                    "its retry, in {}; {} of {} attempts are used",
                    told(due),
                    task.attempts,
                    task.max_attempts
                ),
                Some(format!("{recover} --force")),
            ),
            None => ready(facts, task),
        },
        TaskState::Processing => match task.lease_ends_in.filter(|left| !left.is_zero()) {
            Some(left) => because(
                format!(
                    "nothing: it is being worked on; the lease holds for {} unless it is renewed",
                    told(left)
                ),
                None,
            ),
            None => because(
                "the sweep: its lease is over, so its worker died or lost the database. Any live \
                 worker takes it up at its next tick",
                (facts.workers == 0).then(|| "embedding-recovery serve".into()),
            ),
        },
        TaskState::Completed if facts.is_current => {
            because("nothing: it is completed and searchable", None)
        }
        TaskState::Completed => {
            because("a request: it was completed, but search does not see it now", Some(enqueue))
        }
        TaskState::DeadLetter if !facts.is_stored => because(
            "a person: the recording was deleted",
            Some(format!("embedding-recovery discard {recording} --reason deleted")),
        ),
        TaskState::DeadLetter => dead(facts, task, recover),
    }
}

/// A recording as commands take it: its number, and its owner where that does not say enough.
pub fn recording_argument(recording_id: i64, user_id: Option<&str>) -> String {
    match user_id {
        Some(user_id) => format!("{recording_id} --user '{}'", user_id.replace('\'', r"'\''")),
        None => recording_id.to_string(),
    }
}

fn ready(facts: &StandingFacts, task: &TaskFacts) -> Standing {
    if let Some(by) = &facts.main_paused_by {
        return paused("main", by);
    }
    if facts.workers == 0 {
        let serve = "embedding-recovery serve".to_owned();
        return because("a worker: none is alive", Some(serve));
    }
    if let Some(trouble) = &facts.provider_trouble {
        let doctor = "embedding-recovery doctor".to_owned();
        return because(
            format!("the provider: no worker claims anything, since {trouble}"),
            Some(doctor),
        );
    }
    if task.is_suspect {
        let why = "a worker that has nothing else in flight, since one died over it";
        return because(why, None);
    }
    let before = match task.ahead {
        0 => "it is the next".to_owned(),
        1 => "1 task is claimed before it".to_owned(),
        ahead => format!("{ahead} tasks are claimed before it"),
    };
    let recording = recording_argument(facts.recording_id, facts.user_id.as_deref());
    let first = format!("embedding-recovery enqueue --recording {recording} --priority 1000");
    because(format!("a free worker: {before}"), (task.ahead > 0).then_some(first))
}

/// A permanent reason must be mended first, so the command has to be meant.
fn dead(facts: &StandingFacts, task: &TaskFacts, recover: String) -> Standing {
    if let (false, Some(by)) = (task.is_permanent, &facts.recovery_paused_by) {
        return paused("recovery", by);
    }
    match (task.is_permanent, task.due_in) {
        (false, Some(due)) if due.is_zero() => {
            because("the next run of recovery, which takes it", Some(recover))
        }
        (false, Some(due)) => {
            because(format!("recovery, which tries it again in {}", told(due)), Some(recover))
        }
        (false, None) => because("the next run of recovery", Some(recover)),
        (true, _) => because(
            "a person: trying again by itself would not help",
            Some(format!("{recover} --force")),
        ),
    }
}

fn paused(part: &str, by: &str) -> Standing {
    let resume = format!("embedding-recovery resume {part}");
    because(format!("the end of the pause of {part} by {by}"), Some(resume))
}

fn because(waits_for: impl Into<String>, way_out: Option<String>) -> Standing {
    Standing { waits_for: waits_for.into(), way_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(state: TaskState) -> StandingFacts {
        StandingFacts {
            recording_id: 7,
            user_id: None,
            is_stored: true,
            segments: 3,
            is_current: false,
            task: Some(TaskFacts {
                state,
                attempts: 2,
                max_attempts: 4,
                is_permanent: false,
                is_suspect: false,
                due_in: None,
                lease_ends_in: None,
                ahead: 3,
            }),
            workers: 1,
            provider_trouble: None,
            main_paused_by: None,
            recovery_paused_by: None,
        }
    }

    fn told_of(facts: StandingFacts, change: impl FnOnce(&mut TaskFacts)) -> (String, String) {
        let mut facts = facts;
        if let Some(task) = &mut facts.task {
            change(task);
        }
        let Standing { waits_for, way_out } = standing(&facts);
        (waits_for, way_out.unwrap_or_default())
    }

    #[test]
    fn every_state_says_what_it_waits_for_and_the_command_that_moves_it() {
        let minute = Duration::from_secs(60);
        let of = |state, change: fn(&mut TaskFacts)| told_of(facts(state), change);
        let (pending, command) = of(TaskState::Pending, |_| {});
        assert_eq!(pending, "a free worker: 3 tasks are claimed before it");
        assert!(command.ends_with("enqueue --recording 7 --priority 1000"), "{command}");
        let (failed, command) =
            of(TaskState::Failed, |task| task.due_in = Some(Duration::from_secs(90)));
        assert_eq!(failed, "its retry, in 1 min; 2 of 4 attempts are used");
        assert_eq!(command, "embedding-recovery recover 7 --force");
        let (held, command) =
            told_of(facts(TaskState::Processing), |task| task.lease_ends_in = Some(minute));
        assert_eq!((held.contains("being worked on"), command.as_str()), (true, ""));
        let (over, _) = of(TaskState::Processing, |task| task.lease_ends_in = Some(Duration::ZERO));
        assert!(over.starts_with("the sweep"), "{over}");
        let (dead, command) = of(TaskState::DeadLetter, |task| task.is_permanent = true);
        assert!(dead.starts_with("a person"), "{dead}");
        assert_eq!(command, "embedding-recovery recover 7 --force");
        let (dead, command) =
            told_of(facts(TaskState::DeadLetter), |task| task.due_in = Some(minute));
        assert_eq!(dead, "recovery, which tries it again in 1 min");
        assert_eq!(command, "embedding-recovery recover 7");
        let (lost, command) = of(TaskState::Completed, |_| {});
        assert!(lost.contains("search does not see it"), "{lost}");
        assert_eq!(command, "embedding-recovery enqueue --recording 7");
    }

    #[test]
    fn a_dead_letter_of_a_deleted_recording_is_to_be_discarded_and_a_shared_number_names_its_owner()
    {
        let deleted = StandingFacts {
            is_stored: false,
            user_id: Some("o'neil".into()),
            ..facts(TaskState::DeadLetter)
        };
        let discard = r"embedding-recovery discard 7 --user 'o'\''neil' --reason deleted";
        assert_eq!(
            told_of(deleted, |task| task.is_permanent = true),
            ("a person: the recording was deleted".into(), discard.into())
        );
    }

    #[test]
    fn what_is_ready_waits_for_a_pause_or_a_worker_first() {
        let paused = |state| StandingFacts {
            main_paused_by: Some("ann".into()),
            recovery_paused_by: Some("bob".into()),
            ..facts(state)
        };
        assert_eq!(
            told_of(paused(TaskState::Pending), |_| {}),
            ("the end of the pause of main by ann".into(), "embedding-recovery resume main".into())
        );
        assert_eq!(
            told_of(paused(TaskState::DeadLetter), |_| {}).1,
            "embedding-recovery resume recovery"
        );
        let refused = StandingFacts {
            provider_trouble: Some("it refuses the key".into()),
            ..facts(TaskState::Pending)
        };
        assert_eq!(
            told_of(refused, |_| {}),
            (
                "the provider: no worker claims anything, since it refuses the key".into(),
                "embedding-recovery doctor".into()
            )
        );
        let alone = StandingFacts { workers: 0, ..facts(TaskState::Pending) };
        assert_eq!(told_of(alone, |_| {}).1, "embedding-recovery serve");
        let suspect = told_of(facts(TaskState::Pending), |task| task.is_suspect = true);
        assert!(suspect.0.contains("nothing else in flight"), "{suspect:?}");
    }

    #[test]
    fn a_recording_that_was_never_queued_says_why() {
        let never = StandingFacts { task: None, ..facts(TaskState::Pending) };
        assert!(standing(&never).waits_for.starts_with("a request"));
        let empty = StandingFacts { segments: 0, ..never };
        assert!(standing(&empty).waits_for.starts_with("its transcript"));
    }
}
