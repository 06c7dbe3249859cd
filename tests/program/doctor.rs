//! `doctor` over databases and providers in every state that it knows.

mod database;
mod provider;

use serde_json::Value;
use tokio::process::Command;

use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::program::{Ended, program, run};

const DIMENSIONS: usize = 8;
const KEY: &str = "sk-test-0123456789abcdefghij";

/// What a run said.
#[derive(Debug)]
struct Report {
    ended: Ended,
    findings: Vec<Value>,
}

impl Report {
    async fn of(doctor: &mut Command) -> Self {
        let ended = run(doctor.arg("--json")).await;
        let told: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let findings = told["findings"].as_array().unwrap().clone();
        let code = match told["result"].as_str().unwrap() {
            "ok" => 0,
            "warning" => 1,
            "failure" => 2,
            other => panic!("{other}"),
        };
        assert_eq!(ended.code, Some(code), "{ended:?}");
        Self { ended, findings }
    }

    /// The only finding of a check: severity, message, way out.
    fn the(&self, check: &str) -> (&str, &str, &str) {
        let of_check: Vec<&Value> =
            self.findings.iter().filter(|finding| finding["check"] == check).collect();
        assert_eq!(of_check.len(), 1, "{check}: {self:#?}");
        let text = |name: &str| of_check[0][name].as_str().unwrap_or_default();
        (text("severity"), text("message"), text("way_out"))
    }

    /// Checks that are not ok.
    fn amiss(&self) -> Vec<(&str, &str)> {
        let amiss = self.findings.iter().filter(|finding| finding["severity"] != "ok");
        amiss
            .map(|finding| {
                assert!(finding["way_out"].is_string(), "no way out: {finding}");
                (finding["check"].as_str().unwrap(), finding["severity"].as_str().unwrap())
            })
            .collect()
    }
}

/// The program over a URL and a provider.
fn doctor(url: &str, fake: &FakeOpenAi) -> Command {
    let mut doctor = program(&["doctor"]);
    doctor
        .env("DATABASE_URL", url)
        .env("OPENAI_BASE_URL", fake.base_url())
        .env("OPENAI_API_KEY", KEY)
        .env("EMBEDDING_MODEL", "test-model");
    doctor
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_environment_is_well_and_one_text_was_embedded_and_nothing_written() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert_eq!(report.amiss(), []);
    assert_eq!(fake.requests().len(), 1);
    for check in
        ["Postgres", "pgvector", "statement_timeout", "pooler", "schema", "rights", "queue"]
    {
        report.the(check);
    }
    let (_, message, _) = report.the("embedding");
    assert!(message.starts_with("test-model at 127.0.0.1:"), "{message}");
    assert!(message.contains(": 8 dimensions, ") && message.contains(" base64"), "{message}");
    assert!(!format!("{report:?}").contains(KEY));
    assert_eq!(database.value::<i64>("select count(*) from embedding_models").await, 0);

    let ended = run(doctor(&database.url, &fake)
        .env("EMBEDDING_MODEL", "local")
        .env_remove("OPENAI_API_KEY"))
    .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = "warning  embedding          the built-in model, which is for trying things out\n                            -> set OPENAI_API_KEY";
    assert!(ended.stdout.contains(line), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("0 failures, 1 warnings\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\u{1b}'), "colours for no terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_findings_beside_the_others() {
    let fake = FakeOpenAi::start(DIMENSIONS);
    let directory = tempfile::tempdir().unwrap();
    let mut bad =
        program(&["doctor", "--data-dir", &directory.path().join("none").to_string_lossy()]);
    bad.env("EMBEDDING_RECOVERY_LEASE_SECS", "soon")
        .env("EMBEDDING_RECOVERY_LEASE_SEC", "90")
        .env("EMBEDDING_RECOVERY_SCHEDULE", "often")
        .env("OPENAI_BASE_URL", fake.base_url())
        .env("OPENAI_HEADERS", format!("no colon {KEY}"));
    let report = Report::of(&mut bad).await;
    assert_eq!(
        report.amiss(),
        [
            ("setting", "failure"),
            ("setting", "failure"),
            ("setting", "warning"),
            ("embedding", "failure")
        ]
    );
    let told = &report.ended.stdout;
    for word in
        ["EMBEDDING_RECOVERY_LEASE_SECS: ", "EMBEDDING_RECOVERY_SCHEDULE: ", "without a colon"]
    {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(told.contains("EMBEDDING_RECOVERY_LEASE_SEC is set, and no setting has this name"));
    assert!(!told.contains(KEY) && !report.ended.stderr.contains(KEY));
    let (severity, message, _) = report.the("own Postgres");
    assert_eq!(severity, "ok");
    assert!(message.contains("the first command"), "{message}");
    assert!(!directory.path().join("none").exists(), "doctor set up a database");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_own_postgres_is_started_where_it_was_set_up_and_stopped_again() {
    let directory = tempfile::Builder::new().permissions(open()).tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let data = data_dir.to_string_lossy();
    let migrated = run(&mut program(&["migrate", "--data-dir", &data])).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let report = Report::of(&mut program(&["doctor", "--data-dir", &data])).await;
    assert_eq!(report.amiss(), []);
    assert_eq!(report.the("schema").1, "up to date");
    assert!(!data_dir.join("pgdata/postmaster.pid").exists(), "the server was left running");
}

/// Under root the server is another user, who must get there.
fn open() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o755)
}
