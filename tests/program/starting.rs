//! A service that comes up before its database, or before the migration of its schema.

use std::net::TcpListener;

use tokio::process::Command;

use super::serving::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::probes::Service;
use crate::harness::program::run;
use crate::harness::proxy::{Proxy, Weather};

/// A service over a database that may be anywhere.
fn serve_at(database: &TestDatabase, fake: &FakeOpenAi, url: &str) -> Command {
    let mut command = serve(database, fake, &["--lease-secs", "6"]);
    command.env("DATABASE_URL", url);
    command
}

/// Not ready for this reason, and alive.
async fn waits(service: &Service, reason: &str) {
    service.wait_until_ready_is(503, reason).await;
    assert_eq!(service.probe("/livez").await, (200, "alive\n".into()));
}

async fn stops(service: Service) -> String {
    service.signal("TERM").await;
    let ended = service.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_away_it_is_alive_and_not_ready_and_serves_when_it_comes() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3)]).await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::start(serve_at(&database, &fake, &database.url_at(address))).await;
    waits(&service, "onnection refused").await;
    let (_, metrics) = service.probe("/metrics").await;
    assert!(metrics.contains("\nembedding_recovery_database_up 0\n"), "{metrics}");
    let network = Proxy::start_at(address, database.server()).await;
    service.wait_until_ready_is(200, "ready").await;
    database.wait_until("select status = 'completed' from embedding_queue").await;
    // It goes away and comes back while it serves.
    network.set(Weather::Cut);
    waits(&service, "").await;
    network.set(Weather::Fine);
    service.wait_until_ready_is(200, "ready").await;
    let log = stops(service).await;
    let waited = "waiting for the database: cannot connect to the database";
    assert_eq!(log.matches(waited).count(), 1, "{log}");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_connections_yet_is_waited_for() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    // Connections that stand stay.
    let allow = |allowed: bool| {
        format!(
            "update pg_database set datallowconn = {allowed} where datname = current_database()"
        )
    };
    database.execute(&allow(false)).await;
    let service = Service::start(serve_at(&database, &fake, &database.url)).await;
    waits(&service, "not currently accepting connections").await;
    database.execute(&allow(true)).await;
    service.wait_until_ready_is(200, "ready").await;
    stops(service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_to_be_migrated_is_waited_for() {
    let database = TestDatabase::bare().await;
    let fake = FakeOpenAi::start(8);
    let service = Service::start(serve_at(&database, &fake, &database.url)).await;
    waits(&service, "run `embedding-recovery migrate`").await;
    assert_eq!(run(&mut database.program(&["migrate"])).await.code, Some(0));
    service.wait_until_ready_is(200, "ready").await;
    stops(service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_while_it_waits_it_exits_0() {
    let database = TestDatabase::bare().await;
    let fake = FakeOpenAi::start(8);
    let service = Service::start(serve_at(&database, &fake, &database.url)).await;
    waits(&service, "migrations are missing").await;
    stops(service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_waiting_cures_and_what_is_to_end_anyway_fails_at_once() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let name = url::Url::parse(&database.url).unwrap().path()[1..].to_owned();
    let nowhere = database.url.replace(&name, "no_such_database");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut stranger: url::Url = database.url.parse().unwrap();
    stranger.set_username("no_such_role").unwrap();
    let idle_run = serve(&database, &fake, &["--exit-when-idle"]);
    let away = database.url_at(address);
    for (mut command, url, told) in [
        (serve(&database, &fake, &[]), nowhere.as_str(), "no_such_database"),
        (serve(&database, &fake, &[]), stranger.as_str(), "no_such_role"),
        (idle_run, away.as_str(), "onnection refused"),
        (database.program(&["monitor"]), away.as_str(), "onnection refused"),
    ] {
        let ended = run(command.env("DATABASE_URL", url)).await;
        assert!(ended.code == Some(1) || ended.code == Some(2), "{told}: {ended:?}");
        assert!(ended.stderr.contains(told), "{told}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_serves_later_programs_only_is_refused_at_once() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.execute("update served_programs set oldest_version = '99.0.0'").await;
    let ended = run(&mut serve(&database, &fake, &[])).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("it serves version 99.0.0 and later"), "{ended:?}");
}
