//! What a container asks the program itself: whether the service beside it is well, and whether the
//! schema is there yet.

use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::program::{end_of, program, run, signal};
use crate::harness::{TestDatabase, eventually};

/// An address of this machine that nothing listens on.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_asks_a_service_beside_it_whether_it_is_alive_and_ready() {
    let database = TestDatabase::new().await;
    let address = free_address();
    let probe = async |question: &str| {
        run(program(&["probe", question]).env("EMBEDDING_RECOVERY_PROBE_LISTEN", &address)).await
    };
    let nobody = probe("live").await;
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains(&format!("nobody answers on {address}")), "{nobody:?}");

    let mut serve = database.program(&["serve"]);
    serve.env("EMBEDDING_RECOVERY_PROBE_LISTEN", &address).env("EMBEDDING_MODEL", "local");
    let service = serve.spawn().unwrap();
    eventually("it is ready", async || probe("ready").await.code == Some(0)).await;
    let alive = probe("live").await;
    assert_eq!((alive.code, alive.stdout.as_str()), (Some(0), "alive\n"), "{alive:?}");

    signal(&service, "TERM").await;
    assert_eq!(end_of(service).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_200_is_told_and_fails_the_probe() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.unwrap();
        let answer = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\nstopping\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let unready = run(&mut program(&["probe", "ready", "--probe-listen", &address])).await;
    assert_eq!((unready.code, unready.stdout.as_str()), (Some(1), "stopping\n"), "{unready:?}");
    let request = answering.await.unwrap();
    assert!(request.starts_with("GET /readyz HTTP/1.0\r\n"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_waits_for_the_schema_ends_when_another_has_migrated() {
    let database = TestDatabase::bare().await;
    let mut waiting = database.program(&["migrate", "--wait-only"]).spawn().unwrap();
    // It connects, sees no schema, and changes nothing.
    database
        .wait_until("select exists (select from pg_stat_activity where application_name = 'embedding-recovery' and datname = current_database())")
        .await;
    assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    assert_eq!(database.value::<i64>(tables).await, 0, "it changed something");
    let migrated = run(&mut database.program(&["migrate"])).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let waited = end_of(waiting).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert_eq!(waited.stdout, "the schema is up to date\n");
    assert!(waited.stderr.contains("run `embedding-recovery migrate`"), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_waits_needs_a_database_that_another_can_migrate() {
    let refused = run(&mut program(&["migrate", "--wait-only"])).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("--database-url"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_waits_does_not_wait_for_what_no_waiting_cures() {
    let database = TestDatabase::bare().await;
    let mut absent: url::Url = database.url.parse().unwrap();
    absent.set_path("embedding_recovery_test_absent");
    let mut waiting = program(&["migrate", "--wait-only"]);
    let refused = run(waiting.env("DATABASE_URL", absent.as_str())).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // The server's own words, once.
    assert_eq!(refused.stderr.matches("does not exist").count(), 1, "{refused:?}");
}

/// A first process of a container has no default way to end by a signal; one that listens has.
#[tokio::test(flavor = "multi_thread")]
async fn who_migrates_or_waits_for_it_ends_by_a_signal() {
    let database = TestDatabase::bare().await;
    // Another migrates, and is not through.
    let mut other = database.pool.acquire().await.unwrap();
    let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock(x'656d6272656376'::bigint)")
        .fetch_one(&mut *other)
        .await
        .unwrap();
    assert!(locked, "somebody holds it");
    // The test's own connections are among them.
    let connections = "select count(*) from pg_stat_activity where application_name = 'embedding-recovery' and datname = current_database()";
    let before: i64 = database.value(connections).await;
    for args in [&["migrate"][..], &["migrate", "--wait-only"]] {
        let child = database.program(args).spawn().unwrap();
        eventually("it is connected", async || database.value::<i64>(connections).await > before)
            .await;
        signal(&child, "TERM").await;
        let ended = end_of(child).await;
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("told to stop"), "{args:?}: {ended:?}");
        eventually("it is gone", async || database.value::<i64>(connections).await <= before).await;
    }
}
