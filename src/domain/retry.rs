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

    proptest! {
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
