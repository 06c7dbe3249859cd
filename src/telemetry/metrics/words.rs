//! The words in which call sites say what they measured.

use opentelemetry::KeyValue;

use super::names::LANE;
use crate::domain::part::Part;
use crate::domain::task::Settlement;

/// How an attempt ended, in the words of `embedding_recovery.attempts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is embedded.
    Completed,
    /// The transcript changed meanwhile.
    Superseded,
    /// It failed, and is tried again.
    Retried,
    /// It failed, and its task is a dead letter: a new one, or as before its recovery.
    DeadLettered,
    /// It was interrupted, and uses no attempt.
    Released,
    /// Somebody else held the lease, or had settled it.
    Lost,
}

impl Outcome {
    /// The word for it, in metrics and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Superseded => "superseded",
            Outcome::Retried => "retried",
            Outcome::DeadLettered => "dead_lettered",
            Outcome::Released => "released",
            Outcome::Lost => "lost",
        }
    }
}

impl Outcome {
    /// How an attempt of a part that fails usually ends: nobody tries a recovery again before its time.
    pub(super) fn of_failures(part: Part) -> &'static [Self] {
        match part {
            Part::Main => &[Self::Retried, Self::DeadLettered, Self::Released],
            Part::Recovery => &[Self::DeadLettered, Self::Released],
        }
    }
}

impl From<&Settlement> for Outcome {
    fn from(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Retry { .. } => Outcome::Retried,
            Settlement::DeadLetter { .. } | Settlement::RecoverAgain { .. } => {
                Outcome::DeadLettered
            }
            Settlement::Postpone { .. } | Settlement::Release { .. } => Outcome::Released,
        }
    }
}

/// A lane of the Writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Of ordinary recordings.
    Quick,
    /// Of marathons.
    Patient,
    /// Of dead letters, patient too.
    Recovery,
}

impl Lane {
    /// All of them, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Quick, Lane::Patient, Lane::Recovery];

    pub(super) fn attribute(self) -> KeyValue {
        let word = match self {
            Lane::Quick => "quick",
            Lane::Patient => "patient",
            Lane::Recovery => "recovery",
        };
        KeyValue::new(LANE, word)
    }
}
