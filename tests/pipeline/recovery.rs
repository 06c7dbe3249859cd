//! Dead letters come back: by the schedule, on demand, and once each however many ask.

use std::time::Duration;

use chrono::{DateTime, Utc};
use embedding_recovery::actors::TreeSettings;
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::retry::RecoveryPolicy;

use super::scene::{Scene, is_turn};
use crate::fakes::openai::Reply;
use crate::fakes::store::Fault;
use crate::harness::calls::call;

/// Recordings of which the provider fails on two in three: never on three in a row.
const RECORDINGS: std::ops::RangeInclusive<i64> = 1..=60;

fn server_error() -> Reply {
    Reply::error(500, "server_error", "The server had an error.")
}

/// Forty dead letters, each for a turn of its own that the provider fails on, beside twenty recordings
/// that are complete. The provider is well again.
pub async fn forty_dead_letters() -> Scene {
    let scene = Scene::new().await;
    for recording_id in RECORDINGS.filter(|recording_id| recording_id % 3 > 0) {
        scene.fake.on(is_turn(recording_id, 1), server_error());
    }
    let calls: Vec<_> = RECORDINGS.map(|recording_id| call(recording_id, 3)).collect();
    scene.database.import(&calls).await;
    scene.database.execute("update embedding_queue set max_attempts = 1").await;
    let mut settings = scene.settings();
    settings.recordings_max = 1;
    let tree = scene.database.serve(settings).await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (20, 40));
    tree.stop(Duration::from_secs(5)).await;
    scene.fake.recover();
    scene
}

/// Settings under which dead letters are looked at each second.
fn by_the_second(scene: &Scene) -> TreeSettings {
    let mut settings = scene.settings();
    settings.recovery.schedule = "* * * * * *".parse().unwrap();
    settings
}

#[tokio::test(flavor = "multi_thread")]
pub async fn forty_dead_letters_come_back_by_the_schedule_alone_once_their_cause_is_gone() {
    let scene = forty_dead_letters().await;
    let tree = scene.database.serve(by_the_second(&scene)).await;
    let done = "select count(*) = 60 from embedding_queue where status = 'completed'";
    scene.database.wait_until(done).await;
    assert_eq!(scene.bought_once(), 60 * 3);
    let recovered = "select count(*) from embedding_attempts where part = 'recovery' and outcome = 'completed' and 0 < $1";
    assert_eq!(scene.count(recovered, 1).await, 40);
    let runs = "select bool_and(taken between 1 and 5 and taken = completed and part = 'recovery') from runs where ended_at is not null";
    assert!(scene.database.value::<bool>(runs).await);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_waits_an_hour_then_two_and_its_reason_is_renewed() {
    let scene = Scene::new().await;
    scene.fake.on(is_turn(1, 1), server_error());
    scene.database.import(&[call(1, 3)]).await;
    let tree = scene.database.serve(by_the_second(&scene)).await;
    for (recoveries, hour) in [(1, 1), (2, 2)] {
        let waits = format!(
            "select count(*) = 1 from embedding_queue where status = 'dead_letter' and recoveries = {recoveries}
               and next_retry_at - now() between interval '{hour} hours' - interval '2 min' and interval '{hour} hours' * 1.2
               and dead_letter_reason like '%status 500%'"
        );
        scene.database.wait_until(Box::leak(waits.into_boxed_str())).await;
        scene.database.execute("update embedding_queue set next_retry_at = now()").await;
    }
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_tried_again_when_it_falls_due_without_any_tick() {
    let scene = Scene::new().await;
    scene.fake.on(is_turn(1, 1), server_error());
    scene.database.import(&[call(1, 3)]).await;
    let mut settings = by_the_second(&scene);
    let delay = Duration::from_secs(2);
    settings.recovery.policy = RecoveryPolicy { first: delay, longest: delay };
    let tree = scene.database.serve(settings.clone()).await;
    scene.database.wait_until("select bool_and(recoveries > 0) from embedding_queue").await;
    tree.stop(Duration::from_secs(5)).await;
    scene.fake.recover();
    settings.recovery.schedule = scene.settings().recovery.schedule;
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    assert_eq!(scene.bought_once(), 3);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_first_three_fail_alike_stops_and_says_so() {
    let scene = forty_dead_letters().await;
    scene.fake.on(|inputs| inputs.iter().any(|input| input.contains("turn1 ")), server_error());
    let mut settings = scene.settings();
    settings.recovery.recordings_max = 4;
    settings.recovery.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene
        .database
        .wait_until("select count(*) > 0 from runs where stopped_because like 'the first 3 failed alike: provider_rejects_item%' and taken = 3 and failed = 3")
        .await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_fell_while_no_process_was_there_is_made_up_for_at_once() {
    let scene = forty_dead_letters().await;
    // The schedule of tests fires at the end of February of leap years.
    let before = "update schedules set last_tick = '2023-01-01' where name like 'recovery %'";
    scene.database.execute(before).await;
    let tree = scene.database.serve(scene.settings()).await;
    let done = "select count(*) = 60 from embedding_queue where status = 'completed'";
    scene.database.wait_until(done).await;
    let runs = "select bool_and(cause = 'schedule') from runs where part = 'recovery'";
    assert!(scene.database.value::<bool>(runs).await);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_at_which_the_database_was_away_is_taken_when_it_is_back() {
    let scene = forty_dead_letters().await;
    let away = Failure::DatabaseUnavailable { message: "the test says so".into() };
    let now: DateTime<Utc> = scene.database.value("select clock_timestamp()").await;
    // Once a year, and in ten seconds: the tree stands by then.
    let soon = (now + Duration::from_secs(10)).format("%-S %-M %-H %-d %-m *").to_string();
    scene.store.fail("take_tick", 1, Fault::Fail(away));
    let mut settings = scene.settings();
    settings.schedule = settings.recovery.schedule.clone();
    settings.recovery.schedule = soon.parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene.store.wait_until_struck("take_tick", 1).await;
    let done = "select count(*) = 60 from embedding_queue where status = 'completed'";
    scene.database.wait_until(done).await;
    scene.end(tree).await;
}
