//! The user's own ceiling on what is sent, kept as a pace: evenly, since providers hold a limit of a
//! minute over its seconds too. All replicas together keep it: each takes its share.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// The longest that one request moves the next: beyond every ceiling that can be meant.
const STEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// What all replicas together may send; `None` for no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Requests a minute, at least 1. Those that are refused or repeated count too.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, at least 1: bytes / 4, as providers estimate before they answer.
    pub tokens_per_minute: Option<u32>,
}

/// A ceiling, and from when on more may be sent under it.
#[derive(Debug)]
pub(super) struct Pace {
    ceiling: Ceiling,
    replicas: u32,
    free_at: Option<Instant>,
}

impl Pace {
    /// Of one replica until others are known.
    pub fn new(ceiling: Ceiling) -> Self {
        Self { ceiling, replicas: 1, free_at: None }
    }

    /// So many share the ceiling from here on.
    pub fn share(&mut self, replicas: u32) {
        self.replicas = replicas.max(1);
    }

    /// From when on the next request may be sent, whatever it holds: what it costs is waited for
    /// after it.
    pub fn free_at(&self) -> Option<Instant> {
        self.free_at
    }

    /// Counts a request of `tokens`.
    pub fn spend(&mut self, tokens: u64, now: Instant) {
        let step = self.step(self.ceiling.requests_per_minute, 1);
        let step = step.max(self.step(self.ceiling.tokens_per_minute, tokens));
        self.free_at = Some(self.free_at.map_or(now, |free_at| free_at.max(now)) + step);
    }

    /// Tokens that this replica may send in a minute: no request should hold more.
    pub fn tokens_max(&self) -> Option<usize> {
        let share = self.ceiling.tokens_per_minute? / self.replicas;
        Some(share.max(1) as usize)
    }

    /// The time in which so much may be spent.
    fn step(&self, per_minute: Option<u32>, spent: u64) -> Duration {
        let Some(per_minute) = per_minute else { return Duration::ZERO };
        let nanos = MINUTE.as_nanos() * u128::from(spent) * u128::from(self.replicas)
            / u128::from(per_minute.max(1));
        u64::try_from(nanos).map_or(STEP_MAX, Duration::from_nanos).min(STEP_MAX)
    }
}
