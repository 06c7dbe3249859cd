//! `recover`, `run`, `pause`, `resume` and `discard`, with a service and without one.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::{Ended, end_of, run, signal};

/// Recordings 1 and 2 are dead letters, and complete for but one chunk each; 3 is complete. The
/// provider is well again.
pub(super) async fn two_dead_letters() -> (TestDatabase, FakeOpenAi) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let refused = Reply::error(500, "server_error", "The server had an error.");
    let sick = |inputs: &[String]| inputs.iter().any(|text| text.contains("turn7 "));
    fake.on(sick, refused);
    database.import(&[call(1, 8), call(2, 8), call(3, 2)]).await;
    database.execute("update embedding_queue set max_attempts = 1").await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.stdout, "done: 1 completed, 2 dead letters, 0 open\n", "{served:?}");
    fake.recover();
    (database, fake)
}

/// A command with the settings of the service.
pub(super) async fn command(database: &TestDatabase, fake: &FakeOpenAi, args: &[&str]) -> Ended {
    let mut command = database.program(args);
    command.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    run(&mut command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_recover_does_the_work_itself_and_verify_is_content() {
    let (database, fake) = two_dead_letters().await;
    let dry = command(&database, &fake, &["recover", "--all", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.stdout.contains("16 chunks, 14 stored already"), "{dry:?}");
    assert!(dry.stdout.contains("2 tried within the hour: only with --force"), "{dry:?}");
    assert!(dry.stdout.ends_with("2 dead letters; nothing was changed\n"), "{dry:?}");
    let unknown = command(&database, &fake, &["recover", "77", "--dry-run"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("no recording 77 is stored"), "{unknown:?}");
    let refused = command(&database, &fake, &["recover", "1"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("it may be tried again at"), "{refused:?}");
    let one = command(&database, &fake, &["recover", "1", "--force"]).await;
    assert_eq!(one.code, Some(0), "{one:?}");
    assert!(one.stdout.ends_with("done: completed\n"), "{one:?}");
    let all = command(&database, &fake, &["recover", "--all", "--force", "--json", "--wait"]).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    let json = r#"{"recordings":1,"ended":1,"completed":1,"outcome":"completed"}"#;
    assert_eq!(all.stdout.trim(), json);
    assert_eq!(run(&mut database.program(&["verify"])).await.code, Some(0));
    let texts: Vec<String> =
        fake.bought().into_iter().filter(|text| text.contains("turn")).collect();
    assert_eq!(texts.len(), 18, "a stored chunk was bought again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_exits_1_with_the_reason() {
    let (database, fake) = two_dead_letters().await;
    fake.on(
        |inputs| inputs.iter().any(|text| text.contains("turn7 ")),
        Reply::error(500, "server_error", "The server had an error."),
    );
    let failed = command(&database, &fake, &["recover", "1", "--force"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("done: dead_letter: the provider answers a probe but"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_left_to_the_service_that_is_alive_and_found_by_it() {
    let (database, fake) = two_dead_letters().await;
    let service = serve(&database, &fake, &[]).spawn().unwrap();
    database
        .execute(
            "insert into workers (id, host, version, model, alive_until, slots)
             values (gen_random_uuid(), 'a host', '0', 'a model', now() + interval '1 hour', 1)",
        )
        .await;
    let asked = command(&database, &fake, &["recover", "2", "--force"]).await;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert!(asked.stdout.contains("as soon as a process is free"), "{asked:?}");
    database
        .wait_until("select count(*) = 2 from embedding_queue where status = 'completed'")
        .await;
    let matching = "select failure_fingerprint from embedding_queue where status = 'dead_letter'";
    let fingerprint = database.value::<String>(matching).await;
    let args = ["recover", "--matching", &fingerprint, "--force", "--wait"];
    let waited = command(&database, &fake, &args).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(waited.stdout.ends_with("done: completed\n"), "{waited:?}");
    signal(&service, "TERM").await;
    assert_eq!(end_of(service).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_to_end_when_idle_first_does_the_recoveries_that_are_asked_for() {
    let (database, fake) = two_dead_letters().await;
    // As after an interruption: asked for, and to be taken up in a while.
    database
        .execute(
            "with asked as (insert into admin_actions (requested_by, action, recordings)
                            values ('ann', 'recover_many', 2) returning id)
             update embedding_queue set recovery_requested = asked.id,
                    next_retry_at = clock_timestamp() + interval '3 seconds'
             from asked where status = 'dead_letter'",
        )
        .await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.stdout, "done: 3 completed, 0 dead letters, 0 open\n", "{served:?}");
    // What a pause holds back is not waited for.
    database.execute("insert into pauses (part, by) values ('recovery', 'ann')").await;
    let forced = command(&database, &fake, &["run", "recovery"]).await;
    assert_eq!(forced.code, Some(1), "{forced:?}");
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.code, Some(0), "{served:?}");
}

/// Where a service has its page, and the rest of what it logs, which must be kept to be read.
pub(super) async fn page_of(service: &mut Child) -> (String, Lines<BufReader<ChildStderr>>) {
    let mut log = BufReader::new(service.stderr.take().unwrap()).lines();
    loop {
        let line = log.next_line().await.unwrap().expect("a service says where its page is");
        if let Some((_, rest)) = line.split_once("the page is at ") {
            return (rest.split(';').next().unwrap().to_owned(), log);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_recovers_what_it_is_asked_for_over_http() {
    let (database, fake) = two_dead_letters().await;
    let mut service = serve(&database, &fake, &[]).spawn().unwrap();
    let (page, _log) = page_of(&mut service).await;
    let url = format!("{page}v1/recordings/1/recover");
    // Fails only where another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let refused = client.post(&url).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("it may be tried again at"));
    let asked = client.post(&url).json(&json!({ "force": true })).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    database
        .wait_until("select count(*) = 2 from embedding_queue where status = 'completed'")
        .await;
    let kept =
        "select count(*) = 1 from admin_actions where recording_id = 1 and outcome = 'completed'";
    database.wait_until(kept).await;
    assert_eq!(fake.bought().iter().filter(|text| text.contains("call1turn")).count(), 8);
    signal(&service, "TERM").await;
    assert_eq!(end_of(service).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_paused_resumed_and_run_and_a_dead_letter_is_discarded() {
    let (database, fake) = two_dead_letters().await;
    let paused = command(&database, &fake, &["pause"]).await;
    assert_eq!(paused.stdout, "paused: main, recovery\n", "{paused:?}");
    let refused = command(&database, &fake, &["run", "recovery"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("`embedding-recovery resume recovery` lets it go on"));
    let resumed = command(&database, &fake, &["resume", "recovery"]).await;
    assert_eq!(resumed.stdout, "goes on: recovery\n");
    let asked = command(&database, &fake, &["run", "recovery"]).await;
    assert!(asked.stdout.contains("no service is alive"), "{asked:?}");
    let args = ["discard", "1", "--reason", "an empty test call"];
    let discarded = command(&database, &fake, &args).await;
    assert_eq!(discarded.code, Some(0), "{discarded:?}");
    let again = command(&database, &fake, &args).await;
    assert!(again.stderr.contains("is no dead letter but not queued"), "{again:?}");
    let service = serve(&database, &fake, &[]).spawn().unwrap();
    // The run that was asked for while nobody was there.
    database
        .wait_until("select count(*) = 2 from embedding_queue where status = 'completed'")
        .await;
    signal(&service, "TERM").await;
    assert_eq!(end_of(service).await.code, Some(0));
}
