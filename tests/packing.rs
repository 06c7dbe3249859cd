//! Requests hold what the provider takes, and a refused one can be divided down to one input.

use embedding_recovery::domain::packing::{RequestLimits, estimate_tokens, halves, pack};
use proptest::prelude::*;

fn limits() -> impl Strategy<Value = RequestLimits> {
    (0usize..20, 0usize..5_000)
        .prop_map(|(inputs_max, tokens_max)| RequestLimits { inputs_max, tokens_max })
}

fn tokens(sizes: &[usize]) -> usize {
    sizes.iter().map(|bytes| estimate_tokens(*bytes)).sum()
}

#[test]
fn a_token_is_four_bytes_and_a_begun_one_counts() {
    assert_eq!([0, 1, 4, 5, 4_800].map(estimate_tokens), [0, 1, 1, 2, 1_200]);
}

#[test]
fn openai_takes_250_of_the_largest_chunks_a_request() {
    let requests = pack(&[4_800; 600], &RequestLimits::OPENAI);
    assert_eq!(requests, [0..250, 250..500, 500..600]);
}

#[test]
fn openai_takes_2048_tiny_inputs_a_request() {
    assert_eq!(pack(&[4; 2_049], &RequestLimits::OPENAI), [0..2_048, 2_048..2_049]);
}

#[test]
fn nothing_to_send_makes_no_request() {
    assert!(pack(&[], &RequestLimits::OPENAI).is_empty());
}

#[test]
fn an_input_larger_than_the_limit_goes_alone() {
    let limits = RequestLimits { inputs_max: 10, tokens_max: 100 };
    assert_eq!(pack(&[40, 4_000, 40, 40], &limits), [0..1, 1..2, 2..4]);
}

#[test]
fn one_input_or_none_has_no_halves() {
    assert_eq!(halves(7..8), None);
    assert_eq!(halves(7..7), None);
    assert_eq!(halves(7..10), Some((7..8, 8..10)));
}

proptest! {
    #[test]
    fn requests_cover_all_inputs_in_order_within_the_limits_and_as_full_as_they_can_be(
        sizes in prop::collection::vec(0usize..6_000, 0..200), limits in limits()
    ) {
        let requests = pack(&sizes, &limits);
        let mut next = 0;
        for request in &requests {
            prop_assert_eq!(request.start, next);
            prop_assert!(!request.is_empty());
            next = request.end;
            let alone = request.len() == 1;
            prop_assert!(alone || request.len() <= limits.inputs_max);
            prop_assert!(alone || tokens(&sizes[request.clone()]) <= limits.tokens_max);
            if let Some(bytes) = sizes.get(request.end) {
                let with_next = tokens(&sizes[request.clone()]) + estimate_tokens(*bytes);
                prop_assert!(request.len() >= limits.inputs_max || with_next > limits.tokens_max);
            }
        }
        prop_assert_eq!(next, sizes.len());
    }

    #[test]
    fn halving_a_refused_request_finds_the_bad_input_in_logarithmic_steps(
        start in 0usize..1_000, inputs in 1usize..2_049, choice in any::<prop::sample::Index>()
    ) {
        let bad = start + choice.index(inputs);
        let mut range = start..start + inputs;
        let mut steps = 0;
        while let Some((first, second)) = halves(range.clone()) {
            prop_assert!(!first.is_empty() && !second.is_empty());
            prop_assert!(first.start == range.start && first.end == second.start && second.end == range.end);
            range = if first.contains(&bad) { first } else { second };
            steps += 1;
        }
        prop_assert_eq!(range, bad..bad + 1);
        prop_assert!(steps <= 11);
    }
}
