//! Whether the provider may be called: closed, or open with one probe at a time let through. It
//! says how long to wait; the caller keeps the clock.

use std::collections::HashSet;
use std::time::Duration;

use super::failure::{Failure, Fault};
use super::recording::RecordingKey;

/// Different recordings in a row that must fail before the provider is blamed although it answers
/// probes.
const RECORDINGS_TO_OPEN: usize = 3;
/// First time open; doubled after each failed probe up to [`OPEN_MAX`].
const OPEN_FIRST: Duration = Duration::from_secs(5);
/// The longest time between two probes.
const OPEN_MAX: Duration = Duration::from_secs(300);

/// Why nothing is sent to the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The failure that opened it.
    pub failure: Failure,
    /// Time until the next probe.
    pub probe_after: Duration,
}

impl Open {
    /// Waiting does not help: a person must change the key, the model or the quota.
    pub fn needs_a_person(&self) -> bool {
        matches!(self.failure, Failure::KeyRefused { .. } | Failure::QuotaExhausted { .. })
    }
}

/// The breaker between this process and the provider.
#[derive(Debug, Default)]
pub struct Circuit {
    open: Option<Open>,
    failing: HashSet<RecordingKey>,
}

impl Circuit {
    /// Why it is open, or `None` where requests may be sent.
    pub fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// An attempt on `key` failed. True where this opens the circuit: at once for a failure that is
    /// the provider's (the Recording has seen a probe fail too), and when different recordings in a
    /// row fail although probes pass, since that many are not all to blame.
    pub fn failed(&mut self, key: &RecordingKey, failure: &Failure) -> bool {
        if self.open.is_some() {
            return false;
        }
        let opens = match failure {
            Failure::ProviderRejectsItem { .. } => {
                self.failing.insert(key.clone());
                self.failing.len() >= RECORDINGS_TO_OPEN
            }
            failure => failure.fault() == Fault::Provider,
        };
        if opens {
            let probe_after = match failure {
                Failure::RateLimited { retry_after } => (*retry_after).max(OPEN_FIRST),
                _ => OPEN_FIRST,
            };
            self.open = Some(Open { failure: failure.clone(), probe_after });
        }
        opens
    }

    /// A request succeeded: closed, and nobody is suspected.
    pub fn succeeded(&mut self) {
        self.open = None;
        self.failing.clear();
    }

    /// The probe failed: stays open, and waits twice as long.
    pub fn probe_failed(&mut self, failure: Failure) {
        if let Some(open) = &mut self.open {
            open.failure = failure;
            open.probe_after = (open.probe_after * 2).min(OPEN_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(recording_id: i64) -> RecordingKey {
        RecordingKey { user_id: "u".into(), recording_id }
    }

    fn unavailable() -> Failure {
        Failure::ProviderUnavailable { message: "503".into() }
    }

    fn rejected() -> Failure {
        Failure::ProviderRejectsItem { message: "500".into() }
    }

    #[test]
    fn one_recording_failing_often_does_not_open_it_and_three_different_ones_do() {
        let mut circuit = Circuit::default();
        for _ in 0..10 {
            assert!(!circuit.failed(&key(1), &rejected()));
        }
        assert!(!circuit.failed(&key(2), &rejected()));
        assert!(circuit.failed(&key(3), &rejected()));
        assert!(circuit.open().is_some());
    }

    #[test]
    fn a_success_in_between_clears_the_suspicion() {
        let mut circuit = Circuit::default();
        circuit.failed(&key(1), &rejected());
        circuit.failed(&key(2), &rejected());
        circuit.succeeded();
        assert!(!circuit.failed(&key(3), &rejected()));
    }

    #[test]
    fn a_recordings_own_failure_never_opens_it() {
        let mut circuit = Circuit::default();
        for recording_id in 0..10 {
            assert!(!circuit.failed(&key(recording_id), &Failure::Panicked));
        }
    }

    #[test]
    fn a_refused_key_opens_it_at_once_and_needs_a_person() {
        let mut circuit = Circuit::default();
        assert!(circuit.failed(&key(1), &Failure::KeyRefused { message: "401".into() }));
        assert!(circuit.open().is_some_and(Open::needs_a_person));
    }

    #[test]
    fn failed_probes_double_the_wait_up_to_a_bound() {
        let mut circuit = Circuit::default();
        circuit.failed(&key(1), &unavailable());
        let mut last = OPEN_FIRST;
        for _ in 0..12 {
            circuit.probe_failed(unavailable());
            let wait = circuit.open().map(|open| open.probe_after).unwrap_or_default();
            assert_eq!(wait, (last * 2).min(OPEN_MAX));
            last = wait;
        }
    }
}
