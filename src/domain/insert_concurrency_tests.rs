//! A server that is known is simulated, and what is found is compared with what it takes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A server that works on so many inserts at once; more make all of them slower.
struct Server {
    places: usize,
    /// Seconds for a row, of an insert that nothing holds up.
    row_secs: f64,
    /// How much longer a row takes after each row stored, as in an index that grows.
    growth_secs: f64,
}

/// What came of a load.
#[derive(Debug)]
struct Load {
    rows_a_second: f64,
    /// The mean of the limit in the second half.
    limit: f64,
}

impl Server {
    fn with(places: usize) -> Self {
        Self { places, row_secs: 0.004, growth_secs: 0.0 }
    }

    /// Stores so many inserts, as many at once as are allowed.
    fn load(&self, concurrency: &mut InsertConcurrency, inserts: usize) -> Load {
        let (mut clock_secs, mut stored, mut sum) = (0.0, 0, 0);
        let mut open: Vec<(f64, usize, f64, Begun)> = Vec::new();
        for n in 0..inserts {
            while open.len() < concurrency.limit() {
                let begun = concurrency.begin();
                // Now this many rows, now that; and times that spread by a third either way, without
                // an order (the bits of the golden ratio).
                let rows = [20, 128, 50, 20][(n + open.len()) % 4];
                let spread = ((n + 7 * open.len()) as u32).wrapping_mul(2_654_435_769) >> 16;
                let luck = 0.67 + f64::from(spread) / 65_536.0 * 0.66;
                let strain = ((open.len() + 1) as f64 / self.places as f64).max(1.0);
                let row_secs = self.row_secs + self.growth_secs * stored as f64;
                let took = 0.002 + rows as f64 * row_secs * luck * strain;
                open.push((clock_secs + took, rows, took, begun));
            }
            let first = (0..open.len())
                .min_by(|a, b| open[*a].0.total_cmp(&open[*b].0))
                .expect("one is open");
            let (at, rows, took, begun) = open.swap_remove(first);
            clock_secs = at;
            stored += rows;
            concurrency.succeeded(begun, rows, Duration::from_secs_f64(took));
            sum += if n >= inserts / 2 { concurrency.limit() } else { 0 };
        }
        for _ in open {
            concurrency.failed();
        }
        Load {
            rows_a_second: stored as f64 / clock_secs,
            limit: sum as f64 / (inserts - inserts / 2) as f64,
        }
    }
}

#[test]
fn it_settles_near_what_the_server_takes_at_once() {
    for (places, expected) in [(1, 1), (2, 2), (4, 4), (6, 8), (8, 8), (16, 16)] {
        let mut concurrency = InsertConcurrency::new(16);
        let load = Server::with(places).load(&mut concurrency, 4_000);
        let difference = load.limit / expected as f64;
        assert!((0.9..1.25).contains(&difference), "{places} places: {load:?}");
    }
}

#[test]
fn a_server_of_two_cores_with_an_index_that_grows_loses_nothing_by_the_search_for_its_limit() {
    for bound in [4, 8] {
        let server = Server { growth_secs: 0.000_000_3, ..Server::with(2) };
        let found = server.load(&mut InsertConcurrency::new(bound), 400);
        let mut fixed = InsertConcurrency::new(2);
        fixed.rest = u32::MAX;
        let fixed = server.load(&mut fixed, 400);
        assert!(found.rows_a_second >= 0.97 * fixed.rows_a_second, "{found:?} of {fixed:?}");
    }
}

#[test]
fn a_server_that_others_load_too_gets_fewer_and_more_again_when_they_are_gone() {
    let mut concurrency = InsertConcurrency::new(8);
    assert!(Server::with(8).load(&mut concurrency, 2_000).limit > 7.0);
    assert!(Server::with(2).load(&mut concurrency, 8_000).limit < 3.0);
    assert!(Server::with(8).load(&mut concurrency, 8_000).limit > 7.0);
}

