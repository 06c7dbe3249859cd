//! `OpenAiEmbedder` against a provider that misbehaves in every way that it knows of.

mod answers;
mod certificates;
mod concurrency;
mod limits;
mod providers;
mod refusals;

use std::time::Duration;

use embedding_recovery::domain::failure::{Failure, Fault};
use embedding_recovery::embedders::openai::{
    OpenAiEmbedder, OpenAiSettings, OpenAiSettingsError, PROBE_TEXT, RETRY_DELAYS,
};
use embedding_recovery::ports::{Embedded, Embedder};

use crate::fakes::openai::{FakeOpenAi, Reply, hash_of, vector_of};

const DIMENSIONS: usize = 8;
const KEY: &str = "sk-test-0123456789abcdefghij";
/// Far above what any test waits for in earnest.
const LONG: Duration = Duration::from_secs(30);
/// Longer than the embedder waits for by itself.
const TOO_LONG: Duration = Duration::from_secs(3_600);

fn settings(fake: &FakeOpenAi) -> OpenAiSettings {
    let base_url = fake.base_url().parse().expect("a URL");
    OpenAiSettings {
        connect_timeout: LONG,
        read_timeout: LONG,
        retry_delays: vec![Duration::from_millis(1); 3],
        ..OpenAiSettings::new(base_url, Some(KEY.into()), "fake-model".into())
    }
}

fn with(settings: OpenAiSettings) -> OpenAiEmbedder {
    OpenAiEmbedder::new(settings).expect("an embedder")
}

fn start() -> (FakeOpenAi, OpenAiEmbedder) {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let embedder = with(settings(&fake));
    (fake, embedder)
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(String::from).to_vec()
}

fn vectors(inputs: &[String], dimensions: usize) -> Vec<Vec<f32>> {
    inputs.iter().map(|input| vector_of(input, dimensions)).collect()
}

/// What comes of one request to which the fake replies so each time.
async fn failure(reply: Reply) -> (FakeOpenAi, Failure) {
    let (fake, embedder) = start();
    fake.on(|_| true, reply);
    let failure = embedder.embed(&texts(["one", "two"])).await.expect_err("a failure");
    (fake, failure)
}

fn is_bad_answer(failure: &Failure) -> bool {
    matches!(failure, Failure::BadAnswer { .. }) && failure.fault() == Fault::Provider
}

#[tokio::test]
async fn a_server_without_keys_is_sent_none_and_a_slash_at_the_end_of_its_url_does_no_harm() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let base_url = format!("{}/", fake.base_url()).parse().expect("a URL");
    let embedder = with(OpenAiSettings { base_url, api_key: None, ..settings(&fake) });
    embedder.embed(&texts(["text"])).await.expect("embedded");
    assert_eq!(fake.requests()[0].authorization, None);
}

#[tokio::test]
async fn nothing_is_sent_for_no_inputs() {
    let (fake, embedder) = start();
    let embedded = embedder.embed(&[]).await.expect("embedded");
    assert_eq!(embedded, Embedded { vectors: Vec::new(), tokens: 0 });
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn a_probe_finds_out_what_the_server_understands() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let dimensions = Some(DIMENSIONS as u32);
    let embedder = with(OpenAiSettings { dimensions, ..settings(&fake) });
    fake.script([Reply::RefuseBase64, Reply::RefuseDimensions]);
    embedder.probe().await.expect("a probe");
    embedder.embed(&texts(["text"])).await.expect("embedded");
    let requests = fake.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!((&requests[3].encoding_format, requests[3].dimensions), (&None, None));
}

#[tokio::test]
async fn neither_the_key_nor_a_password_is_printed() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let mut settings = settings(&fake);
    settings.base_url.set_password(Some("hunter2-hunter2")).expect("a password");
    settings.headers = vec![("x-team".into(), "hunter2-hunter2".into())];
    let shown = format!("{settings:?} {:?}", with(settings.clone()));
    assert!(shown.contains("fake-model"), "{shown}");
    assert!(!shown.contains(KEY) && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn settings_with_which_nothing_can_be_sent_are_refused() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let refused = |settings: OpenAiSettings| OpenAiEmbedder::new(settings).err();
    let base_url = "mailto:someone@example.com".parse().expect("a URL");
    let wrong = OpenAiSettings { base_url, ..settings(&fake) };
    assert!(matches!(refused(wrong), Some(OpenAiSettingsError::BaseUrl)));
    let wrong = OpenAiSettings { api_key: Some("two\nlines".into()), ..settings(&fake) };
    assert!(matches!(refused(wrong), Some(OpenAiSettingsError::Key)));
    let wrong = OpenAiSettings { requests_in_flight: 0, ..settings(&fake) };
    assert!(matches!(refused(wrong), Some(OpenAiSettingsError::RequestsInFlight)));
}
