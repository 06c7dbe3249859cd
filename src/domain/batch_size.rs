//! How many rows one insert carries. Speed differs a hundredfold between an empty table and a
//! large HNSW index, so the size follows the clock and not a constant.

use std::time::Duration;

/// The current size and its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSize {
    rows: usize,
    rows_max: usize,
    target: Duration,
}

/// Share of `statement_timeout` that a statement should take: room for a slow moment four times
/// as bad as usual.
const TARGET_SHARE: u32 = 4;
/// Target where the server sets no `statement_timeout`.
const TARGET_WITHOUT_TIMEOUT: Duration = Duration::from_secs(2);
/// Without a limit in sight the size grows at most this many times beyond where it began.
const GROWTH_MAX: usize = 4;

impl BatchSize {
    /// Begins with `rows`; `statement_timeout` is the server's, `None` or zero for none.
    pub fn new(rows: usize, statement_timeout: Option<Duration>) -> Self {
        let target = match statement_timeout {
            Some(timeout) if !timeout.is_zero() => timeout / TARGET_SHARE,
            _ => TARGET_WITHOUT_TIMEOUT,
        };
        let rows = rows.max(1);
        Self { rows, rows_max: rows * GROWTH_MAX, target }
    }

    /// Rows for the next statement, at least 1.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A statement of `rows` took `took`: heads for the target, at most doubling, and shrinks as
    /// soon as the target is passed. A statement smaller than the size tells nothing about larger
    /// ones, so it never makes the size grow.
    pub fn succeeded(&mut self, rows: usize, took: Duration) {
        let per_row = took.as_secs_f64() / rows.max(1) as f64;
        let fitting = (self.target.as_secs_f64() / per_row.max(1e-9)) as usize;
        if fitting < self.rows {
            self.rows = fitting.max(1);
        } else if rows >= self.rows {
            self.rows = fitting.min(self.rows * 2).min(self.rows_max);
        }
    }

    /// A statement of `rows` ran into the time-out: half of it, at least 1.
    pub fn timed_out(&mut self, rows: usize) {
        self.rows = (rows / 2).clamp(1, self.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_out_halves_and_quick_statements_grow_it_again() {
        let mut size = BatchSize::new(50, Some(Duration::from_millis(400)));
        size.timed_out(50);
        assert_eq!(size.rows(), 25);
        size.succeeded(25, Duration::from_millis(10));
        assert_eq!(size.rows(), 50);
        size.succeeded(50, Duration::from_millis(200));
        assert_eq!(size.rows(), 25, "100 ms is the target, so half the rows");
    }

    proptest! {
        #[test]
        fn the_size_stays_between_one_and_its_bound_whatever_happens(
            first in 0usize..500, steps in prop::collection::vec((any::<bool>(), 1usize..2_000, 0u64..5_000), 0..60)
        ) {
            let mut size = BatchSize::new(first, Some(Duration::from_secs(1)));
            for (timed_out, rows, millis) in steps {
                if timed_out { size.timed_out(rows) } else { size.succeeded(rows, Duration::from_millis(millis)) }
                prop_assert!(size.rows() >= 1 && size.rows() <= first.max(1) * GROWTH_MAX);
            }
        }
    }
}
