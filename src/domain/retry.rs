//! When a failed task is tried again.

use std::time::Duration;

/// Delays before the retries, and how far chance may stretch one.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    delays: Vec<Duration>,
}

/// A delay is stretched by up to this share of itself, so that tasks that failed together do not
/// come back together.
pub const JITTER_SHARE: f64 = 0.1;

impl RetryPolicy {
    /// One retry after each delay; none with an empty list.
    pub fn new(delays: Vec<Duration>) -> Self {
        Self { delays }
    }

    /// Attempts a task is given by default: the first and one for each delay.
    pub fn max_attempts(&self) -> u32 {
        self.delays.len() as u32 + 1
    }

    /// The wait after the `attempts`th attempt failed (from 1), stretched by `jitter` in 0..=1.
    /// A task that is given more attempts than there are delays waits the last one each time.
    pub fn delay(&self, attempts: u32, jitter: f64) -> Duration {
        let index = (attempts.max(1) as usize - 1).min(self.delays.len().saturating_sub(1));
        let delay = self.delays.get(index).copied().unwrap_or_default();
        delay.mul_f64(1.0 + JITTER_SHARE * jitter.clamp(0.0, 1.0))
    }
}

impl Default for RetryPolicy {
    /// 30 s, 90 s, 270 s: each three times the one before, long enough for a provider's hiccup.
    fn default() -> Self {
        Self::new([30, 90, 270].map(Duration::from_secs).to_vec())
    }
}

/// When a dead letter whose recovery failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryPolicy {
    /// After the first failed recovery.
    pub first: Duration,
    /// The wait is doubled each time up to this.
    pub longest: Duration,
}

impl RecoveryPolicy {
    /// The wait after a recovery failed, where `failed_before` had failed in a row before it,
    /// stretched by `jitter` in 0..=1 so that what died together does not come back together. Never
    /// longer than the longest.
    pub fn delay(&self, failed_before: u32, jitter: f64) -> Duration {
        let doubled =
            2u32.checked_pow(failed_before).and_then(|times| self.first.checked_mul(times));
        let delay = doubled.unwrap_or(self.longest).min(self.longest);
        delay.mul_f64(1.0 + JITTER_SHARE * jitter.clamp(0.0, 1.0)).min(self.longest)
    }
}

impl Default for RecoveryPolicy {
    /// An hour, doubling to a day: what a retry did not cure takes somebody's time.
    fn default() -> Self {
        Self { first: Duration::from_secs(3_600), longest: Duration::from_secs(86_400) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_waits_30_then_90_then_270_seconds() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (1..=3).map(|n| policy.delay(n, 0.0).as_secs()).collect();
        assert_eq!(delays, [30, 90, 270]);
        assert_eq!(policy.max_attempts(), 4);
    }

    #[test]
    fn a_recovery_that_fails_again_and_again_waits_from_an_hour_to_a_day() {
        let policy = RecoveryPolicy::default();
        let hours: Vec<_> = (0..7).map(|n| policy.delay(n, 0.0).as_secs() / 3_600).collect();
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24]);
    }

    proptest! {
        #[test]
        fn a_recovery_waits_at_least_the_first_time_and_at_most_the_longest(
            failed_before in any::<u32>(), jitter in -1.0f64..2.0, first in 0u64..90_000, more in 0u64..90_000
        ) {
            let (first, longest) = (Duration::from_secs(first), Duration::from_secs(first + more));
            let policy = RecoveryPolicy { first, longest };
            let delay = policy.delay(failed_before, jitter);
            prop_assert!(delay >= first && delay <= longest);
            prop_assert!(policy.delay(failed_before.saturating_add(1), 0.0) >= policy.delay(failed_before, 0.0));
        }

        #[test]
        fn a_delay_is_never_shorter_than_asked_nor_stretched_by_more_than_the_share(
            attempts in 0u32..50, jitter in -1.0f64..2.0, secs in prop::collection::vec(0u64..10_000, 0..6)
        ) {
            let policy = RetryPolicy::new(secs.iter().copied().map(Duration::from_secs).collect());
            let index = (attempts.max(1) as usize - 1).min(secs.len().saturating_sub(1));
            let base = secs.get(index).copied().unwrap_or(0) as f64;
            let delay = policy.delay(attempts, jitter).as_secs_f64();
            prop_assert!(delay >= base - 1e-6 && delay <= base * (1.0 + JITTER_SHARE) + 1e-6);
        }
    }
}
