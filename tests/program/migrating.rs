//! `migrate` by several at once, and by one that is killed in the middle.

use sqlx::{Connection, PgConnection};

use super::serving::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};
use crate::harness::{TestDatabase, eventually};

/// Whoever creates the table of chunk sets, in the third migration, waits for this lock.
const HURDLE: &str =
    "create function wait_for_the_test() returns event_trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock(42) from pg_event_trigger_ddl_commands()
        where object_identity = 'public.chunk_sets';
    end $$;
    create event trigger hurdle on ddl_command_end when tag in ('CREATE TABLE')
    execute function wait_for_the_test()";

const SESSIONS: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'embedding-recovery'";

const MIGRATIONS: &str = "select count(*) from _sqlx_migrations where success";

/// The schema is whole: the service works on it.
async fn assert_works(database: &TestDatabase) {
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3)]).await;
    let served = run(&mut serve(database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.stdout, "done: 1 completed, 0 dead letters, 0 open\n", "{served:?}");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_migrate_at_once_take_turns_and_all_succeed() {
    let database = TestDatabase::bare().await;
    let mut migrators = Vec::new();
    for _ in 0..3 {
        migrators.push(database.program(&["migrate"]).spawn().unwrap());
    }
    for migrator in migrators {
        let ended = end_of(migrator).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let twice = "select count(*) - count(distinct version) from _sqlx_migrations";
    assert_eq!(database.value::<i64>(twice).await, 0);
    assert_works(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_migrator_was_killed_over_is_undone_and_the_next_one_goes_on() {
    let database = TestDatabase::bare().await;
    database.execute(HURDLE).await;
    let mut hurdle = PgConnection::connect(&database.url).await.unwrap();
    sqlx::query("select pg_advisory_lock(42)").execute(&mut hurdle).await.unwrap();
    let killed = database.program(&["migrate"]).spawn().unwrap();
    database
        .wait_until("select exists (select from pg_locks where locktype = 'advisory' and objid = 42 and not granted)")
        .await;
    let before = database.value::<i64>(SESSIONS).await;
    let waiting = database.program(&["migrate"]).spawn().unwrap();
    eventually("the second one is there", async || database.value::<i64>(SESSIONS).await > before)
        .await;
    assert_eq!(database.value::<i64>(MIGRATIONS).await, 2, "it is in the middle of the third");
    signal(&killed, "KILL").await;
    assert_eq!(end_of(killed).await.code, None, "it was killed");
    hurdle.close().await.unwrap();
    let ended = end_of(waiting).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    database.store.check_schema().await.unwrap();
    assert_works(&database).await;
}
