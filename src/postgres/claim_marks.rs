//! Where a claim begins to look. While a snapshot is held somewhere (a backup, a long report), what was
//! claimed since leaves its dead versions in the index, at the most urgent place of all, and every claim
//! would walk over all of them to the first task that is still there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A claim that took longer walked far: the next one begins where it ended.
const LONG_WALK: Duration = Duration::from_millis(5);
/// How long claims may begin behind the first task. A task that comes ahead of them waits no longer, and
/// only while there are others to work on.
const KEPT: Duration = Duration::from_secs(1);

/// A place in the order of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) claim_rank: i64,
    pub(super) created_at: DateTime<Utc>,
}

impl Place {
    /// Ahead of every task.
    pub(super) const FIRST: Self =
        Self { claim_rank: i64::MAX, created_at: DateTime::from_timestamp_nanos(0) };
}

#[derive(Debug)]
struct Mark {
    place: Place,
    /// When the last claim from the first place ended.
    since: Instant,
}

/// The marks of a process, by the model that claims are for.
#[derive(Debug, Clone, Default)]
pub(super) struct ClaimMarks(Arc<Mutex<HashMap<String, Mark>>>);

impl ClaimMarks {
    /// Where the next claim begins.
    pub(super) fn place(&self, model_name: &str) -> Place {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = marks.get(model_name).filter(|mark| mark.since.elapsed() < KEPT);
        mark.map_or(Place::FIRST, |mark| mark.place)
    }

    /// Keeps where a claim ended that got all it asked for (`last`), or that it did not (`None`).
    pub(super) fn note(&self, model_name: &str, began: Place, last: Option<Place>, took: Duration) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (last, marks.get_mut(model_name)) {
            (Some(last), Some(mark)) if began != Place::FIRST => mark.place = last,
            (Some(place), _) if took >= LONG_WALK => {
                marks.insert(model_name.to_owned(), Mark { place, since: Instant::now() });
            }
            _ => {
                marks.remove(model_name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(claim_rank: i64) -> Place {
        Place { claim_rank, ..Place::FIRST }
    }

    #[test]
    fn only_a_claim_that_walked_far_and_got_all_it_asked_for_leaves_a_mark() {
        let marks = ClaimMarks::default();
        marks.note("a", Place::FIRST, Some(at(9)), LONG_WALK / 2);
        assert_eq!(marks.place("a"), Place::FIRST);
        marks.note("a", Place::FIRST, Some(at(9)), LONG_WALK);
        assert_eq!((marks.place("a"), marks.place("b")), (at(9), Place::FIRST));
        marks.note("a", at(9), Some(at(7)), Duration::ZERO);
        assert_eq!(marks.place("a"), at(7), "the next one goes on from there");
        marks.note("a", at(7), None, Duration::ZERO);
        assert_eq!(marks.place("a"), Place::FIRST, "all of them were taken");
    }

    #[test]
    fn a_mark_does_not_hold_more_urgent_tasks_up_for_long() {
        let marks = ClaimMarks::default();
        let since = Instant::now().checked_sub(KEPT).expect("a moment ago");
        marks.0.lock().expect("a lock").insert("a".into(), Mark { place: at(9), since });
        assert_eq!(marks.place("a"), Place::FIRST);
        marks.note("a", at(9), Some(at(7)), LONG_WALK);
        assert_eq!(marks.place("a"), Place::FIRST, "its time is that of the last look at all");
    }
}
