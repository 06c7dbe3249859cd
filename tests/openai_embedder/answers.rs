//! Answers: how they are asked for, what is taken from them, and what is refused.

use super::*;

#[tokio::test]
async fn base64_is_asked_for_and_the_vectors_and_tokens_are_the_providers() {
    let (fake, embedder) = start();
    let inputs = texts(["the first text", "the second text"]);
    let embedded = embedder.embed(&inputs).await.expect("embedded");
    let expected = Embedded { vectors: vectors(&inputs, DIMENSIONS), tokens: 3 + 3 };
    assert_eq!(embedded, expected);

    let request = &fake.requests()[0];
    assert_eq!(request.inputs, inputs);
    assert_eq!(request.model, "fake-model");
    assert_eq!(request.encoding_format.as_deref(), Some("base64"));
    assert_eq!(request.dimensions, None);
    assert_eq!(request.authorization.as_deref(), Some(format!("Bearer {KEY}").as_str()));
    let user_agent = request.user_agent.as_deref().unwrap_or_default();
    assert!(user_agent.starts_with("embedding-recovery/"), "{user_agent}");
    assert_eq!(fake.bought(), inputs);
    assert_eq!(fake.bought_hashes(), [hash_of(&inputs[0]), hash_of(&inputs[1])]);
}

#[tokio::test]
async fn floats_are_taken_where_base64_is_ignored() {
    let (fake, embedder) = start();
    fake.on(|_| true, Reply::IgnoreBase64);
    let inputs = texts(["one", "two"]);
    let embedded = embedder.embed(&inputs).await.expect("embedded");
    assert_eq!(embedded.vectors, vectors(&inputs, DIMENSIONS));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn floats_are_asked_for_once_and_for_all_after_base64_is_refused() {
    let (fake, embedder) = start();
    fake.on(|_| true, Reply::RefuseBase64);
    let inputs = texts(["one", "two"]);
    for _ in 0..2 {
        let embedded = embedder.embed(&inputs).await.expect("embedded");
        assert_eq!(embedded.vectors, vectors(&inputs, DIMENSIONS));
    }
    let asked: Vec<_> = fake.requests().into_iter().map(|seen| seen.encoding_format).collect();
    assert_eq!(asked, [Some("base64".into()), None, None]);
}

#[tokio::test]
async fn the_dimensions_are_sent_where_they_are_set() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(OpenAiSettings { dimensions: Some(5), ..settings(&fake) });
    let embedded = embedder.embed(&texts(["text"])).await.expect("embedded");
    assert_eq!(embedded.vectors, vectors(&texts(["text"]), 5));
    assert_eq!(fake.requests()[0].dimensions, Some(5));
}

#[tokio::test]
async fn a_server_that_refuses_dimensions_is_asked_without_and_its_vectors_must_fit() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    fake.on(|_| true, Reply::RefuseDimensions);
    for (wanted, fits) in [(DIMENSIONS as u32, true), (5, false)] {
        let sent_before = fake.requests().len();
        let embedder = with(OpenAiSettings { dimensions: Some(wanted), ..settings(&fake) });
        for _ in 0..2 {
            let embedded = embedder.embed(&texts(["text"])).await;
            assert_eq!(embedded.is_ok(), fits);
            assert!(embedded.err().iter().all(is_bad_answer));
        }
        let sent = fake.requests().into_iter().skip(sent_before);
        let sent: Vec<_> = sent.map(|seen| seen.dimensions).collect();
        assert_eq!(sent, [Some(wanted as usize), None, None]);
    }
}

#[tokio::test]
async fn vectors_are_ordered_by_index() {
    let (fake, embedder) = start();
    fake.script([Reply::WrongOrder]);
    let inputs = texts(["one", "two", "three"]);
    let embedded = embedder.embed(&inputs).await.expect("embedded");
    assert_eq!(embedded.vectors, vectors(&inputs, DIMENSIONS));
}

#[tokio::test]
async fn tokens_are_estimated_where_the_server_does_not_count_them() {
    let (fake, embedder) = start();
    fake.script([Reply::NoUsage]);
    let embedded = embedder.embed(&texts(["twelve bytes", "four"])).await.expect("embedded");
    assert_eq!(embedded.tokens, 3 + 1);
}

#[tokio::test]
async fn an_answer_that_must_not_be_stored_is_refused_and_not_bought_again() {
    let not_an_answer =
        Reply::Status { code: 200, body: "<html>hello</html>".into(), headers: Vec::new() };
    for reply in [Reply::WrongCount, Reply::NaN, Reply::ZeroVector, not_an_answer] {
        let (fake, failure) = failure(reply.clone()).await;
        assert!(is_bad_answer(&failure), "{reply:?}: {failure:?}");
        assert_eq!(fake.requests().len(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_nan_in_floats_is_found_too() {
    let (fake, embedder) = start();
    fake.script([Reply::RefuseBase64, Reply::NaN]);
    let failure = embedder.embed(&texts(["text"])).await.expect_err("a failure");
    assert!(is_bad_answer(&failure) && failure.to_string().contains("finite"), "{failure:?}");
}

#[tokio::test]
async fn an_error_inside_an_answer_of_status_200_is_told() {
    let (_fake, failure) = failure(Reply::error(200, "overloaded", "try later")).await;
    assert!(is_bad_answer(&failure), "{failure:?}");
    assert!(failure.to_string().contains("code overloaded"), "{failure}");
}

#[tokio::test]
async fn the_dimension_is_learnt_from_the_first_answer_and_every_later_one_must_match() {
    let (fake, embedder) = start();
    let probed = embedder.probe().await.expect("a probe");
    assert_eq!(probed.vectors, vectors(&texts([PROBE_TEXT]), DIMENSIONS));
    fake.script([Reply::WrongDimension]);
    let failure = embedder.embed(&texts(["text"])).await.expect_err("a failure");
    assert!(is_bad_answer(&failure) && failure.to_string().contains('9'), "{failure:?}");
    embedder.embed(&texts(["text"])).await.expect("embedded");
}

#[tokio::test]
async fn a_dimension_other_than_the_one_that_was_set_is_refused() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(OpenAiSettings { dimensions: Some(5), ..settings(&fake) });
    fake.script([Reply::WrongDimension]);
    let failure = embedder.embed(&texts(["text"])).await.expect_err("a failure");
    assert!(is_bad_answer(&failure), "{failure:?}");
}

#[tokio::test]
async fn an_answer_above_the_size_bound_is_refused() {
    let (fake, failure) = failure(Reply::Endless).await;
    assert!(fake.bought().is_empty());
    assert!(is_bad_answer(&failure) && failure.to_string().contains("more than"), "{failure:?}");
}
