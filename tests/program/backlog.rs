//! `backlog load`: all the way, beside others, and killed at every point.

use tokio::process::Command;

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::program::{end_of, program, run, signal};
use crate::harness::{TestDatabase, eventually};

/// `backlog load` over a test's database and the fake API, with short waits.
fn load(database: &TestDatabase, fake: &FakeOpenAi, more: &[&str]) -> Command {
    let mut command = database.program(&["backlog", "load"]);
    command
        .args(["--retry-delays", "50ms,50ms,50ms", "--lease-secs", "2"])
        .args(more)
        .env("OPENAI_BASE_URL", fake.base_url())
        .env("OPENAI_API_KEY", "sk-test-key");
    command
}

/// The index of the vectors: `valid`, `invalid` or `missing`.
const INDEX: &str = "select coalesce((
    select case when i.indisvalid then 'valid' else 'invalid' end
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
    where a.amname = 'hnsw'), 'missing')";
const IS_VALID: &str = "select exists (select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam where a.amname = 'hnsw' and i.indisvalid)";
const IS_MISSING: &str = "select not exists (select from pg_class c join pg_am a on a.oid = c.relam where a.amname = 'hnsw')";
const IS_BUILT_NOW: &str =
    "select exists (select from pg_stat_progress_create_index where datname = current_database())";
/// The session that loads, as the server knows it.
const NOBODY_LOADS: &str = "select not exists (select from pg_locks where locktype = 'advisory' and classid = x'656d62'::int and objid = x'626b6c67'::int and database = (select oid from pg_database where datname = current_database()))";

/// One call that is embedded, under an index, and three that are queued; the API hangs on the second of
/// those.
async fn with_a_hanging_call() -> (TestDatabase, FakeOpenAi) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(9, 2)]).await;
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    assert_eq!(database.value::<String>(INDEX).await, "valid");
    fake.on(|inputs| inputs.iter().any(|input| input.contains("call2turn")), Reply::Hang);
    database.import(&[call(1, 3), call(2, 3), call(3, 3)]).await;
    (database, fake)
}

/// Keeps every build of an index waiting for as long as it is held.
async fn hold_builds(database: &TestDatabase) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut held = database.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table transcript_chunks in row exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    held
}

