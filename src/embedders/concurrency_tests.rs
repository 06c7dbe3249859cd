//! The limiter before providers that are known, under a clock that stands still until everyone waits:
//! what it finds is compared with the best fixed setting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;

const QUICK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// A provider that works on so many requests at once; others wait, or are refused.
struct Provider {
    places: Semaphore,
    places_max: usize,
    refuses: bool,
    under_way: AtomicUsize,
}

/// What a caller saw: when its request began, and how many were then under way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Duration,
    under_way: usize,
}

impl Provider {
    fn new(places_max: usize, refuses: bool) -> Self {
        let places = Semaphore::new(places_max);
        Self { places, places_max, refuses, under_way: AtomicUsize::new(0) }
    }

    async fn ask(&self, took: Duration) -> (usize, bool) {
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        let is_taken = !self.refuses || under_way <= self.places_max;
        if is_taken {
            let _place = self.places.acquire().await.expect("open");
            tokio::time::sleep(took).await;
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        (under_way, is_taken)
    }
}

/// Sixty-four callers ask as fast as they are let for as long as `time`; `took` is the time of the
/// nth request.
async fn load(
    limiter: &Arc<Limiter>,
    provider: Provider,
    took: fn(usize) -> Duration,
    time: Duration,
) -> Vec<Sent> {
    let (provider, asked, start) =
        (Arc::new(provider), Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (limiter, provider, asked) = (limiter.clone(), provider.clone(), asked.clone());
        callers.spawn(async move {
            let mut sent = Vec::new();
            while start.elapsed() < time {
                let permit = limiter.admit(1_000).await.expect("admitted");
                let began = Instant::now();
                let (under_way, is_taken) =
                    provider.ask(took(asked.fetch_add(1, Ordering::Relaxed))).await;
                sent.push(Sent { at: began - start, under_way });
                permit.end(match is_taken {
                    true => Ending::Answered(began.elapsed()),
                    false => Ending::RateLimited,
                });
            }
            sent
        });
    }
    callers.join_all().await.concat()
}

fn limiter(requests_in_flight: usize) -> Arc<Limiter> {
    Arc::new(Limiter::new(requests_in_flight, Ceiling::default()))
}

/// The mean of what was under way after the first `after`.
fn mean_under_way(sent: &[Sent], after: Duration) -> f64 {
    let late: Vec<usize> =
        sent.iter().filter(|sent| sent.at >= after).map(|sent| sent.under_way).collect();
    late.iter().sum::<usize>() as f64 / late.len() as f64
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_limit_gets_nine_tenths_of_what_the_best_fixed_setting_sends() {
    let sent = load(&limiter(32), Provider::new(1_000, false), |_| QUICK, 10 * SECOND).await;
    let best = 10 * 20 * 32;
    assert!(sent.len() * 10 >= best * 9, "{} of {best}", sent.len());
    assert!(sent.iter().all(|sent| sent.under_way <= 32));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_queues_is_kept_busy_and_its_queue_short() {
    for places in [3, 6, 12, 24] {
        let sent = load(&limiter(64), Provider::new(places, false), |_| QUICK, 60 * SECOND).await;
        let best = 60 * 20 * places;
        assert!(sent.len() * 10 >= best * 9, "{places}: {} of {best}", sent.len());
        let mean = mean_under_way(&sent, 5 * SECOND) / places as f64;
        // Of three places the first four requests fill more, so that a queue is usual from the start.
        assert!((0.8..1.7).contains(&mean), "{places}: {mean} times as many under way");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_refuses_too_many_at_once_is_not_pressed() {
    let sent = load(&limiter(64), Provider::new(8, true), |_| QUICK, 60 * SECOND).await;
    let refused = sent.iter().filter(|sent| sent.under_way > 8).count();
    assert!(refused * 10 <= sent.len(), "{refused} of {} were refused", sent.len());
    let answered = sent.len() - refused;
    // It is halved each time that it finds the edge: TCP's saw, and TCP's price.
    assert!(answered * 2 >= 60 * 20 * 8, "{answered} answered");
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_answers_take_now_this_long_now_that_is_not_taken_for_crowded() {
    // From a half to twice the time, without an order (the bits of the golden ratio).
    let uneven = |n: usize| {
        let spread = (n as u32).wrapping_mul(2_654_435_769) >> 16;
        QUICK.mul_f64(0.5 + f64::from(spread) / 65_536.0 * 1.5)
    };
    let sent = load(&limiter(32), Provider::new(1_000, false), uneven, 60 * SECOND).await;
    let mean = mean_under_way(&sent, 5 * SECOND);
    assert!(mean > 28.8, "{mean} of 32");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_halved_holds_although_others_wait_and_grows_again() {
    let limiter = limiter(32);
    load(&limiter, Provider::new(1_000, false), |_| QUICK, 2 * SECOND).await;
    assert_eq!(limiter.concurrency(), 32);
    let permit = limiter.admit(1_000).await.expect("admitted");
    permit.end(Ending::RateLimited);
    assert_eq!(limiter.concurrency(), 16);
    let sent = load(&limiter, Provider::new(1_000, false), |_| QUICK, 2 * SECOND).await;
    let first = sent.iter().filter(|sent| sent.at < QUICK).map(|sent| sent.under_way).max();
    assert_eq!(first, Some(16));
    assert_eq!(limiter.concurrency(), 32);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_gives_its_place_back() {
    let limiter = limiter(1);
    for _ in 0..3 {
        drop(limiter.admit(1).await.expect("admitted"));
    }
    let held = limiter.admit(1).await.expect("admitted");
    let second = tokio::time::timeout(SECOND, limiter.admit(1)).await;
    assert!(second.is_err(), "there is one place");
    drop(held);
    assert!(limiter.admit(1).await.is_ok());
}
