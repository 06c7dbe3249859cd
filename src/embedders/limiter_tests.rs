//! The limiter under a clock that stands still until everyone waits.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// How long a request of `tokens` is held back, in the paused clock's time.
async fn held_back(limiter: &Limiter, tokens: u64) -> Duration {
    let start = Instant::now();
    drop(limiter.admit(tokens).await.expect("admitted"));
    start.elapsed()
}

fn about(expected: Duration, measured: Duration) {
    // tokio's timer counts whole milliseconds.
    assert!(
        measured >= expected && measured < expected + Duration::from_millis(5),
        "{measured:?} instead of {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn everyone_waits_for_the_pause_that_one_was_given_and_nobody_after_it() {
    let limiter = Limiter::new(2, Ceiling::default());
    limiter.pause(Some(5 * SECOND), 0);
    let (first, second) = tokio::join!(held_back(&limiter, 1), held_back(&limiter, 1));
    about(5 * SECOND, first);
    about(5 * SECOND, second);
    about(Duration::ZERO, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_prolonged_holds_those_that_wait_already() {
    let limiter = Limiter::new(2, Ceiling::default());
    limiter.pause(Some(5 * SECOND), 0);
    let (waited, ()) = tokio::join!(held_back(&limiter, 1), async {
        tokio::time::sleep(3 * SECOND).await;
        limiter.pause(Some(10 * SECOND), 0);
        // A shorter one from a request that was refused at the same time changes nothing.
        limiter.pause(Some(SECOND), 0);
    });
    about(13 * SECOND, waited);
}

#[tokio::test(start_paused = true)]
async fn a_pause_above_the_bound_is_reported_to_everyone_until_it_has_shrunk() {
    let limiter = Limiter::new(1, Ceiling::default());
    limiter.pause(Some(PAUSE_MAX + 60 * SECOND), 0);
    let refused = limiter.admit(1).await.err();
    assert_eq!(refused, Some(Failure::RateLimited { retry_after: PAUSE_MAX + 60 * SECOND }));
    tokio::time::advance(60 * SECOND).await;
    about(PAUSE_MAX, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_no_wait_is_asked_ever_more_rarely() {
    let limiter = Limiter::new(1, Ceiling::default());
    let waits: Vec<_> =
        (0..5).map(|n| limiter.pause(Some(Duration::ZERO), n).as_millis()).collect();
    assert_eq!(waits, [200, 400, 800, 1_600, 3_200]);
    assert_eq!(limiter.pause(Some(Duration::ZERO), u32::MAX), FLOOR_MAX);
    assert_eq!(limiter.pause(None, 0), UNASKED);
    assert_eq!(limiter.pause(Some(Duration::MAX), 0), ASKED_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_wait_for_a_pause() {
    let limiter = Limiter::new(1, Ceiling::default());
    limiter.pause(Some(5 * SECOND), 0);
    let refused = limiter.admit_probe(1).await.err();
    assert_eq!(refused, Some(Failure::RateLimited { retry_after: 5 * SECOND }));
    tokio::time::advance(5 * SECOND).await;
    assert!(limiter.admit_probe(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_is_waited_for_before_it_is_refused() {
    let limiter = Limiter::new(1, Ceiling::default());
    limiter.note(Some(Budget { remaining: 0, reset_after: 3 * SECOND }), None);
    assert!(limiter.admit_probe(1).await.is_ok(), "a probe follows no hint");
    about(3 * SECOND, held_back(&limiter, 1).await);

    limiter.note(None, Some(Budget { remaining: 100, reset_after: 2 * SECOND }));
    about(Duration::ZERO, held_back(&limiter, 60).await);
    about(Duration::ZERO, held_back(&limiter, 40).await);
    about(2 * SECOND, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_no_longer_than_its_bound_and_forgotten_after_better_news() {
    let limiter = Limiter::new(1, Ceiling::default());
    limiter.note(Some(Budget { remaining: 0, reset_after: Duration::MAX }), None);
    about(HINT_MAX, held_back(&limiter, 1).await);

    limiter.note(Some(Budget { remaining: 0, reset_after: 3 * SECOND }), None);
    limiter.note(Some(Budget { remaining: 9, reset_after: 3 * SECOND }), None);
    about(Duration::ZERO, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_bound_waits_for_one_to_end() {
    let limiter = Limiter::new(1, Ceiling::default());
    let first = limiter.admit(1).await.expect("admitted");
    let (waited, ()) = tokio::join!(held_back(&limiter, 1), async {
        tokio::time::sleep(SECOND).await;
        drop(first);
    });
    about(SECOND, waited);
}

#[tokio::test(start_paused = true)]
async fn a_refusals_own_wait_counts_and_not_the_hint_that_came_with_it() {
    let limiter = Limiter::new(1, Ceiling::default());
    limiter.note(Some(Budget { remaining: 0, reset_after: 50 * SECOND }), None);
    limiter.pause(Some(2 * SECOND), 0);
    about(2 * SECOND, held_back(&limiter, 1).await);
}

fn ceiling(requests_per_minute: Option<u32>, tokens_per_minute: Option<u32>) -> Limiter {
    Limiter::new(8, Ceiling { requests_per_minute, tokens_per_minute })
}

#[tokio::test(start_paused = true)]
async fn requests_under_a_ceiling_are_spread_evenly_over_the_minute() {
    let limiter = ceiling(Some(30), None);
    about(Duration::ZERO, held_back(&limiter, 9_999).await);
    let waits = futures::future::join_all((0..30).map(|_| held_back(&limiter, 9_999))).await;
    about(60 * SECOND, waits.into_iter().max().expect("waits"));
    tokio::time::advance(600 * SECOND).await;
    about(Duration::ZERO, held_back(&limiter, 1).await);
    about(2 * SECOND, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_costs_in_tokens_is_waited_for_after_it() {
    let limiter = ceiling(Some(60), Some(600));
    about(Duration::ZERO, held_back(&limiter, 300).await);
    about(30 * SECOND, held_back(&limiter, 1).await);
    about(SECOND, held_back(&limiter, 20).await);
    about(2 * SECOND, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_is_divided_by_the_replicas_that_share_it_and_given_back_when_they_go() {
    let limiter = ceiling(None, Some(600));
    limiter.share(3);
    assert_eq!(limiter.tokens_max(), Some(200));
    about(Duration::ZERO, held_back(&limiter, 100).await);
    about(30 * SECOND, held_back(&limiter, 100).await);
    limiter.share(1);
    assert_eq!(limiter.tokens_max(), Some(600));
    about(30 * SECOND, held_back(&limiter, 100).await);
    about(10 * SECOND, held_back(&limiter, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_ceiling_is_no_trouble_however_long_it_holds_and_a_probe_only_counts_under_it() {
    let limiter = ceiling(None, Some(100));
    limiter.share(4);
    about(Duration::ZERO, held_back(&limiter, 300).await);
    assert!(limiter.admit_probe(100).await.is_ok(), "it waits for no ceiling");
    about((720 + 240) * SECOND, held_back(&limiter, 1).await);
    // Nonsense lasts a day, and breaks nothing.
    drop(limiter.admit_probe(u64::MAX).await.expect("admitted"));
    about(24 * 3600 * SECOND + 2_400 * SECOND / 1_000, held_back(&limiter, 1).await);
}
