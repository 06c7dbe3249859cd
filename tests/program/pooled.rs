//! The whole program through a real PgBouncer.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::process::Command;

use super::reembedding::{MORE, reembed, searchable};
use super::serving::serve;
use super::{calls_file, meeting};
use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::pooler::PgBouncer;
use crate::harness::program::{Ended, end_of, run, signal};

const ADMIN: &str = "EMBEDDING_RECOVERY_ADMIN_DATABASE_URL";
/// Connections to the server that the pooler has.
const SESSIONS: usize = 5;
/// Processes that work at once over them.
const REPLICAS: usize = 3;

/// Sends a command through the pooler, with a way straight to the server for what needs it.
fn through<'a>(
    command: &'a mut Command,
    pooler: &PgBouncer,
    database: &TestDatabase,
) -> &'a mut Command {
    command.env("DATABASE_URL", &pooler.url).env(ADMIN, &database.url)
}

/// Succeeded, and nothing went amiss that a pooler does to a session.
fn assert_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for amiss in ["prepared statement", "waiting for the database", "current transaction is"] {
        assert!(!ended.stderr.contains(amiss), "{ended:?}");
    }
}

/// In all sessions of the pooler at once: each transaction keeps one.
async fn statements_left_behind(pooler: &PgBouncer) -> i64 {
    let options: PgConnectOptions = pooler.url.parse().unwrap();
    let (mut connections, mut left) = (Vec::new(), 0);
    for _ in 0..SESSIONS {
        let options = options.clone().extra_float_digits(None);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let count = sqlx::raw_sql("begin; select count(*) from pg_prepared_statements");
        left += count.fetch_one(&mut connection).await.unwrap().get::<i64, _>(0);
        connections.push(connection);
    }
    left
}

/// Replicas empty the queue while sources are edited and imported anew.
async fn serve_amid_edits(
    database: &TestDatabase,
    fake: &FakeOpenAi,
    pooler: &PgBouncer,
    file: &str,
) {
    let replicas: Vec<_> = (0..REPLICAS)
        .map(|_| {
            let mut command = serve(database, fake, &["--exit-when-idle"]);
            through(&mut command, pooler, database).spawn().unwrap()
        })
        .collect();
    fake.wait_for_requests(1).await;
    for recording_id in 1..=3 {
        let edit = format!(
            "update fathom_transcripts set edited_text = 'Edited meanwhile, in {recording_id}.'
             where recording_id = {recording_id}"
        );
        database.execute(&edit).await;
        let mut import = database.program(&["import", file, "--json"]);
        assert_well(&run(through(&mut import, pooler, database)).await);
    }
    for replica in replicas {
        assert_well(&end_of(replica).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_through_a_pooler_in_transaction_mode_and_nothing_stays_in_its_sessions() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(8));
    let Some(pooler) = PgBouncer::before(&database, "transaction", "").await else { return };
    let pooled = |args: &[&str]| {
        let mut command = database.program(args);
        through(&mut command, &pooler, &database).env("OPENAI_BASE_URL", fake.base_url());
        command
    };
    assert_well(&run(&mut pooled(&["migrate"])).await);
    let directory = tempfile::tempdir().unwrap();
    let calls: Vec<_> =
        (1..=12).map(|id| meeting(id, &["The budget of spring.", "And its end."])).collect();
    let file = calls_file(directory.path(), "calls.jsonl", &calls);
    assert_well(&run(&mut pooled(&["import", &file])).await);
    serve_amid_edits(&database, &fake, &pooler, &file).await;
    assert_eq!(searchable(&database).await, "text-embedding-3-small 12");

    let found = run(&mut pooled(&["search", "budget", "--json"])).await;
    assert_well(&found);
    assert!(found.stdout.contains(" of spring. And its end."), "{found:?}");
    assert_well(&run(&mut pooled(&["enqueue", "--all"])).await);
    let mut again = serve(&database, &fake, &["--exit-when-idle"]);
    assert_well(&run(through(&mut again, &pooler, &database)).await);

    let bigger = FakeOpenAi::start(MORE);
    let mut change = reembed(&database, &bigger, &["--model", "big", "--yes"]);
    assert_well(&run(through(&mut change, &pooler, &database)).await);
    assert_eq!(searchable(&database).await, "big 12");
    assert_well(&run(&mut pooled(&["verify"])).await);
    assert_eq!(statements_left_behind(&pooler).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_session_of_its_own_says_what_to_set() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(8));
    let Some(pooler) = PgBouncer::before(&database, "transaction", "").await else { return };
    let mut migrate = database.program(&["migrate"]);
    // A way that leads through the pooler as well is none.
    for admin in ["", pooler.url.as_str()] {
        let refused = run(migrate.env("DATABASE_URL", &pooler.url).env(ADMIN, admin)).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("--admin-database-url"), "{refused:?}");
    }
    let other = TestDatabase::bare().await;
    let refused = run(migrate.env(ADMIN, &other.url)).await;
    assert!(refused.stderr.contains("leads to another database"), "{refused:?}");
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    assert_eq!(other.value::<i64>(tables).await, 0, "another database was migrated");
    assert_well(&run(migrate.env(ADMIN, &database.url)).await);
    let mut serve = serve(&database, &fake, &["--exit-when-idle"]);
    let refused = run(serve.env("DATABASE_URL", &pooler.url)).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--admin-database-url"), "{refused:?}");
    assert_well(&run(serve.env(ADMIN, &database.url)).await);
    assert_well(&run(serve.env_remove(ADMIN)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_pooler_new_work_is_found_within_seconds_and_the_lack_of_notifications_told_once()
{
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    let Some(pooler) = PgBouncer::before(&database, "transaction", "").await else { return };
    let mut serve = serve(&database, &fake, &[]);
    let service = through(&mut serve, &pooler, &database).spawn().unwrap();
    for id in 1..=3 {
        database.import(&[call(id, 2)]).await;
        let enqueued = Instant::now();
        let done = "select not exists (select from embedding_queue where status <> 'completed')";
        database.wait_until(done).await;
        // The next tick may be five minutes away. A busy machine gets some patience.
        assert!(enqueued.elapsed() < Duration::from_secs(30), "after {:?}", enqueued.elapsed());
    }
    signal(&service, "TERM").await;
    let ended = end_of(service).await;
    assert_well(&ended);
    assert_eq!(ended.stderr.matches("WARN no notifications").count(), 1, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_is_as_good_as_none() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(8));
    // Each connection of the program keeps one of the pooler's.
    let Some(pooler) = PgBouncer::before(&database, "session", "default_pool_size = 30").await
    else {
        return;
    };
    let mut migrate = database.program(&["migrate"]);
    assert_well(&run(migrate.env("DATABASE_URL", &pooler.url)).await);
    let mut serve = serve(&database, &fake, &[]);
    let service = serve.env("DATABASE_URL", &pooler.url).spawn().unwrap();
    let listens = "select count(*) = 1 from pg_stat_activity
        where datname = current_database() and query ilike 'listen%'";
    database.wait_until(listens).await;
    database.import(&[call(1, 2)]).await;
    let searchable = "select count(*) = 2 from searchable_chunks";
    database.wait_until(searchable).await;
    signal(&service, "TERM").await;
    assert_well(&end_of(service).await);
    let mut verify = database.program(&["verify"]);
    assert_well(&run(verify.env("DATABASE_URL", &pooler.url)).await);
}
