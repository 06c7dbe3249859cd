//! How many requests are in flight, as the fake counts them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::harness::eventually;

const LATENCY: Duration = Duration::from_millis(50);
/// More than any limit of these tests.
const CALLERS: usize = 48;

fn bounded(fake: &FakeOpenAi, requests_in_flight: usize) -> OpenAiEmbedder {
    with(OpenAiSettings { requests_in_flight, ..settings(fake) })
}

/// Keeps as many callers asking as there may be, until `watched` ends.
async fn under_load(embedder: &OpenAiEmbedder, watched: impl Future<Output = ()>) {
    let is_over = AtomicBool::new(false);
    let inputs = texts(["text"]);
    let callers = (0..CALLERS).map(async |_| {
        while !is_over.load(Ordering::Relaxed) {
            embedder.embed(&inputs).await.expect("embedded");
        }
    });
    let watched = async {
        watched.await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures::future::join_all(callers), watched);
}

/// Numbers in flight when each request came, those before the `since`th not counted.
fn in_flight(fake: &FakeOpenAi, since: usize) -> Vec<usize> {
    fake.requests()[since..].iter().map(|seen| seen.in_flight).collect()
}

/// Waits until so many are in flight.
async fn wait_for_in_flight(fake: &FakeOpenAi, wanted: usize) {
    let what = format!("{wanted} in flight");
    eventually(&what, async || in_flight(fake, 0).last() >= Some(&wanted)).await;
}

#[tokio::test]
async fn an_api_without_a_limit_is_soon_asked_as_much_as_is_allowed_and_never_more() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    fake.on(|_| true, Reply::Delay(LATENCY));
    let embedder = bounded(&fake, 32);
    under_load(&embedder, wait_for_in_flight(&fake, 29)).await;
    let seen = in_flight(&fake, 0);
    assert!(seen.iter().all(|in_flight| *in_flight <= 32), "{seen:?}");
    assert!(seen[..8].iter().all(|in_flight| *in_flight <= 4), "it began low: {seen:?}");
}

#[tokio::test]
async fn an_api_that_slows_down_under_load_is_asked_about_as_much_as_it_works_on_at_once() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    fake.on(|_| true, Reply::Crowded { at_ease: 8, time: LATENCY });
    let embedder = bounded(&fake, 48);
    under_load(&embedder, fake.wait_for_requests(800)).await;
    let seen = in_flight(&fake, 200);
    let mean = seen.iter().sum::<usize>() as f64 / seen.len() as f64;
    assert!((5.0..13.0).contains(&mean), "{mean} in flight on average: {seen:?}");
}

#[tokio::test]
async fn after_a_rate_limit_or_an_error_fewer_are_in_flight_at_once_and_then_more_again() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    fake.on(|_| true, Reply::Delay(LATENCY));
    let embedder = bounded(&fake, 32);
    under_load(&embedder, async {
        for trouble in [
            Reply::RateLimited { retry_after: Duration::from_millis(1) },
            Reply::error(503, "overloaded", "busy"),
        ] {
            wait_for_in_flight(&fake, 29).await;
            let before = fake.requests().len();
            fake.script([trouble]);
            // It takes about a hundred to grow back.
            fake.wait_for_requests(before + 64).await;
            let seen = in_flight(&fake, before);
            let has_backed_off =
                seen.windows(16).any(|sixteen| sixteen.iter().all(|in_flight| *in_flight <= 17));
            assert!(has_backed_off, "{seen:?}");
        }
        wait_for_in_flight(&fake, 29).await;
    })
    .await;
}
