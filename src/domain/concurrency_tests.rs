//! The policy alone, fed with what a provider could answer.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const QUICK: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(500);

/// As many rounds of requests as fill the limit, each of which ends so.
fn rounds(concurrency: &mut Concurrency, rounds: usize, tokens: u64, ending: Ending) {
    for _ in 0..rounds {
        let answers = concurrency.limit().max(ANSWERS_MIN);
        let mut open: VecDeque<Round> =
            (0..concurrency.limit()).map(|_| concurrency.begin()).collect();
        for _ in 0..answers {
            let round = open.pop_front().expect("one is under way");
            concurrency.end(round, tokens, ending);
            open.push_back(concurrency.begin());
        }
        for round in open {
            concurrency.end(round, tokens, Ending::Unrelated);
        }
    }
}

fn grown(limit_max: usize) -> Concurrency {
    let mut concurrency = Concurrency::new(limit_max);
    rounds(&mut concurrency, 40, 1_000, Ending::Answered(QUICK));
    assert_eq!(concurrency.limit(), limit_max);
    concurrency
}

#[test]
fn it_begins_low_and_grows_to_its_bound_within_a_dozen_round_trips() {
    let mut concurrency = Concurrency::new(32);
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
    rounds(&mut concurrency, 12, 1_000, Ending::Answered(QUICK));
    assert_eq!(concurrency.limit(), 32);
    assert_eq!(Concurrency::new(0).limit(), 1);
}

#[test]
fn it_does_not_grow_where_nobody_reaches_it() {
    let mut concurrency = Concurrency::new(32);
    for _ in 0..100 {
        let round = concurrency.begin();
        concurrency.end(round, 1_000, Ending::Answered(QUICK));
    }
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
}

#[test]
fn one_overload_halves_once_however_many_requests_it_hits() {
    let mut concurrency = grown(32);
    let open: Vec<Round> = (0..32).map(|_| concurrency.begin()).collect();
    for round in open {
        concurrency.end(round, 1_000, Ending::RateLimited);
    }
    assert_eq!(concurrency.limit(), 16);
    rounds(&mut concurrency, 1, 1_000, Ending::RateLimited);
    assert_eq!(concurrency.limit(), 8);
    rounds(&mut concurrency, 12, 1_000, Ending::Answered(QUICK));
    assert_eq!(concurrency.limit(), 32, "after the trouble it grows again");
}

#[test]
fn a_provider_that_fails_gets_half_as_many_but_no_fewer_than_in_the_beginning() {
    let mut concurrency = grown(32);
    rounds(&mut concurrency, 1, 1_000, Ending::Failed);
    assert_eq!(concurrency.limit(), 16);
    rounds(&mut concurrency, 20, 1_000, Ending::Failed);
    assert_eq!(concurrency.limit(), LIMIT_FIRST);
    rounds(&mut concurrency, 20, 1_000, Ending::RateLimited);
    assert_eq!(concurrency.limit(), 1);
}

#[test]
fn answers_that_slow_down_halve_it_and_a_slowness_that_this_does_not_mend_is_accepted() {
    let mut concurrency = grown(32);
    rounds(&mut concurrency, 1, 1_000, Ending::Answered(SLOW));
    assert_eq!(concurrency.limit(), 16);
    rounds(&mut concurrency, 12, 1_000, Ending::Answered(SLOW));
    assert_eq!(concurrency.limit(), 32);
}

#[test]
fn large_requests_take_longer_without_being_a_sign_of_load() {
    let mut concurrency = grown(32);
    for _ in 0..20 {
        rounds(&mut concurrency, 1, 60_000, Ending::Answered(SLOW));
        rounds(&mut concurrency, 1, 1_000, Ending::Answered(QUICK));
        assert_eq!(concurrency.limit(), 32);
    }
    rounds(&mut concurrency, 1, 60_000, Ending::Answered(2 * SLOW));
    assert_eq!(concurrency.limit(), 16);
}

#[test]
fn what_was_refused_for_its_content_or_given_up_tells_nothing() {
    let mut concurrency = grown(32);
    rounds(&mut concurrency, 20, 1_000, Ending::Unrelated);
    assert_eq!(concurrency.limit(), 32);
}

proptest! {
    #[test]
    fn the_limit_stays_between_one_and_its_bound_whatever_happens(
        limit_max in 1usize..300,
        steps in prop::collection::vec((0u8..5, any::<u64>(), 0u64..5_000, 1usize..60), 0..100),
    ) {
        let mut concurrency = Concurrency::new(limit_max);
        let mut open = Vec::new();
        for (step, tokens, millis, times) in steps {
            for _ in 0..times {
                let ending = match step {
                    0 => Ending::Answered(Duration::from_millis(millis)),
                    1 => Ending::RateLimited,
                    2 => Ending::Unrelated,
                    3 => Ending::Failed,
                    _ => {
                        open.push(concurrency.begin());
                        continue;
                    }
                };
                let Some(round) = open.pop() else { break };
                concurrency.end(round, tokens, ending);
                prop_assert!((1..=limit_max).contains(&concurrency.limit()));
            }
        }
    }

    #[test]
    fn no_overload_lets_it_grow_and_no_quick_answer_lets_it_shrink(
        steps in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut concurrency = Concurrency::new(64);
        for is_answered in steps {
            let before = concurrency.limit();
            let ending = if is_answered { Ending::Answered(QUICK) } else { Ending::RateLimited };
            rounds(&mut concurrency, 1, 1_000, ending);
            let after = concurrency.limit();
            let is_right = if is_answered { after >= before } else { after <= before };
            prop_assert!(is_right, "{before} became {after}");
        }
    }
}