#[test]
fn time_outs_halve_it_once_for_all_that_were_under_way_and_it_grows_again() {
    let mut concurrency = InsertConcurrency::new(8);
    Server::with(8).load(&mut concurrency, 500);
    assert_eq!(concurrency.limit(), 8);
    let open: Vec<Begun> = (0..8).map(|_| concurrency.begin()).collect();
    for begun in open {
        concurrency.timed_out(begun);
    }
    assert_eq!(concurrency.limit(), 4);
    for expected in [2, 1, 1] {
        let begun = concurrency.begin();
        concurrency.timed_out(begun);
        assert_eq!(concurrency.limit(), expected);
    }
    Server::with(8).load(&mut concurrency, 500);
    assert_eq!(concurrency.limit(), 8);
}

#[test]
fn where_the_limit_is_not_reached_it_stays_as_it_is() {
    let mut concurrency = InsertConcurrency::new(8);
    for _ in 0..1_000 {
        let begun = concurrency.begin();
        concurrency.succeeded(begun, 50, Duration::from_millis(10));
    }
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
}

/// Begins as many as there is work for and the limit allows; the oldest is the next to end.
fn begin_all(
    concurrency: &mut InsertConcurrency,
    open: &mut VecDeque<Begun>,
    work: usize,
) -> Begun {
    while open.len() < work.min(concurrency.limit()) {
        open.push_back(concurrency.begin());
    }
    open.pop_front().expect("one is open")
}

#[test]
fn a_trial_of_more_than_there_is_work_for_ends() {
    let mut concurrency = InsertConcurrency::new(8);
    let (mut open, mut tried) = (VecDeque::new(), 0);
    for _ in 0..200 {
        let begun = begin_all(&mut concurrency, &mut open, LIMIT_FIRST);
        concurrency.succeeded(begun, 50, Duration::from_millis(10));
        tried += usize::from(concurrency.limit() > LIMIT_FIRST);
    }
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
    assert!((1..40).contains(&tried), "{tried} of 200 inserts at a limit that none fills");
}

#[test]
fn a_trial_of_more_that_times_out_is_not_made_again_at_once() {
    let mut concurrency = InsertConcurrency::new(8);
    let (mut open, mut trials, mut before) = (VecDeque::new(), 0, LIMIT_FIRST);
    for _ in 0..400 {
        let begun = begin_all(&mut concurrency, &mut open, 8);
        if open.len() + 1 > LIMIT_FIRST {
            concurrency.timed_out(begun);
        } else {
            concurrency.succeeded(begun, 50, Duration::from_millis(10));
        }
        trials += usize::from(concurrency.limit() > before.max(LIMIT_FIRST));
        before = concurrency.limit();
    }
    assert_eq!(trials, 1, "of 400 inserts");
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
}

proptest! {
    #[test]
    fn the_limit_stays_between_one_and_its_bound_whatever_happens(
        limit_max in 0usize..40,
        steps in prop::collection::vec((0u8..4, 0usize..2_000, 0u64..5_000, 1usize..40), 0..100),
    ) {
        let mut concurrency = InsertConcurrency::new(limit_max);
        let mut open = Vec::new();
        for (step, rows, millis, times) in steps {
            for _ in 0..times {
                if step == 0 {
                    open.push(concurrency.begin());
                } else if let Some(begun) = open.pop() {
                    match step {
                        1 => concurrency.timed_out(begun),
                        2 => concurrency.failed(),
                        _ => concurrency.succeeded(begun, rows, Duration::from_millis(millis)),
                    }
                }
                prop_assert!((1..=limit_max.max(1)).contains(&concurrency.limit()));
            }
        }
    }

    #[test]
    fn no_time_out_lets_it_grow(places in 1usize..10, inserts in 0usize..300) {
        let mut concurrency = InsertConcurrency::new(8);
        Server::with(places).load(&mut concurrency, inserts);
        let before = concurrency.limit();
        let begun = concurrency.begin();
        concurrency.timed_out(begun);
        prop_assert_eq!(concurrency.limit(), (before / 2).max(1));
    }
}
