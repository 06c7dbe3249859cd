//! Several processes that recover at once, and no service beside them.

use std::time::Duration;

use futures::future::join_all;

use super::recovering::command;
use super::serving::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::run;

/// Recordings 1 to 12 are dead letters of the fingerprint `a`, or, from 7 on, `b`; 13 is complete.
async fn twelve_dead_letters() -> (TestDatabase, FakeOpenAi) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(13, 2)]).await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.code, Some(0), "{served:?}");
    let calls: Vec<_> = (1..=12).map(|recording_id| call(recording_id, 2)).collect();
    database.import(&calls).await;
    database
        .execute(
            "update embedding_queue
             set status = 'dead_letter', attempts = 1, dead_letter_reason = 'a test',
                 failure_fingerprint = case when recording_id < 7 then 'a' else 'b' end,
                 next_retry_at = now() + interval '1 hour'
             where status = 'pending'",
        )
        .await;
    (database, fake)
}

const ALL: [&str; 4] = ["recover", "--all", "--force", "--wait"];
/// Far more than any of these takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_that_recover_the_same_at_once_recover_each_once_and_none_fails() {
    let (database, fake) = twelve_dead_letters().await;
    fake.hold();
    let recovering = join_all((0..5).map(|_| command(&database, &fake, &ALL)));
    let release = async {
        let asked = "select count(*) = 5 from admin_actions where action = 'recover_many'";
        database.wait_until(asked).await;
        fake.release();
    };
    let both = async { tokio::join!(recovering, release) };
    let (ended, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    for ended in ended {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let once = "select count(*) = 12 and bool_and(outcome = 'completed') from embedding_attempts where part = 'recovery'";
    assert!(database.value::<bool>(once).await, "each once");
    let first = "select ended = 12 and completed = 12 and outcome = '12 of 12 completed' from admin_actions order by requested_at limit 1";
    assert!(database.value::<bool>(first).await, "whoever asked first was told of all");
    let left = "select bool_and(outcome is not null and completed = recordings) from admin_actions";
    assert!(database.value::<bool>(left).await, "somebody is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_recover_at_work_is_not_taken_for_a_service() {
    let (database, fake) = twelve_dead_letters().await;
    alive(&database, 0, "1 hour").await;
    let args = ["recover", "--matching", "b", "--force", "--wait"];
    let ended = tokio::time::timeout(PATIENCE, command(&database, &fake, &args)).await.unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("done: 6 of 6 completed\n"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_service_that_dies_does_the_work() {
    let (database, fake) = twelve_dead_letters().await;
    alive(&database, 4, "4 seconds").await;
    let ended = tokio::time::timeout(PATIENCE, command(&database, &fake, &ALL)).await.unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("done: 12 of 12 completed\n"), "{ended:?}");
}

/// A worker of another host, for so long.
async fn alive(database: &TestDatabase, slots: u32, time: &str) {
    database
        .execute(&format!(
            "insert into workers (id, host, version, model, alive_until, slots)
             values (gen_random_uuid(), 'a host', '0', 'a model', now() + interval '{time}', {slots})"
        ))
        .await;
}
