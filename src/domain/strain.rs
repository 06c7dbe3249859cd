//! How many times their usual time things take: what the limits on requests and inserts in flight are
//! found by. Time is compared within a size, for what is larger takes longer without any strain.

use std::time::Duration;

/// Sizes, each twice the one before it. The last is 2^19: more tokens than any provider takes in a
/// request, and more rows than an insert ever holds.
const SIZES: usize = 20;

/// Time that one of each size takes without strain.
#[derive(Debug, Clone, Default)]
pub(super) struct Usual {
    secs: [Option<f64>; SIZES],
}

/// What is judged together.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    count: usize,
    /// Seconds in sum and how many, by size.
    by_size: [(f64, usize); SIZES],
}

impl Window {
    /// Another one, of this size, took so long.
    pub(super) fn add(&mut self, size: u64, took: Duration) {
        let size = (size.max(1).ilog2() as usize).min(SIZES - 1);
        // One in no time at all would make every other endlessly slow.
        self.by_size[size].0 += took.as_secs_f64().max(1e-6);
        self.by_size[size].1 += 1;
        self.count += 1;
    }

    /// How many are in it.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many times their usual time they took; `None` where no such size was seen before.
    pub(super) fn strain(&self, usual: &Usual) -> Option<f64> {
        let (mut took, mut expected) = (0.0, 0.0);
        for (usual, (secs, count)) in usual.secs.iter().zip(self.by_size) {
            if let Some(usual) = usual {
                took += secs;
                expected += usual * count as f64;
            }
        }
        (expected > 0.0).then(|| took / expected)
    }
}

impl Usual {
    /// Learns how long each size takes, the strain being common to all of them. What was known of a
    /// size before weighs as much as `remembered` of them.
    pub(super) fn learn(&mut self, window: &Window, strain: f64, remembered: f64) {
        for (usual, (secs, count)) in self.secs.iter_mut().zip(window.by_size) {
            if count == 0 {
                continue;
            }
            let count = count as f64;
            let unstrained = secs / count / strain;
            let weight = count / (count + remembered);
            *usual = Some(usual.map_or(unstrained, |usual| usual + weight * (unstrained - usual)));
        }
    }

    /// From here on so many times the usual time is usual.
    pub(super) fn scale(&mut self, by: f64) {
        for usual in self.secs.iter_mut().flatten() {
            *usual *= by;
        }
    }
}
