//! SIGTERM with recordings in flight: in which order things end, and what is left to the next replica.

use std::time::{Duration, Instant};

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::probes::Service;
use crate::harness::program::run;
use crate::harness::proxy::Weather;
use crate::harness::{TestDatabase, eventually};

/// Chunks of the recording in flight; the API hangs over the last request for them.
const CHUNKS: usize = 300;
/// Chunks of the requests before that, which are stored.
const STORED: usize = 256;

/// A service with one recording in flight: most of it is stored, and the API hangs over the rest.
async fn in_flight(grace_secs: &str) -> (TestDatabase, FakeOpenAi, Service) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    fake.on(|inputs| inputs.iter().any(|text| text.contains("call1turn299 ")), Reply::Hang);
    database.import(&[call(1, CHUNKS)]).await;
    let service = Service::start(serve(&database, &fake, &["--grace-secs", grace_secs])).await;
    database.wait_until("select count(*) = 256 from transcript_chunks").await;
    service.wait_until_ready_is(200, "ready").await;
    (database, fake, service)
}

/// How the task and the attempts of recording 1 are.
async fn state(database: &TestDatabase) -> String {
    let state = "select format('%s, %s attempts; %s', q.status, q.attempts, a.outcomes)
        from embedding_queue q, (select string_agg(coalesce(outcome, 'open'), ' ' order by started_at) as outcomes
                                 from embedding_attempts where recording_id = 1) a
        where q.recording_id = 1";
    database.value::<String>(state).await
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_is_not_ready_first_begins_nothing_and_another_replica_goes_on_without_buying_again()
 {
    let (database, fake, service) = in_flight("4").await;
    service.signal("TERM").await;
    service.wait_until_ready_is(503, "stopping").await;
    assert_eq!(service.probe("/livez").await.0, 200, "it is alive while it ends");
    assert_eq!(state(&database).await, "processing, 1 attempts; open", "it may still finish");
    database.import(&[call(2, 3)]).await;
    // Until the last moment the probes answer, and nothing new is begun.
    eventually("its leases are given back", async || {
        let (ready, _) = service.probe("/readyz").await;
        assert!(ready == 503 || ready == 0, "it is ready again: {ready}");
        state(&database).await.starts_with("pending")
    })
    .await;
    let ended = service.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "stopped: 0 completed, 0 dead letters, 2 open\n");
    assert_eq!(state(&database).await, "pending, 0 attempts; released");
    let begun = "select count(*) from embedding_attempts where recording_id = 2";
    assert_eq!(database.value::<i64>(begun).await, 0, "it claimed after it was told to stop");
    assert_eq!(database.value::<i64>("select count(*) from workers").await, 0);

    fake.recover();
    fake.release();
    let next = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(next.stdout, "done: 2 completed, 0 dead letters, 0 open\n", "{next:?}");
    assert_eq!(state(&database).await, "completed, 1 attempts; released completed");
    let bought = fake.bought();
    let stored_before =
        |text: &&String| (0..STORED).any(|turn| text.contains(&format!("call1turn{turn} ")));
    assert_eq!(
        bought.iter().filter(stored_before).count(),
        STORED,
        "stored chunks were bought again"
    );
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_finished_within_the_grace_period_is() {
    let (database, fake, service) = in_flight("60").await;
    service.signal("TERM").await;
    service.wait_until_ready_is(503, "stopping").await;
    fake.recover();
    fake.release();
    let ended = service.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "stopped: 1 completed, 0 dead letters, 0 open\n");
    assert_eq!(state(&database).await, "completed, 1 attempts; completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let (database, _fake, service) = in_flight("600").await;
    service.signal("TERM").await;
    service.wait_until_ready_is(503, "stopping").await;
    service.signal("TERM").await;
    assert_eq!(service.end().await.code, Some(130));
    assert_eq!(state(&database).await, "processing, 1 attempts; open");
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_while_the_database_is_away_it_exits_0_in_bounded_time() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let (network, url) = database.over_a_network().await;
    for (weather, lease) in [(Weather::Cut, "6"), (Weather::HalfOpen, "6")] {
        network.set(Weather::Fine);
        let mut command = serve(&database, &fake, &["--grace-secs", "0", "--lease-secs", lease]);
        command.env("DATABASE_URL", &url);
        let service = Service::start(command).await;
        service.wait_until_ready_is(200, "ready").await;
        network.set(weather);
        service.wait_until_ready_is(503, "").await;
        assert_eq!(
            service.probe("/livez").await.0,
            200,
            "no restart would bring the database back"
        );
        service.signal("TERM").await;
        let told = Instant::now();
        let ended = service.end().await;
        assert_eq!(ended.code, Some(0), "{weather:?}: {ended:?}");
        assert_eq!(ended.stdout, "stopped: the database is away\n", "{weather:?}: {ended:?}");
        assert!(told.elapsed() < STOP_TIME_MAX, "{weather:?}: {:?}", told.elapsed());
    }
}

/// Time that a stop may take after its grace period: to release, to sign off, to count and to close.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);
