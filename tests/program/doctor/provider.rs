//! Providers that do not work, and models that do not fit.

use super::*;
use crate::fakes::openai::Reply;

/// The program without a database, before a provider at this URL.
fn before(base_url: &str) -> (tempfile::TempDir, Command) {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("none");
    let mut doctor = program(&["doctor", "--data-dir", &data_dir.to_string_lossy()]);
    doctor.env("OPENAI_BASE_URL", base_url).env("OPENAI_API_KEY", KEY);
    (directory, doctor)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_the_provider_has_its_way_out() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let status = |code: u16, body: &str| Reply::Status { code, body: body.into(), headers: vec![] };
    for (reply, way_out) in [
        (status(401, r#"{"error":{"code":"invalid_api_key"}}"#), "OPENAI_API_KEY"),
        (status(404, "{}"), "OPENAI_BASE_URL (up to and with /v1"),
        (status(503, ""), "`serve` waits for it"),
        (status(200, "<html>"), "this is no embeddings API"),
    ] {
        fake.script([reply]);
        let (_directory, mut doctor) = before(fake.base_url());
        let report = Report::of(&mut doctor).await;
        assert_eq!(report.amiss(), [("embedding", "failure")]);
        assert!(report.the("embedding").2.contains(way_out), "{report:?}");
        assert!(!format!("{report:?}").contains(KEY), "{report:?}");
    }
    let (_directory, mut doctor) = before("https://nowhere.invalid/v1");
    let report = Report::of(&mut doctor).await;
    assert!(report.the("embedding").2.starts_with("the host is unknown"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_than_the_stored_one_is_a_failure_that_names_the_settings() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    database.execute("insert into embedding_models (name, dimensions) values ('older', 16)").await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    let (severity, message, way_out) = report.the("model");
    assert_eq!(severity, "failure");
    assert!(message.starts_with("older with 16 dimensions is stored, and test-model with 8"));
    assert!(way_out.contains("EMBEDDING_MODEL=older and EMBEDDING_DIMENSIONS=16"), "{way_out}");
}
