//! Is all well? Facts in, a verdict out, with what to do about each thing that is not: the same for the
//! monitor, the API and the page.

mod findings;

use std::time::Duration;

use serde::Serialize;

/// How well it is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Nothing is to be done.
    Healthy,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl HealthState {
    /// As it is stored and told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthFinding {
    /// [`HealthState::Warning`] or [`HealthState::Critical`].
    pub state: HealthState,
    /// What, in a sentence.
    pub what: String,
    /// What to do about it.
    pub action: String,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// As bad as the worst finding.
    pub state: HealthState,
    /// The worst first; none where all is well.
    pub findings: Vec<HealthFinding>,
}

/// From where on a number or a time is a warning, and from where on critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits<T> {
    /// From here on a warning.
    pub warning: T,
    /// From here on critical.
    pub critical: T,
}

impl<T: PartialOrd> Limits<T> {
    fn state(&self, value: &T) -> HealthState {
        if *value >= self.critical {
            HealthState::Critical
        } else if *value >= self.warning {
            HealthState::Warning
        } else {
            HealthState::Healthy
        }
    }
}

/// What counts as unwell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Dead letters.
    pub dead_letters: Limits<u64>,
    /// Tasks that wait for a retry.
    pub retry_queue: Limits<u64>,
    /// Time in which nothing was completed although there was something to do.
    pub idle: Limits<Duration>,
}

impl Default for Thresholds {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(3_600 * hours);
        Self {
            dead_letters: Limits { warning: 1, critical: 21 },
            retry_queue: Limits { warning: 100, critical: 501 },
            idle: Limits { warning: hours(1), critical: hours(6) },
        }
    }
}

/// What the verdict is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HealthFacts {
    /// All dead letters.
    pub dead_letters: u64,
    /// Those of them that are not tried again by themselves.
    pub dead_letters_permanent: u64,
    /// Tasks that wait for a retry, due or not.
    pub retry_queue: u64,
    /// Tasks that could be worked on now.
    pub ready: u64,
    /// Since a recording was last completed; `None` where none ever was.
    pub since_completion: Option<Duration>,
    /// How long the oldest task that is ready or being worked on has been so; `None` where there is
    /// none. An empty queue is no fault, and neither is a task that has only just come.
    pub oldest_unfinished: Option<Duration>,
    /// Processes that are alive.
    pub workers: u64,
    /// Those of them that claim nothing for their provider's fault.
    pub provider_troubles: Vec<ProviderTrouble>,
    /// Those of them whose work waits for a right in the database.
    pub database_troubles: Vec<DatabaseTrouble>,
    /// What an administrator stopped.
    pub pauses: Vec<PausedPart>,
}

/// A process claims nothing for its provider's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTrouble {
    /// Where the process runs.
    pub host: String,
    /// What the provider said.
    pub message: String,
    /// Until it is asked again.
    pub asked_in: Duration,
}

/// A process waits for a right in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseTrouble {
    /// Where the process runs.
    pub host: String,
    /// What the database said.
    pub message: String,
}

/// A part that an administrator stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedPart {
    /// Its name.
    pub part: &'static str,
    /// For how long.
    pub paused_for: Duration,
    /// Who did it.
    pub by: String,
}

/// The verdict over the facts.
pub fn judge(facts: &HealthFacts, thresholds: &Thresholds) -> Health {
    let mut findings = findings::all(facts, thresholds);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.state));
    let state = findings.first().map_or(HealthState::Healthy, |finding| finding.state);
    Health { state, findings }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
