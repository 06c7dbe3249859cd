//! Rate limits, sizes and requests in flight.

use super::*;

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_the_request_repeated() {
    let (fake, embedder) = start();
    let limited = Reply::RateLimited { retry_after: Duration::from_millis(1) };
    // More often than a passing failure would be repeated: waiting has no count.
    fake.script(vec![limited; 2]);
    let resets = vec![
        ("x-ratelimit-remaining-requests", "0".into()),
        ("x-ratelimit-reset-requests", "12ms".into()),
    ];
    fake.script([Reply::Status { code: 429, body: String::new(), headers: resets }]);
    embedder.embed(&texts(["text"])).await.expect("embedded");
    assert_eq!(fake.requests().len(), 4);
    assert_eq!(fake.bought(), ["text"]);
}

#[tokio::test]
async fn two_callers_that_are_limited_at_once_both_get_their_vectors() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(OpenAiSettings { requests_in_flight: 2, ..settings(&fake) });
    fake.script(vec![Reply::RateLimited { retry_after: Duration::from_millis(1) }; 2]);
    let inputs = texts(["one", "two"]);
    let (first, second) = tokio::join!(embedder.embed(&inputs[..1]), embedder.embed(&inputs[1..]));
    assert_eq!(first.expect("embedded").vectors, vectors(&inputs[..1], DIMENSIONS));
    assert_eq!(second.expect("embedded").vectors, vectors(&inputs[1..], DIMENSIONS));
}

#[tokio::test]
async fn a_pause_that_one_caller_was_given_stops_every_other_and_a_probe() {
    let (fake, embedder) = start();
    fake.script([Reply::RateLimited { retry_after: TOO_LONG }]);
    for attempt in 0..3 {
        let limited = match attempt {
            2 => embedder.probe().await,
            _ => embedder.embed(&texts(["text"])).await,
        };
        let Err(Failure::RateLimited { retry_after }) = limited else {
            panic!("{limited:?}");
        };
        assert!(retry_after > TOO_LONG / 2 && retry_after <= TOO_LONG, "{retry_after:?}");
    }
    assert_eq!(fake.requests().len(), 1, "only the first was sent");
}

#[tokio::test]
async fn requests_that_no_server_takes_are_refused_here() {
    let (fake, embedder) = start();
    let limits = embedder.limits();
    assert_eq!((limits.inputs_max, limits.tokens_max), (2_048, 300_000));
    let too_many = vec![String::from("x"); 2_049];
    let too_long = vec!["x".repeat(8_193 * 4)];
    let too_large = vec!["x".repeat(8_192 * 4); 37];
    for inputs in [too_many, too_long, too_large] {
        let failure = embedder.embed(&inputs).await.expect_err("a failure");
        assert!(matches!(failure, Failure::RequestRefused { .. }), "{failure:?}");
    }
    assert!(fake.requests().is_empty());
    let largest = vec!["x".repeat(8_192 * 4); 36];
    embedder.embed(&largest).await.expect("embedded");
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_allowed() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(OpenAiSettings { requests_in_flight: 2, ..settings(&fake) });
    fake.hold();
    let inputs = texts(["text"]);
    let all = futures::future::join_all((0..6).map(|_| embedder.embed(&inputs)));
    let watched = async {
        fake.wait_for_requests(2).await;
        // The other four are polled before this is: what they do without an answer, they have done.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.requests().len(), 2);
        fake.release();
    };
    let (embedded, ()) = tokio::join!(all, watched);
    assert!(embedded.iter().all(Result::is_ok));
    assert_eq!(fake.requests().len(), 6);
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_its_place_back_and_its_request_is_not_paid_for() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(OpenAiSettings { requests_in_flight: 1, ..settings(&fake) });
    fake.script([Reply::Hang]);
    let inputs = texts(["abandoned"]);
    tokio::select! {
        _ = embedder.embed(&inputs) => panic!("the fake hangs"),
        () = fake.wait_for_requests(1) => {}
    }
    embedder.embed(&texts(["text"])).await.expect("embedded");
    assert_eq!(fake.bought(), ["text"]);
}

#[tokio::test]
async fn a_budget_that_an_answer_shows_used_up_is_waited_for_without_being_refused() {
    let (fake, embedder) = start();
    let inputs = texts(["text"]);
    let answer = r#"{"data":[{"index":0,"embedding":[1,0,0,0,0,0,0,0]}]}"#;
    let headers = vec![
        ("x-ratelimit-remaining-requests", "0".into()),
        ("x-ratelimit-reset-requests", "1h".into()),
    ];
    fake.script([Reply::Status { code: 200, body: answer.into(), headers }]);
    embedder.embed(&inputs).await.expect("embedded");
    // A probe follows no hint: it overtakes the second request, which began before it.
    let (second, probe) = (embedder.embed(&inputs), embedder.probe());
    tokio::pin!(second);
    tokio::select! {
        biased;
        embedded = &mut second => panic!("{embedded:?}"),
        probed = probe => assert!(probed.is_ok(), "{probed:?}"),
    }
    let sent: Vec<_> = fake.requests().into_iter().flat_map(|seen| seen.inputs).collect();
    assert_eq!(sent, ["text", PROBE_TEXT]);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_a_released_one_comes() {
    let (fake, embedder) = start();
    fake.script([Reply::Delay(Duration::from_millis(1)), Reply::Hang]);
    embedder.embed(&texts(["slow"])).await.expect("embedded");
    let inputs = texts(["released"]);
    let (embedded, ()) = tokio::join!(embedder.embed(&inputs), async {
        fake.wait_for_requests(2).await;
        fake.release();
    });
    embedded.expect("embedded");
    assert_eq!(fake.bought(), ["slow", "released"]);
}

#[tokio::test]
async fn a_provider_that_recovers_is_used_again() {
    let (fake, embedder) = start();
    fake.on(|inputs| inputs[0] == "text", Reply::error(503, "overloaded", "busy"));
    embedder.embed(&texts(["text"])).await.expect_err("a failure");
    embedder.probe().await.expect("other texts are answered");
    fake.recover();
    embedder.embed(&texts(["text"])).await.expect("embedded");
}
