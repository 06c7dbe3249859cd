//! How many API requests may be under way at once. A provider says what it takes only by how it
//! answers, so the limit follows the answers: it grows while they come as quickly as they did, and is
//! halved when they slow down or are refused (additive increase, multiplicative decrease).

use std::mem;
use std::time::Duration;

use super::strain::{Usual, Window};

/// The bound on the limit where the user sets none: two requests of most of the ten recordings that a
/// worker has in hand.
pub const LIMIT_MAX: u16 = 16;

/// Where the limit begins: what every provider takes.
const LIMIT_FIRST: usize = 4;
/// Answers that are judged together at least: one alone may be slow by chance.
const ANSWERS_MIN: usize = 8;
/// Answers may take this many times their usual time before the load is to blame. Where requests
/// queue behind those that the provider works on, half of those beyond them are waiting.
const STRAIN_MAX: f64 = 1.5;
/// A halving helped where the strain fell to this share of what it was.
const STRAIN_HELPED: f64 = 0.9;
/// Answers whose weight equals what was known of their size before.
const ANSWERS_REMEMBERED: f64 = 32.0;

/// The current limit, its bound, and what it was found by.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: usize,
    limit_max: usize,
    in_flight: usize,
    round: Round,
    /// Answers that are judged together: about one of each request under way.
    window: Window,
    /// All that the limit allows were under way since the window began.
    is_full: bool,
    /// Of answers, by tokens.
    usual: Usual,
    /// The strain for which the limit was halved, until it is seen whether that helped.
    halved_at: Option<f64>,
}

/// Under which halving a request began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round(u64);

/// How a request ended, as far as it tells of the provider's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an answer, after this time.
    Answered(Duration),
    /// A rate limit refused it.
    RateLimited,
    /// It timed out, or the provider failed.
    Failed,
    /// It was given up, or refused for what it held.
    Unrelated,
}

impl Concurrency {
    /// Begins low; `limit_max` is at least 1.
    pub fn new(limit_max: usize) -> Self {
        let limit_max = limit_max.max(1);
        Self {
            limit: LIMIT_FIRST.min(limit_max),
            limit_max,
            in_flight: 0,
            round: Round(0),
            window: Window::default(),
            is_full: false,
            usual: Usual::default(),
            halved_at: None,
        }
    }

    /// Requests that may be under way at once, from 1 to the bound.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A request begins; each is ended once, with the round that it began in.
    pub fn begin(&mut self) -> Round {
        self.in_flight += 1;
        self.is_full |= self.in_flight >= self.limit;
        self.round
    }

    /// A request of `tokens` ended.
    pub fn end(&mut self, round: Round, tokens: u64, ending: Ending) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // What began before a halving tells of the load before it: one overload halves once, however
        // many requests it hits.
        if round != self.round {
            return;
        }
        match ending {
            Ending::Answered(took) => {
                self.window.add(tokens, took);
                if self.window.count() >= self.limit.max(ANSWERS_MIN) {
                    self.judge();
                }
            }
            Ending::RateLimited => {
                self.halved_at = None;
                self.halve();
            }
            // Not below where it began: a provider that is down mends no sooner, and everyone who waits
            // for a place would hear of it later.
            Ending::Failed if self.limit > LIMIT_FIRST => {
                self.halved_at = None;
                self.halve();
                self.limit = self.limit.max(LIMIT_FIRST);
            }
            Ending::Failed => {}
            Ending::Unrelated => {}
        }
    }

    fn judge(&mut self) {
        let window = mem::take(&mut self.window);
        let is_full = mem::take(&mut self.is_full);
        let strain = window.strain(&self.usual).unwrap_or(1.0);
        self.usual.learn(&window, strain, ANSWERS_REMEMBERED);
        let halved_at = self.halved_at.take();
        if strain > STRAIN_MAX {
            if halved_at.is_some_and(|before| strain > before * STRAIN_HELPED) {
                // Half the load, and no quicker: the provider itself has become slower.
                self.usual.scale(strain);
            } else {
                self.halved_at = Some(strain);
                self.halve();
            }
            return;
        }
        if strain < 1.0 {
            // Half of the way, since a quick moment is no rule.
            self.usual.scale(f64::midpoint(strain, 1.0));
        }
        // A limit that nobody reached was not tried.
        if is_full {
            self.limit = (self.limit + self.limit.isqrt()).min(self.limit_max);
        }
    }

    fn halve(&mut self) {
        self.limit = (self.limit / 2).max(1);
        self.round.0 += 1;
        self.window = Window::default();
        self.is_full = false;
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
