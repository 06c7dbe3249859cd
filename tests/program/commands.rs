//! Flags, exit codes, and commands used wrongly.

use super::{calls_file, meeting};
use crate::harness::TestDatabase;
use crate::harness::program::{program, run};

const EVERY_COMMAND: [&str; 23] = [
    "demo",
    "migrate",
    "import",
    "enqueue",
    "serve",
    "backlog",
    "reembed",
    "search",
    "monitor",
    "explain",
    "jobs",
    "runs",
    "recover",
    "run",
    "pause",
    "resume",
    "discard",
    "verify",
    "probe",
    "doctor",
    "config",
    "completions",
    "man",
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_exits_64_and_help_exits_0_with_examples() {
    for args in [
        &["serve", "--no-such-flag"][..],
        &[],
        &["enqueue"],
        &["import"],
        &["serve", "--schedule", "often"],
    ] {
        let ended = run(&mut program(args)).await;
        assert_eq!(ended.code, Some(64), "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{args:?} says nothing");
    }
    for command in EVERY_COMMAND {
        let help = run(&mut program(&[command, "--help"])).await;
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains("Examples:\n"), "{command} shows no example");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flag_has_an_environment_variable() {
    for command in EVERY_COMMAND {
        let help = run(&mut program(&[command, "--help"])).await.stdout;
        let flags = help.matches("\n      --").count() + help.matches(", --").count();
        let builtin = help.matches("-h, --help").count();
        // What starts or gives up a change of the model is said, never inherited: its five flags.
        let said = if command == "reembed" { 5 } else { 0 };
        assert_eq!(help.matches("[env: ").count() + said, flags - builtin, "{command}:\n{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_a_database_without_a_key_is_an_error_that_names_the_ways_out() {
    let database = TestDatabase::new().await;
    let ended = run(&mut database.program(&["serve", "--exit-when-idle"])).await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    for way_out in
        ["OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL", "EMBEDDING_MODEL=local"]
    {
        assert!(ended.stderr.contains(way_out), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_refused_until_it_is_migrated() {
    let database = TestDatabase::bare().await;
    let refused = run(&mut database.program(&["verify"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("run `embedding-recovery migrate`"), "{refused:?}");
    let migrated = run(&mut database.program(&["migrate"])).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let again = run(&mut database.program(&["migrate"])).await;
    assert_eq!(again.stdout, "the schema is up to date\n");
    assert_eq!(run(&mut database.program(&["verify"])).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_schema_serves_later_programs_only_is_refused() {
    let database = TestDatabase::new().await;
    database.execute("update served_programs set oldest_version = '99.0.0'").await;
    for command in ["verify", "migrate"] {
        let refused = run(&mut database.program(&[command])).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("newer than this program"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enqueue_refuses_unknown_numbers_and_asks_for_the_user_where_two_hold_one() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = calls_file(directory.path(), "calls.jsonl", &[meeting(7, &["hello"])]);
    for user in ["ann", "bob"] {
        let args = ["import", "--no-enqueue", "--user", user, &path];
        assert_eq!(run(&mut database.program(&args)).await.code, Some(0));
    }
    let ambiguous = run(&mut database.program(&["enqueue", "--recording", "7"])).await;
    assert_eq!(ambiguous.code, Some(1));
    assert!(
        ambiguous.stderr.contains("several users (ann, bob): say which with --user"),
        "{ambiguous:?}"
    );
    let unknown = run(&mut database.program(&["enqueue", "--recording", "8"])).await;
    assert!(unknown.stderr.contains("there is no recording 8"), "{unknown:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_queue").await, 0);
    let named = ["enqueue", "--recording", "7", "--user", "bob", "--priority", "3"];
    assert_eq!(run(&mut database.program(&named)).await.code, Some(0));
    let queued = "select user_id || priority from embedding_queue";
    assert_eq!(database.value::<String>(queued).await, "bob3");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_json_begins_with_the_tasks_and_verify_exits_1_with_the_list_where_something_is_wrong()
 {
    let database = TestDatabase::new().await;
    let sound = run(&mut database.program(&["verify", "--json"])).await;
    let begins = r#"{"tasks":{"pending":0,"processing":0,"completed":0,"failed":0,"dead_letter":0},"chunks":0,"#;
    assert!(sound.stdout.starts_with(begins), "{sound:?}");
    database
        .execute(
            "insert into embedding_models (name, dimensions) values ('model', 8);
             insert into fathom_calls (user_id, recording_id) values ('ann', 1);
             insert into embedding_queue (user_id, recording_id, status, completed_at)
             values ('ann', 1, 'completed', now())",
        )
        .await;
    let broken = run(&mut database.program(&["verify"])).await;
    assert_eq!(broken.code, Some(1));
    let listed = "VIOLATED a completed task's chunks are all there: recording 1 of user ann";
    assert!(broken.stdout.contains(listed), "{broken:?}");
}
