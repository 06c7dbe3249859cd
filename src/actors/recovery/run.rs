//! What the Recovery actor remembers of the run that it is in, and when that is over. Nothing here
//! waits for anything.

use std::collections::HashSet;

use uuid::Uuid;

use crate::ports::{RecoveryRun, RunCause, RunResult};

/// Recordings of one run; while more are due, another begins.
const RECORDINGS_MAX: u32 = 5;
/// Where this many fail alike before any succeeds, the others would too.
const CANARIES: u32 = 3;

/// How a recovery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecoveryEnding {
    /// Everything is embedded.
    Completed,
    /// It failed, of its own fault or for a reason that stays.
    Failed {
        /// Names failures that are alike.
        fingerprint: String,
    },
    /// By somebody else's fault, by a stop of the service or by a change of the transcript.
    Interrupted,
}

/// A run under way.
pub(super) struct Run {
    pub(super) row: RecoveryRun,
    result: RunResult,
    /// Its leases that are not settled yet.
    in_flight: HashSet<Uuid>,
    /// Nothing more was to be claimed.
    exhausted: bool,
    /// The fingerprint of its first failures.
    canary: Option<String>,
    /// All failures so far have it.
    alike: bool,
}

impl Run {
    pub(super) fn new(row: RecoveryRun) -> Self {
        Self {
            row,
            result: RunResult::default(),
            in_flight: HashSet::new(),
            exhausted: false,
            canary: None,
            alike: true,
        }
    }

    /// How many more it may claim now, where `free` slots are.
    pub(super) fn wants(&self, free: u32) -> u32 {
        if self.exhausted || self.result.stopped_because.is_some() {
            return 0;
        }
        let ended = self.result.completed + self.result.failed;
        // Nobody beyond the canaries begins before these have ended.
        let most = if ended < CANARIES { CANARIES } else { RECORDINGS_MAX };
        free.min(most.saturating_sub(self.result.taken))
    }

    /// These were claimed, where `asked` were wanted.
    pub(super) fn claimed(&mut self, tokens: impl IntoIterator<Item = Uuid>, asked: u32) {
        let before = self.in_flight.len();
        self.in_flight.extend(tokens);
        let claimed = (self.in_flight.len() - before) as u32;
        self.result.taken += claimed;
        self.exhausted = claimed < asked;
    }

    /// A recovery of this run ended.
    pub(super) fn ended(&mut self, token: Uuid, ending: RecoveryEnding) {
        if !self.in_flight.remove(&token) {
            return;
        }
        match ending {
            RecoveryEnding::Completed => self.result.completed += 1,
            RecoveryEnding::Interrupted => {}
            RecoveryEnding::Failed { fingerprint } => {
                self.result.failed += 1;
                let first = self.canary.get_or_insert_with(|| fingerprint.clone());
                self.alike &= *first == fingerprint;
                if self.failed_alike().is_some() {
                    let reason = format!("the first {CANARIES} failed alike: {fingerprint}");
                    self.result.stopped_because = Some(reason);
                }
            }
        }
    }

    /// The service stops.
    pub(super) fn stop(&mut self, reason: &str) {
        self.result.stopped_because.get_or_insert_with(|| reason.into());
    }

    /// The fingerprint of its failures, where it was stopped because all of them have it.
    pub(super) fn failed_alike(&self) -> Option<&str> {
        let alike = self.alike && self.result.failed == CANARIES && self.result.completed == 0;
        self.canary.as_deref().filter(|_| alike)
    }

    /// Nothing is in flight and nothing more will be claimed, where slots are free.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight.is_empty() && self.wants(1) == 0
    }

    /// It claimed nothing at all.
    pub(super) fn was_empty(&self) -> bool {
        self.result.taken == 0
    }

    /// Another run may follow: this one helped. Of what was asked for, everything is tried.
    pub(super) fn calls_for_another(&self) -> bool {
        let helped = self.result.completed > 0 || self.row.cause == RunCause::Request;
        self.result.stopped_because.is_none() && self.result.taken > 0 && helped
    }

    /// What is kept of it.
    pub(super) fn result(&self) -> &RunResult {
        &self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cause: RunCause) -> Run {
        Run::new(RecoveryRun { id: Uuid::nil(), cause })
    }

    fn take(run: &mut Run, number: u128) -> Uuid {
        let token = Uuid::from_u128(number);
        run.claimed([token], 1);
        token
    }

    fn failed(fingerprint: &str) -> RecoveryEnding {
        RecoveryEnding::Failed { fingerprint: fingerprint.into() }
    }

    #[test]
    fn a_run_takes_five_and_calls_for_another_only_where_it_helped() {
        for (helps, another) in [(true, true), (false, false)] {
            let mut run = run(RunCause::Schedule);
            for number in 1..=5 {
                assert_eq!(run.wants(1), 1);
                let token = take(&mut run, number);
                let last = helps && number == 5;
                let ending =
                    if last { RecoveryEnding::Completed } else { failed(&number.to_string()) };
                run.ended(token, ending);
            }
            assert!(run.is_over());
            assert_eq!((run.calls_for_another(), run.failed_alike()), (another, None));
        }
    }

    #[test]
    fn three_that_fail_alike_stop_it_and_nobody_begins_before_they_ended() {
        let mut run = run(RunCause::Request);
        assert_eq!(run.wants(10), 3);
        let tokens: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        run.claimed(tokens.clone(), 3);
        assert_eq!(run.wants(7), 0);
        for token in tokens {
            run.ended(token, failed("same"));
        }
        let reason = run.result().stopped_because.as_deref();
        assert_eq!(reason, Some("the first 3 failed alike: same"));
        assert!(run.is_over() && !run.calls_for_another());
    }

    #[test]
    fn three_that_fail_in_different_ways_or_beside_a_success_do_not() {
        for endings in [
            [failed("a"), failed("b"), failed("a")],
            [failed("a"), RecoveryEnding::Completed, failed("a")],
            [failed("a"), RecoveryEnding::Interrupted, failed("a")],
        ] {
            let mut run = run(RunCause::Schedule);
            for (ending, number) in endings.into_iter().zip(1..) {
                let token = take(&mut run, number);
                run.ended(token, ending);
            }
            assert_eq!(run.failed_alike(), None);
            assert_eq!(run.result().stopped_because, None);
        }
    }
}
