//! `serve`: from rows to `done`, and every way in which it cannot.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::program::{end_of, program, run, signal};
use crate::harness::{TestDatabase, eventually, shared_recordings};

/// `serve` over a test's database and the fake API, with short waits.
pub(super) fn serve(database: &TestDatabase, fake: &FakeOpenAi, more: &[&str]) -> Command {
    let mut command = database.program(&["serve", "--retry-delays", "50ms,50ms,50ms"]);
    command.args(more).env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    command
}

/// Everything that a run prints is free of the key and of transcripts.
fn assert_discreet(text: &str) {
    assert!(!text.contains("sk-test-key"), "the key is printed: {text}");
    assert!(!text.contains("call1turn"), "transcript text is printed: {text}");
}

async fn imported(dir: &Path, file: &str) -> Value {
    let data_dir = dir.to_str().unwrap();
    let import = run(&mut program(&["import", "--data-dir", data_dir, "--json", file])).await;
    assert_eq!(import.code, Some(0), "{import:?}");
    serde_json::from_str(&import.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_recordings_complete_with_the_local_model_on_the_embedded_postgres() {
    let Some(recordings) = shared_recordings() else { return };
    let directory = tempfile::Builder::new().permissions(reachable()).tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let summary = imported(&data_dir, recordings.to_str().unwrap()).await;
    assert_eq!(summary["new"], 201);
    let data = ["--data-dir", data_dir.to_str().unwrap()];
    let served = run(program(&["serve", "--exit-when-idle"]).args(data)).await;
    assert_eq!(served.code, Some(0), "{}", served.stderr);
    assert_eq!(served.stdout, "done: 201 completed, 0 dead letters, 0 open\n");
    assert!(served.stderr.contains("built-in local model"), "{}", served.stderr);
    let verified = run(program(&["verify", "--json"]).args(data)).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let report: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(report["recordings"], 201);
    assert!(report["chunks"].as_u64().unwrap() > 5_000, "{report}");
    assert!(!data_dir.join("pgdata/postmaster.pid").exists(), "the server was left running");
}

fn reachable() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o755)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hnsw_index_under_a_statement_timeout_of_300_ms_on_the_role_costs_no_attempt() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(1_536);
    match shared_recordings() {
        Some(path) => {
            let path = path.to_str().unwrap();
            assert_eq!(run(&mut database.program(&["import", path])).await.code, Some(0));
        }
        None => {
            let calls: Vec<_> = (1..=8).map(|id| call(id, 40)).collect();
            database.import(&calls).await;
        }
    }
    let tasks = database.value::<i64>("select count(*) from embedding_queue").await;
    let mut command = serve(&database, &fake, &["--exit-when-idle", "--insert-batch", "500"]);
    command.env("DATABASE_URL", database.url_of_role("set statement_timeout = '300ms'").await);
    let served = run(&mut command).await;
    assert_eq!(served.code, Some(0), "{}", served.stderr);
    assert_eq!(served.stdout, format!("done: {tasks} completed, 0 dead letters, 0 open\n"));
    assert_discreet(&served.stderr);
    let failed = "select coalesce(string_agg(message, '; '), '') from embedding_attempts where outcome <> 'completed'";
    assert_eq!(database.value::<String>(failed).await, "");
    let index = "select count(*) from pg_indexes where indexdef like '%hnsw%halfvec(1536)%'";
    assert_eq!(database.value::<i64>(index).await, 1);
    let chunks = database.value::<i64>("select count(*) from searchable_chunks").await;
    // The probe at the start is one more.
    assert_eq!(fake.bought().len() as i64, 1 + chunks);
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_chunk_ends_in_exit_1_and_a_line_that_counts_the_dead() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let poison = |inputs: &[String]| inputs.iter().any(|input| input.contains("call1turn2 "));
    fake.on(poison, Reply::error(400, "invalid_value", "Invalid input"));
    database.import(&[call(1, 5), call(2, 5)]).await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.code, Some(1), "{}", served.stderr);
    assert_eq!(served.stdout, "done: 1 completed, 1 dead letters, 0 open\n");
    assert_discreet(&served.stderr);
    let reason = database
        .value::<String>(
            "select dead_letter_reason from embedding_queue where status = 'dead_letter'",
        )
        .await;
    assert!(reason.starts_with("chunk 2 is refused by the provider"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_the_api_cannot_be_used() {
    let database = TestDatabase::new().await;
    database.import(&[call(1, 2)]).await;
    let fake = FakeOpenAi::start(8);
    let mut wrong_dimension = serve(&database, &fake, &["--exit-when-idle"]);
    wrong_dimension.env("EMBEDDING_DIMENSIONS", "16");
    fake.script([Reply::WrongDimension]);
    let refused = run(&mut wrong_dimension).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("16"), "{refused:?}");

    fake.script([Reply::error(401, "invalid_api_key", "Incorrect API key provided")]);
    let refused = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("refuses the key or the model"), "{refused:?}");
    assert_discreet(&refused.stderr);

    let gone = FakeOpenAi::start(8);
    let mut unreachable = serve(&database, &gone, &["--exit-when-idle"]);
    drop(gone);
    let refused = run(&mut unreachable).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the embedding API at 127.0.0.1:"), "{refused:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_models").await, 0);
    assert_eq!(database.value::<i64>("select count(*) from embedding_attempts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_model_is_refused_with_the_way_out() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    let mut other = serve(&database, &fake, &["--exit-when-idle"]);
    let refused = run(other.env("EMBEDDING_MODEL", "another")).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("Set EMBEDDING_MODEL=text-embedding-3-small and EMBEDDING_DIMENSIONS=8"),
        "{refused:?}"
    );
    assert_eq!(database.value::<i64>("select count(*) from embedding_models").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_in_the_middle_ends_an_idle_run_with_the_reason_and_blames_no_recording() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 3)]).await;
    fake.script([Reply::Normal]);
    fake.on(|_| true, Reply::error(401, "invalid_api_key", "Incorrect API key provided"));
    let ended = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.starts_with("cannot go on: the provider refuses the key"), "{ended:?}");
    assert!(ended.stdout.ends_with("0 completed, 0 dead letters, 2 open\n"), "{ended:?}");
    assert_eq!(database.value::<i64>("select sum(attempts)::bigint from embedding_queue").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_gives_leases_back_within_the_grace_period_and_exits_0() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 3)]).await;
    let child = serve(&database, &fake, &["--grace-secs", "0"]).spawn().unwrap();
    eventually("the program serves", async || !fake.bought().is_empty()).await;
    fake.hold();
    database.import(&[call(3, 3)]).await;
    database.wait_until("select exists (select from embedding_queue where recording_id = 3 and status = 'processing')").await;
    signal(&child, "TERM").await;
    let ended = end_of(child).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("stopped: "), "{ended:?}");
    assert_eq!(
        database
            .value::<i64>("select count(*) from embedding_queue where status = 'processing'")
            .await,
        0
    );
    let released = "select status || attempts from embedding_queue where recording_id = 3";
    assert_eq!(database.value::<String>(released).await, "pending0");
    fake.release();
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.stdout, "done: 3 completed, 0 dead letters, 0 open\n");
}
