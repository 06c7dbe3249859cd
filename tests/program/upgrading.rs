//! A rolling upgrade: the program of one release beside that of the next, on the schema of the next.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::probes::Service;
use crate::harness::program::run;
use crate::harness::{TestDatabase, skipped_for_good_reason};

/// A migration of a later release that only adds: a column to every table, a table, and itself.
const LATER: &str = "do $$ begin
        execute (select string_agg(format('alter table %I add column later text, add column later_count int not null default 0;', tablename), '')
                 from pg_tables where schemaname = 'public' and tablename not like '\\_sqlx%');
    end $$;
    create table later (id bigint primary key);
    insert into _sqlx_migrations (version, description, success, checksum, execution_time)
    values (9999, 'of a later release', true, '', 0)";

#[tokio::test(flavor = "multi_thread")]
async fn a_program_works_on_while_and_after_a_later_release_adds_to_the_schema() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 3)]).await;
    let service = Service::start(serve(&database, &fake, &[])).await;
    database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    database.execute(LATER).await;
    // Its connections have prepared statements of the schema before.
    database.import(&[call(3, 3)]).await;
    database
        .execute("update fathom_transcripts set text = text || ' edited' where recording_id = 1")
        .await;
    database
        .wait_until("select count(*) = 4 and bool_and(status = 'completed') from embedding_queue")
        .await;
    service.wait_until_ready_is(200, "ready").await;
    service.signal("TERM").await;
    let ended = service.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
    // And so do those that start on it.
    database.import(&[call(4, 3)]).await;
    for args in [
        &["serve", "--exit-when-idle"][..],
        &["migrate"],
        &["verify"],
        &["monitor"],
        &["explain", "4"],
        &["jobs"],
        &["runs"],
        &["enqueue", "--all"],
        &["search", "call4turn1"],
        &["doctor"],
    ] {
        let mut command = database.program(args);
        command.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
        let ended = run(&mut command).await;
        // What `doctor` has to say of the server is none of this test's business.
        let well = if args == ["doctor"] { 0..=1 } else { 0..=0 };
        assert!(ended.code.is_some_and(|code| well.contains(&code)), "{args:?}: {ended:?}");
    }
    database.assert_sound().await;
}

/// The program of the release before, built once; this program where there is no release yet.
async fn previous_release() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_embedding-recovery"));
    if let Some(program) = std::env::var_os("PREVIOUS_PROGRAM") {
        return program.into();
    }
    let Some(tag) = newest_tag(Path::new(env!("CARGO_MANIFEST_DIR"))).await else {
        skipped_for_good_reason("no release is before this: the program stands in for it");
        return own;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("previous").join(&tag);
    let program = folder.join("target/release/embedding-recovery");
    if !program.exists() {
        println!("building {tag}");
        std::fs::create_dir_all(&folder).unwrap();
        let build = format!(
            "git archive {tag} | tar -x -C {0} && cd {0} && cargo build --release --locked",
            folder.display()
        );
        let built = Command::new("sh")
            .args(["-c", &build])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .await
            .unwrap();
        assert!(built.success(), "{tag} cannot be built");
    }
    program
}

/// The newest release before this commit, by its tag (`v1.2.3`): one that this commit carries is this
/// release itself.
async fn newest_tag(repository: &Path) -> Option<String> {
    let listed = Command::new("git")
        .args(["tag", "--list", "v[0-9]*", "--sort=-v:refname"])
        .args(["--merged", "HEAD", "--no-contains", "HEAD"])
        .current_dir(repository)
        .output()
        .await;
    let tags = String::from_utf8(listed.ok()?.stdout).ok()?;
    tags.lines().next().map(str::to_owned)
}

#[tokio::test]
async fn the_release_before_is_none_that_this_commit_carries_and_none_of_another_branch() {
    let folder = tempfile::tempdir().unwrap();
    let make = "git init -q -b main && git config user.name a && git config user.email a@b.c
        commit() { git commit -q --allow-empty -m \"$1\"; }
        commit 1 && git tag v1.2.0 && commit 2 && git tag v1.10.0
        git checkout -q -b other && commit 3 && git tag v2.0.0 && git checkout -q main
        commit 4 && git tag v1.11.0";
    let made = Command::new("sh").args(["-ec", make]).current_dir(folder.path()).status().await;
    assert!(made.unwrap().success());
    assert_eq!(newest_tag(folder.path()).await.as_deref(), Some("v1.10.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_shares_the_work_with_this_program_on_this_schema() {
    let previous = previous_release().await;
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    fake.on(|inputs| inputs.len() > 1, Reply::Delay(std::time::Duration::from_millis(200)));
    let few = ["--claim-batch", "1"];
    let now = Service::start(serve(&database, &fake, &few)).await;
    now.wait_until_ready_is(200, "ready").await;
    let mut command = Command::new(&previous);
    let today = serve(&database, &fake, &few);
    let today = today.as_std();
    command.args(today.get_args()).env_clear().kill_on_drop(true);
    command.envs(today.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let before = Service::start(command).await;
    before.wait_until_ready_is(200, "ready").await;
    database.import(&(1..=20).map(|id| call(id, 3)).collect::<Vec<_>>()).await;
    database
        .wait_until("select count(*) = 20 and bool_and(status = 'completed') from embedding_queue")
        .await;
    let workers =
        "select count(distinct worker_id) from embedding_attempts where outcome = 'completed'";
    assert_eq!(database.value::<i64>(workers).await, 2, "one of them did nothing");
    for service in [before, now] {
        service.signal("TERM").await;
        let ended = service.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    database.assert_sound().await;
}