async fn is_loaded(database: &TestDatabase, chunks: i64) -> bool {
    database.value::<i64>("select count(*) from searchable_chunks").await == chunks
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_it_begins_only_with_yes_and_says_first_what_it_does() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 4)]).await;
    let refused = run(&mut load(&database, &fake, &[])).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("add --yes"), "{refused:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_attempts").await, 0);

    let loaded = run(&mut load(&database, &fake, &["--yes"])).await;
    assert_eq!(loaded.code, Some(0), "{loaded:?}");
    assert!(loaded.stdout.starts_with("to load: 2 recordings, about "), "{loaded:?}");
    assert!(loaded.stdout.contains("search finds everything meanwhile"), "{loaded:?}");
    let ended = "done: 2 completed, 0 dead letters, 0 open\nthe index is built and valid\n";
    assert!(loaded.stdout.ends_with(ended), "{loaded:?}");
    assert_eq!(database.value::<String>(INDEX).await, "valid");
    assert!(is_loaded(&database, 7).await);
    database.assert_sound().await;

    let again = run(&mut load(&database, &fake, &["--yes"])).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("there is nothing to load"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_loads_search_says_so_and_others_help_and_leave_the_index_alone() {
    let (database, fake) = with_a_hanging_call().await;
    let loading = load(&database, &fake, &["--yes", "--claim-batch", "1"]).spawn().unwrap();
    database.wait_until(IS_MISSING).await;
    database.wait_until("select exists (select from embedding_queue where recording_id = 2 and status = 'processing')").await;

    let mut search = database.program(&["search", "word1of1", "--json"]);
    search.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    let found = run(&mut search).await;
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stderr.contains("warning: there is no index of the vectors now"), "{found:?}");
    assert!(found.stdout.contains("\"exact_scan\":true"), "{found:?}");

    let second = run(&mut load(&database, &fake, &["--yes"])).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another backlog load is under way"), "{second:?}");

    let mut doctor = database.program(&["doctor"]);
    let told = run(doctor.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "k")).await;
    assert!(told.stdout.contains("a backlog load is under way"), "{told:?}");

    let helping = serve(&database, &fake, &[]).spawn().unwrap();
    eventually("the others are loaded", async || is_loaded(&database, 8).await).await;
    assert_eq!(database.value::<String>(INDEX).await, "missing");
    fake.recover();
    fake.release();
    let loaded = end_of(loading).await;
    assert_eq!(loaded.code, Some(0), "{loaded:?}");
    assert_eq!(database.value::<String>(INDEX).await, "valid");
    assert!(is_loaded(&database, 11).await);
    signal(&helping, "TERM").await;
    let helped = end_of(helping).await;
    assert_eq!(helped.code, Some(0), "{helped:?}");
    assert!(helped.stderr.contains("a backlog load is under way"), "{helped:?}");
    let found = run(&mut search).await;
    assert!(found.stdout.contains("\"exact_scan\":false"), "{found:?}");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_loads_a_service_that_runs_beside_finishes_and_builds_the_index() {
    let (database, fake) = with_a_hanging_call().await;
    let loading = load(&database, &fake, &["--yes"]).spawn().unwrap();
    database.wait_until(IS_MISSING).await;
    database.wait_until("select exists (select from embedding_queue where recording_id = 2 and status = 'processing')").await;
    const WORKERS: &str = "select count(*) from workers";
    let workers = database.value::<i64>(WORKERS).await;
    let often = ["--lease-secs", "2", "--schedule", "* * * * *"];
    let serving = serve(&database, &fake, &often).spawn().unwrap();
    let serves = async || database.value::<i64>(WORKERS).await > workers;
    eventually("the service runs", serves).await;
    signal(&loading, "KILL").await;
    assert_eq!(end_of(loading).await.code, None, "it was killed");
    fake.recover();
    fake.release();
    database.wait_until(IS_VALID).await;
    eventually("everything is loaded", async || is_loaded(&database, 11).await).await;
    signal(&serving, "TERM").await;
    assert_eq!(end_of(serving).await.code, Some(0));
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_loads_the_same_command_goes_on() {
    let (database, fake) = with_a_hanging_call().await;
    let loading = load(&database, &fake, &["--yes"]).spawn().unwrap();
    database.wait_until(IS_MISSING).await;
    eventually("the others are loaded", async || is_loaded(&database, 8).await).await;
    signal(&loading, "KILL").await;
    assert_eq!(end_of(loading).await.code, None, "it was killed");
    fake.recover();
    fake.release();
    database.wait_until(NOBODY_LOADS).await;
    let again = run(&mut load(&database, &fake, &["--yes"])).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.starts_with("to load: 1 recordings"), "{again:?}");
    assert_eq!(database.value::<String>(INDEX).await, "valid");
    assert!(is_loaded(&database, 11).await);
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_builds_the_half_built_index_is_built_anew() {
    for rebuilt_by_serve in [true, false] {
        let database = TestDatabase::new().await;
        let fake = FakeOpenAi::start(8);
        database.import(&[call(1, 3)]).await;
        let held = hold_builds(&database).await;
        let loading = load(&database, &fake, &["--yes"]).spawn().unwrap();
        database.wait_until(IS_BUILT_NOW).await;
        assert!(is_loaded(&database, 3).await, "it is built after everything is stored");
        signal(&loading, "KILL").await;
        assert_eq!(end_of(loading).await.code, None, "it was killed");
        // The server does not know yet, and goes on.
        let too_early = run(&mut load(&database, &fake, &["--yes"])).await;
        assert!(too_early.stderr.contains("the server is still at its index"), "{too_early:?}");
        // Now the server's part dies too.
        database.execute("select pg_terminate_backend(pid) from pg_stat_progress_create_index where datname = current_database()").await;
        database.wait_until(NOBODY_LOADS).await;
        assert_eq!(database.value::<String>(INDEX).await, "invalid");
        held.rollback().await.unwrap();
        let mut again = match rebuilt_by_serve {
            true => serve(&database, &fake, &["--exit-when-idle"]),
            false => load(&database, &fake, &["--yes"]),
        };
        let again = run(&mut again).await;
        assert_eq!(again.code, Some(0), "{again:?}");
        assert_eq!(database.value::<String>(INDEX).await, "valid");
        database.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_ends_the_build_as_well_and_says_who_goes_on() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3)]).await;
    let held = hold_builds(&database).await;
    let loading = load(&database, &fake, &["--yes"]).spawn().unwrap();
    database.wait_until(IS_BUILT_NOW).await;
    signal(&loading, "TERM").await;
    let stopped = end_of(loading).await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.stdout.contains("the index is not built: search looks at"), "{stopped:?}");
    assert!(database.value::<bool>(NOBODY_LOADS).await);
    held.rollback().await.unwrap();
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    assert_eq!(database.value::<String>(INDEX).await, "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_in_the_middle_does_not_leave_search_without_its_index() {
    let (database, fake) = with_a_hanging_call().await;
    fake.recover();
    fake.script([Reply::Normal]);
    fake.on(|_| true, Reply::error(401, "invalid_api_key", "Incorrect API key provided"));
    let ended = run(&mut load(&database, &fake, &["--yes"])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("cannot go on: the provider refuses the key"), "{ended:?}");
    assert!(ended.stdout.ends_with("the index is built and valid\n"), "{ended:?}");
    assert_eq!(database.value::<String>(INDEX).await, "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flag_of_it_has_an_environment_variable() {
    let help = run(&mut program(&["backlog", "load", "--help"])).await.stdout;
    let flags = help.matches("\n      --").count() + help.matches(", --").count();
    assert_eq!(help.matches("[env: ").count(), flags - 1, "{help}");
    assert!(help.contains("Examples:\n"), "{help}");
}
