//! `monitor`, `explain`, `jobs` and `runs` over databases in every state of health, as the README
//! shows them.

mod seed;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::TestDatabase;
use crate::harness::program::{Ended, run};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// What the README shows after a marker.
fn shown<'a>(readme: &'a str, marker: &str) -> &'a str {
    let marker = format!("<!-- {marker} -->\n");
    let (_, rest) = readme.split_once(marker.as_str()).expect(&marker);
    let (_, block) = rest.split_once("```text\n").unwrap();
    block.split("```").next().unwrap()
}

async fn monitor(database: &TestDatabase) -> Ended {
    run(&mut database.program(&["monitor"])).await
}

/// A page in which the one time that hangs on the clock is always the same.
fn steady(page: &str) -> String {
    let line = |line: &str| match line.split_once(" runs in ") {
        Some((schedule, _)) => format!("{schedule} runs in 3 min\n"),
        None => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_prints_what_the_readme_shows_in_all_three_states_of_health() {
    let readme = readme();
    let healthy = TestDatabase::new().await;
    seed::healthy(&healthy).await;
    let ended = monitor(&healthy).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with(shown(&readme, "monitor: healthy")), "{}", ended.stdout);

    let warning = TestDatabase::new().await;
    seed::warning(&warning).await;
    let ended = monitor(&warning).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(steady(&ended.stdout), shown(&readme, "monitor: warning"), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\u{1b}'), "colours for no terminal");

    let critical = TestDatabase::new().await;
    seed::critical(&critical).await;
    let ended = monitor(&critical).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stdout.starts_with(shown(&readme, "monitor: critical")), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_as_json_begins_with_the_tasks_and_has_every_section() {
    let database = TestDatabase::new().await;
    seed::warning(&database).await;
    let ended = run(&mut database.program(&["monitor", "--json"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let begins =
        r#"{"tasks":{"pending":3,"processing":1,"completed":40,"failed":2,"dead_letter":2}"#;
    assert!(ended.stdout.starts_with(begins), "{}", ended.stdout);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["health"]["state"], "warning");
    assert_eq!(told["retry_ready"], 1);
    assert_eq!(told["dead_letters"]["rows"][0]["segment_count"], 3);
    assert_eq!(told["dead_letters"]["groups"][0]["count"], 2);
    assert_eq!(told["jobs"][0]["completed"], 40);
    assert_eq!(told["in_flight"][0]["chunks_stored"], 5);
    assert_eq!(told["first_pass"], serde_json::json!({"tried": 42, "succeeded": 36}));
    assert_eq!(told["recovery"], serde_json::json!({"tried": 2, "succeeded": 1}));
    for section in ["workers", "pauses", "schedules"] {
        assert!(told[section][0].is_object(), "{section}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_are_settings_and_an_unreachable_database_is_critical() {
    let database = TestDatabase::new().await;
    seed::healthy(&database).await;
    seed::dead_letters(&database, 50, 70).await;
    assert_eq!(monitor(&database).await.code, Some(2));
    let lax = ["monitor", "--warning-dead-letters", "30", "--critical-dead-letters", "40"];
    assert_eq!(run(&mut database.program(&lax)).await.code, Some(0));
    let mut gone = database.program(&["monitor"]);
    gone.env("DATABASE_URL", "postgres://127.0.0.1:1/calls");
    assert_eq!(run(&mut gone).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_every_worker_is_critical_and_said_to_whoever_asks_for_a_recording()
{
    let database = TestDatabase::new().await;
    seed::healthy(&database).await;
    database
        .execute(
            "update workers set provider_trouble = 'the key is refused',
                 provider_asked_at = now() + interval '5 min 30 s'",
        )
        .await;
    let ended = monitor(&database).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let told = "critical  the worker on worker-1 claims nothing: the key is refused; it asks the provider again in 5 min\n";
    assert!(ended.stdout.contains(told), "{}", ended.stdout);
    assert!(ended.stdout.contains("up for 3 h; claims nothing: the key is refused\n"));
    let waits = run(&mut database.program(&["explain", "41"])).await.stdout;
    assert!(waits.contains("waits for  the provider: no worker claims anything"), "{waits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_is_well_without_any_worker() {
    let database = TestDatabase::new().await;
    let ended = monitor(&database).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("the queue is empty") && ended.stdout.contains("none is alive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_without_a_terminal_prints_page_after_page_and_outlives_an_outage() {
    use tokio::io::AsyncBufReadExt;
    let database = TestDatabase::new().await;
    seed::healthy(&database).await;
    let mut watching = database.program(&["monitor", "--watch", "--json"]).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(watching.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.starts_with(r#"{"tasks":"#), "{first}");
    database
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name = 'embedding-recovery'")
        .await;
    seed::dead_letters(&database, 50, 70).await;
    crate::harness::eventually("it sees what came", async || {
        let line = lines.next_line().await.unwrap().unwrap();
        line.contains(r#""dead_letter":21"#)
    })
    .await;
    crate::harness::program::signal(&watching, "TERM").await;
    let ended = crate::harness::program::end_of(watching).await;
    assert_eq!(ended.code, Some(2), "the last look: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_why_a_recording_is_where_it_is_and_what_would_move_it() {
    let database = TestDatabase::new().await;
    seed::warning(&database).await;
    let paused = run(&mut database.program(&["explain", "45"])).await.stdout;
    assert!(paused.contains("way out    embedding-recovery resume recovery\n"), "{paused}");
    database.execute("delete from pauses").await;
    let template = "https://traces.example.com/{trace_id}";
    let args = ["explain", "45", "--trace-url-template", template];
    let dead = run(&mut database.program(&args)).await;
    assert_eq!(dead.code, Some(0), "{dead:?}");
    for told in [
        "recording 45 of user ann: Call 45\n",
        "state      dead_letter\n",
        "waits for  recovery, which tries it again in 2 h 5 min\n",
        "way out    embedding-recovery recover 45\n",
        "last error a statement ran into statement_timeout\n",
        "segments   3; 1 without text are skipped\n",
        "attempt 4  main",
        "took 20 s  dead_letter  a statement ran into statement_timeout  https://traces.example.com/abc4\n",
    ] {
        assert!(dead.stdout.contains(told), "{told}: {}", dead.stdout);
    }
    let held = run(&mut database.program(&["explain", "44"])).await.stdout;
    for told in ["state      processing", "held by    worker 00000000-", "5 of 12 stored"] {
        assert!(held.contains(told), "{told}: {held}");
    }
    let permanent = run(&mut database.program(&["explain", "46"])).await.stdout;
    assert!(permanent.contains("way out    embedding-recovery recover 46 --force"), "{permanent}");
    let waiting = run(&mut database.program(&["explain", "41", "--json"])).await.stdout;
    let waiting: Value = serde_json::from_str(&waiting).unwrap();
    assert_eq!(waiting["state"], "pending");
    assert!(waiting["waits_for"].as_str().unwrap().starts_with("a free worker: "), "{waiting}");
    let paid = run(&mut database.program(&["explain", "1"])).await.stdout;
    assert!(paid.contains("paid       4800 tokens") && paid.contains("; 2 chunks were"), "{paid}");
    let never = run(&mut database.program(&["explain", "80"])).await.stdout;
    assert!(never.contains("way out    embedding-recovery enqueue --recording 80"), "{never}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_import_for_a_number_that_nobody_holds_and_the_users_where_several_do() {
    let database = TestDatabase::new().await;
    database
        .execute("insert into fathom_calls (user_id, recording_id) values ('ann', 7), ('bob', 7)")
        .await;
    let nobody = run(&mut database.program(&["explain", "8"])).await;
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.contains("no recording 8 is stored; `embedding-recovery import"),
        "{nobody:?}"
    );
    let several = run(&mut database.program(&["explain", "7"])).await;
    assert_eq!(several.code, Some(1));
    assert!(
        several.stderr.contains("held by ann, bob: say whose is meant with --user"),
        "{several:?}"
    );
    let bobs = run(&mut database.program(&["explain", "7", "--user", "bob"])).await;
    assert_eq!(bobs.code, Some(0), "{bobs:?}");
    let hers = run(&mut database.program(&["explain", "8", "--user", "ann"])).await;
    assert!(hers.stderr.contains("user ann has no recording 8"), "{hers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_runs_are_listed_newest_first_up_to_the_limit() {
    let database = TestDatabase::new().await;
    seed::healthy(&database).await;
    database
        .execute(
            "insert into runs (part, cause, started_at, ended_at, taken, completed, failed, stopped_because)
             values ('recovery', 'schedule', now() - interval '2 h', now() - interval '1 h', 5, 5, 0, null),
                    ('recovery', 'request', now() - interval '1 h', now() - interval '50 min', 5, 3, 2, null),
                    ('main', 'schedule', now() - interval '1 min', null, 1, 0, 0, null);
             insert into embedding_jobs (created_at, requested_by) values (now(), 'reconcile')",
        )
        .await;
    let jobs = run(&mut database.program(&["jobs"])).await;
    assert_eq!(jobs.code, Some(0), "{jobs:?}");
    let lines: Vec<&str> = jobs.stdout.lines().collect();
    assert!(lines[0].ends_with("0 of 0 completed, 0 dead, by reconcile"), "{lines:?}");
    assert!(lines[1].ends_with("40 of 41 completed, 0 dead, by enqueue"), "{lines:?}");
    let one = run(&mut database.program(&["jobs", "--limit", "1", "--json"])).await.stdout;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["jobs"].as_array().unwrap().len(), 1);

    let runs = run(&mut database.program(&["runs"])).await.stdout;
    let lines: Vec<&str> = runs.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].ends_with("main by schedule  has not ended: 1 taken, 0 completed, 0 failed"),
        "{runs}"
    );
    let failed = run(&mut database.program(&["runs", "--failed"])).await.stdout;
    assert_eq!(failed.lines().count(), 1, "{failed}");
    assert!(failed.contains("recovery by request  took 10 min: 5 taken, 3 completed, 2 failed"));
}

/// The statement that the README gives for a look at dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn the_investigation_query_of_the_readme_lists_dead_letters() {
    let database = TestDatabase::new().await;
    seed::warning(&database).await;
    let readme = readme();
    let (_, rest) = readme.split_once("<!-- investigation -->\n").unwrap();
    let query = rest.split("```sql\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let rows: Vec<(i64, String, i32, String, i64)> =
        sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(&database.pool).await.unwrap();
    let error = "a statement ran into statement_timeout".to_owned();
    assert_eq!(
        rows,
        [(45, error.clone(), 4, "Call 45".into(), 3), (46, error, 4, "Call 46".into(), 3)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_requests_wait_for_the_rate_limit_is_named_with_the_time() {
    let database = TestDatabase::new().await;
    seed::healthy(&database).await;
    database
        .execute("update workers set provider_paused_until = now() + interval '5 min 30 s'")
        .await;
    let ended = monitor(&database).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = "up for 3 h; rate limited, goes on in 5 min\n";
    assert!(ended.stdout.contains(told), "{}", ended.stdout);
}
