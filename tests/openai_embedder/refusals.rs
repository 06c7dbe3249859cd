//! Refusals and failures: which are repeated, whom they blame, and what they may say.

use super::*;

#[tokio::test]
async fn a_429_for_a_request_larger_than_the_limit_asks_for_a_split() {
    let message = "Request too large for fake-model on tokens per min (TPM): Limit 10, \
                   Requested 11.";
    let (fake, failure) = failure(Reply::error(429, "rate_limit_exceeded", message)).await;
    assert!(matches!(failure, Failure::RequestRefused { .. }), "{failure:?}");
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_the_headers_show_to_be_larger_than_the_limit_asks_for_a_split() {
    let headers = vec![("x-ratelimit-limit-tokens", "2".into())];
    let (fake, embedder) = start();
    fake.script([Reply::Status { code: 429, body: "{}".into(), headers }]);
    let failure = embedder.embed(&texts(["sixteen bytes are 4 tokens"])).await;
    assert!(matches!(failure, Err(Failure::RequestRefused { .. })), "{failure:?}");
}

#[tokio::test]
async fn an_exhausted_quota_and_a_refused_key_or_model_are_final() {
    let (fake, quota) = failure(Reply::QuotaExhausted).await;
    assert!(matches!(quota, Failure::QuotaExhausted { .. }), "{quota:?}");
    assert_eq!(fake.requests().len(), 1);
    for status in [401, 403, 404] {
        let (fake, refused) = failure(Reply::error(status, "nope", "not allowed")).await;
        assert!(matches!(refused, Failure::KeyRefused { .. }), "{refused:?}");
        assert!(refused.to_string().contains("code nope"), "{refused}");
        assert_eq!(fake.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_request_that_the_provider_refuses_is_not_repeated() {
    for status in [400, 413, 422] {
        let (fake, failure) = failure(Reply::error(status, "too_long", "too long")).await;
        assert!(matches!(failure, Failure::RequestRefused { .. }), "{failure:?}");
        assert_eq!(fake.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_failure_that_passes_is_not_seen_by_the_caller() {
    let (fake, embedder) = start();
    fake.script([Reply::error(500, "oops", "oops"), Reply::CutConnection, Reply::HtmlError]);
    let embedded = embedder.embed(&texts(["text"])).await.expect("embedded");
    assert_eq!(embedded.vectors, vectors(&texts(["text"]), DIMENSIONS));
    assert_eq!(fake.requests().len(), 4);
    assert_eq!(fake.bought(), ["text"]);
}

#[tokio::test]
async fn a_provider_that_goes_on_failing_is_unavailable_after_the_short_retries() {
    for (reply, said) in [
        (Reply::error(503, "overloaded", "busy"), "status 503, code overloaded, type fake: busy"),
        (Reply::HtmlError, "status 502, with a page of HTML"),
        (Reply::CutConnection, "the connection broke"),
    ] {
        let (fake, failure) = failure(reply).await;
        assert!(matches!(failure, Failure::ProviderUnavailable { .. }), "{failure:?}");
        assert!(failure.to_string().contains(said), "{failure}");
        assert_eq!(fake.requests().len(), 4);
        assert!(fake.bought().is_empty());
    }
    assert_eq!(RETRY_DELAYS.map(|delay| delay.as_millis()), [250, 1_000, 3_000]);
}

#[tokio::test]
async fn a_provider_that_says_nothing_or_too_little_at_a_time_runs_into_a_timeout() {
    for reply in [Reply::Hang, Reply::Trickle(Duration::from_millis(1))] {
        let fake = FakeOpenAi::start(DIMENSIONS);
        fake.on(|_| true, reply);
        let read_timeout = Duration::from_millis(50);
        let retry_delays = vec![Duration::from_millis(1)];
        let embedder = with(OpenAiSettings { read_timeout, retry_delays, ..settings(&fake) });
        let inputs = texts(["text"]);
        let embedded = tokio::time::timeout(LONG, embedder.embed(&inputs)).await;
        let failure = embedded.expect("an end").expect_err("a failure");
        assert!(matches!(failure, Failure::ProviderUnavailable { .. }), "{failure:?}");
        assert!(failure.to_string().contains("50ms"), "{failure}");
        assert_eq!(fake.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_unavailable() {
    let (fake, embedder) = start();
    drop(fake);
    let failure = embedder.embed(&texts(["text"])).await.expect_err("a failure");
    assert!(matches!(failure, Failure::ProviderUnavailable { .. }), "{failure:?}");
    assert!(failure.to_string().contains("no connection"), "{failure}");
    assert!(!failure.to_string().contains("127.0.0.1"), "{failure}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (fake, embedder) = start();
    let location = vec![("location", format!("{}/embeddings", fake.base_url()))];
    fake.on(|_| true, Reply::Status { code: 307, body: String::new(), headers: location });
    let failure = embedder.embed(&texts(["text"])).await.expect_err("a failure");
    assert!(failure.to_string().contains("status 307"), "{failure}");
    assert_eq!(fake.requests().len(), 4, "the retries, and nothing else");
}

#[tokio::test]
async fn a_probe_is_sent_once_and_never_blames_its_own_text() {
    let limited = Reply::RateLimited { retry_after: Duration::from_millis(1) };
    for (reply, class) in [
        (Reply::error(500, "oops", "oops"), "provider_unavailable"),
        (Reply::error(400, "invalid", "invalid"), "key_refused"),
        (Reply::QuotaExhausted, "quota_exhausted"),
        (Reply::NaN, "bad_answer"),
        (limited, "rate_limited"),
    ] {
        let (fake, embedder) = start();
        fake.script([reply]);
        let failure = embedder.probe().await.expect_err("a failure");
        assert_eq!(failure.class(), class, "{failure:?}");
        assert_eq!(fake.requests().len(), 1);
        assert_eq!(fake.requests()[0].inputs, [PROBE_TEXT]);
    }
}

#[tokio::test]
async fn what_the_server_echoes_of_inputs_or_key_does_not_reach_a_failure() {
    let said = "our budget is forty thousand dollars";
    for (status, message) in [
        (400, format!("cannot embed '{said}'")),
        (401, format!("the key {KEY} is not known")),
        (500, format!("while embedding ...{}", &said[4..30])),
    ] {
        let (fake, embedder) = start();
        fake.on(|_| true, Reply::error(status, "bad", &message));
        let failure = embedder.embed(&texts([said])).await.expect_err("a failure");
        let shown = format!("{failure} {failure:?}");
        assert!(shown.contains("code bad") && shown.contains("withheld"), "{shown}");
        assert!(!shown.contains("budget") && !shown.contains(KEY), "{shown}");
    }
}
