//! How many inserts may be under way at once. A second one on the way may store twice as many rows a
//! second or none more: that depends on the server's cores and disks, and on whether there is an index.
//! So it is tried: with twice as many in flight, and with half as many, every now and then, and what
//! stores more rows a second is kept. Slowness alone is no sign of load here as it is of a provider
//! (see [`super::concurrency`]): as an index grows, every insert takes longer.

use std::mem;
use std::time::Duration;

use super::strain::{Usual, Window};

/// Where the limit begins: two fill the gaps that one leaves, on any server.
const LIMIT_FIRST: usize = 2;
/// Inserts that are judged together at least: one alone may be slow by chance.
const INSERTS_MIN: usize = 8;
/// Inserts whose weight equals what was known of their size before: an index's growth is followed.
const INSERTS_REMEMBERED: f64 = 8.0;
/// Windows' worth of inserts that may leave the limit that is tried unreached: where there is work for
/// no more than the old one, there is nothing to judge the new one by.
const WINDOWS_UNFILLED_MAX: usize = 4;
/// Windows from a trial that changed nothing to the next, doubled with each of these in a row: half as
/// many in flight may cost half of the speed while it is tried, so one part in so many is what it costs.
const REST_FIRST: u32 = 32;
/// The rest grows no further than this.
const REST_MAX: u32 = 64;

/// The current limit, its bound, and what it was found by.
#[derive(Debug, Clone)]
pub struct InsertConcurrency {
    limit: usize,
    limit_max: usize,
    in_flight: usize,
    /// Raised with each change of the limit.
    round: u64,
    /// Inserts of this limit that are judged together.
    window: Window,
    /// Of inserts at the limit that was kept, by rows.
    usual: Usual,
    trial: Option<Trial>,
    next: Direction,
    /// Windows until the next trial.
    rest: u32,
    /// Windows after the next trial, if that changes nothing.
    rest_next: u32,
}

/// How an insert began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    round: u64,
    /// All that the limit allows were under way.
    is_full: bool,
}

/// Another limit is tried.
#[derive(Debug, Clone, Copy)]
struct Trial {
    direction: Direction,
    /// The limit to go back to.
    before: usize,
    /// Inserts that did not fill the limit.
    unfilled: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl InsertConcurrency {
    /// Begins with two; `limit_max` is at least 1.
    pub fn new(limit_max: usize) -> Self {
        let limit_max = limit_max.max(1);
        Self {
            limit: LIMIT_FIRST.min(limit_max),
            limit_max,
            in_flight: 0,
            round: 0,
            window: Window::default(),
            usual: Usual::default(),
            trial: None,
            next: Direction::Up,
            rest: 0,
            rest_next: REST_FIRST,
        }
    }

    /// Inserts that may be under way at once, from 1 to the bound.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An insert begins; each is ended once, with what this returns.
    pub fn begin(&mut self) -> Begun {
        self.in_flight += 1;
        Begun { round: self.round, is_full: self.in_flight >= self.limit }
    }

    /// It stored `rows` in this time.
    pub fn succeeded(&mut self, begun: Begun, rows: usize, took: Duration) {
        let is_full = begun.is_full && self.in_flight >= self.limit;
        self.ended();
        // What began under another limit tells of that. Where the limit is not reached, nothing is
        // learnt of it.
        if begun.round != self.round {
            return;
        }
        if !is_full {
            return self.left_unfilled();
        }
        // By the row, since those of a size are not of one length.
        self.window.add(rows as u64, took.div_f64(rows.max(1) as f64));
        if self.window.count() >= self.inserts_judged() {
            self.judge();
        }
    }

    /// It ran into the time-out: half as many, once for all that were under way. Where it was more that
    /// were tried, as many as before, and no more for a while.
    pub fn timed_out(&mut self, begun: Begun) {
        self.ended();
        if begun.round != self.round {
            return;
        }
        match self.trial.take() {
            Some(trial) if trial.direction == Direction::Up => self.go_back(trial),
            _ => self.keep((self.limit / 2).max(1), Direction::Up),
        }
    }

    /// It failed for a reason that tells nothing of the load.
    pub fn failed(&mut self) {
        self.ended();
    }

    /// It is no longer under way.
    fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Inserts at this limit that are judged together.
    fn inserts_judged(&self) -> usize {
        INSERTS_MIN.max(2 * self.limit)
    }

    /// An insert of this limit was not one of as many as it allows.
    fn left_unfilled(&mut self) {
        let unfilled_max = WINDOWS_UNFILLED_MAX * self.inserts_judged();
        let Some(trial) = &mut self.trial else {
            return;
        };
        trial.unfilled += 1;
        if trial.unfilled >= unfilled_max {
            let trial = *trial;
            self.go_back(trial);
        }
    }

    fn judge(&mut self) {
        let window = mem::take(&mut self.window);
        let Some(trial) = self.trial.take() else {
            self.usual.learn(&window, 1.0, INSERTS_REMEMBERED);
            match self.rest.checked_sub(1) {
                Some(rest) => self.rest = rest,
                None => self.begin_trial(),
            }
            return;
        };
        if window.strain(&self.usual).is_some_and(|strain| trial.pays(self.limit, strain)) {
            self.keep(self.limit, trial.direction);
            self.usual.learn(&window, 1.0, INSERTS_REMEMBERED);
        } else {
            self.go_back(trial);
        }
    }

    fn begin_trial(&mut self) {
        let limit = match self.next {
            Direction::Up => (self.limit * 2).min(self.limit_max),
            Direction::Down => (self.limit / 2).max(1),
        };
        if limit == self.limit {
            return self.rest_before(self.next.other());
        }
        self.trial = Some(Trial { direction: self.next, before: self.limit, unfilled: 0 });
        self.limit = limit;
        self.round += 1;
    }

    /// Ends a trial that is not to be kept.
    fn go_back(&mut self, trial: Trial) {
        self.trial = None;
        self.limit = trial.before;
        self.round += 1;
        self.window = Window::default();
        self.rest_before(trial.direction.other());
    }

    /// Nothing was gained: after a rest the other direction is tried.
    fn rest_before(&mut self, next: Direction) {
        (self.next, self.rest) = (next, self.rest_next);
        self.rest_next = (self.rest_next * 2).min(REST_MAX);
    }

    /// Stays with this limit, and soon tries further in this direction.
    fn keep(&mut self, limit: usize, next: Direction) {
        self.limit = limit;
        self.round += 1;
        self.window = Window::default();
        self.usual = Usual::default();
        (self.next, self.rest, self.rest_next) = (next, 0, REST_FIRST);
    }
}

impl Direction {
    fn other(self) -> Self {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }
}

impl Trial {
    /// Whether the limit that was tried, under which inserts take `strain` times as long as before, is
    /// to be kept. More in flight must gain half of what they would if none held up another; of fewer,
    /// no more may be lost than that.
    fn pays(self, limit: usize, strain: f64) -> bool {
        let (before, limit) = (self.before as f64, limit as f64);
        match self.direction {
            Direction::Up => strain <= f64::midpoint(1.0, limit / before),
            Direction::Down => strain < 1.0 / f64::midpoint(1.0, before / limit),
        }
    }
}

#[cfg(test)]
#[path = "insert_concurrency_tests.rs"]
mod tests;
