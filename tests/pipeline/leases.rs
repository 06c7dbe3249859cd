//! Leases between workers: kept while work goes on, lost without harm, swept when nobody keeps them.

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use uuid::Uuid;

use super::scene::{DIMENSIONS, INPUTS_MAX, READ_TIMEOUT, Scene, embedder};
use crate::fakes::openai::FakeOpenAi;
use crate::fakes::store::Fault;
use crate::harness::calls::call;
use crate::harness::eventually;
use crate::harness::service::settings;

impl Scene {
    async fn completed_by(&self, worker: Uuid) -> bool {
        let by: Uuid = sqlx::query_scalar(
            "select worker_id from embedding_attempts where outcome = 'completed'",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap();
        by == worker
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_written_under_a_lease_that_another_worker_took_counts() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.hold();
    let mut first = scene.settings();
    first.recordings_max = 1;
    // Renewed too seldom to notice: the fence alone must hold.
    first.lease = Duration::from_secs(600);
    let slow = scene.database.serve(first).await;
    scene.fake.wait_for_requests(1).await;

    let other_fake = FakeOpenAi::start(DIMENSIONS as usize);
    let other_embedder = embedder(&other_fake, DIMENSIONS, INPUTS_MAX, READ_TIMEOUT);
    let second = settings(scene.store.clone(), other_embedder, DIMENSIONS);
    let worker = second.worker_id;
    let quick = scene.database.serve(second).await;
    scene.take_lease_away().await;
    scene.wait_for_task(1, |task| task.status == "completed").await;
    let chunks = "select array_agg(id order by id) from transcript_chunks";
    let before: Vec<i64> = scene.database.value(chunks).await;

    scene.fake.release();
    scene.database.wait_until_settled(&slow).await;
    assert_eq!(
        scene.fake.bought().len(),
        INPUTS_MAX,
        "one request in flight, and no more after it"
    );
    assert_eq!(scene.database.value::<Vec<i64>>(chunks).await, before);
    assert_eq!(scene.attempts(1).await, ["released shutdown", "completed"]);
    assert!(scene.completed_by(worker).await);
    slow.stop(Duration::from_secs(5)).await;
    scene.end(quick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_lease_another_worker_took_is_ended_at_the_next_renewal() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(2);
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(1).await;
    // A future time keeps this tree, which has free slots, from taking it again.
    scene
        .database
        .execute(
            "update embedding_queue set lease_token = gen_random_uuid(), worker_id = gen_random_uuid(),
             lease_expires_at = now() + interval '1 hour'",
        )
        .await;
    let status = tree.status();
    eventually("it is ended", async || status.borrow().is_idle()).await;
    assert_eq!(scene.fake.bought(), [""; 0], "it did not wait for the provider");
    assert_eq!(scene.task(1).await.summary(), ("processing", 1, 0), "it is the other's");
    scene.fake.release();
    tree.stop(Duration::from_secs(5)).await;
    assert_eq!(scene.stored(1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lease_is_renewed_under_a_long_recording() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(1);
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(1).await;
    scene.database.execute("create table began as select clock_timestamp() as at").await;
    scene.database.wait_until("select clock_timestamp() > at + interval '4 s' from began").await;
    assert_eq!(scene.attempts(1).await, ["running"]);
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), 3);
    scene.end(tree).await;
}

/// A task that a worker claimed and left behind.
const DEAD_WORKER: &str = "
    update embedding_queue set status = 'processing', attempts = 1, worker_id = gen_random_uuid(),
        locked_at = now() - interval '1 hour', lease_token = gen_random_uuid(),
        lease_expires_at = now() - interval '1 minute'
    where recording_id = 1;
    insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at)
    select id, user_id, recording_id, worker_id, 1, locked_at from embedding_queue
    where recording_id = 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_task_is_swept_and_then_claimed_alone() {
    let scene = Scene::new().await;
    let calls: Vec<_> = (1..=5).map(|recording_id| call(recording_id, 6)).collect();
    scene.database.import(&calls).await;
    scene.database.execute(DEAD_WORKER).await;
    // A Recovery that crashes meanwhile sweeps all the same.
    scene.store.fail("expired", 1, Fault::Panic);
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(2);
    let tree = scene.database.serve(settings).await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 5);
    let task = scene.task(1).await;
    assert_eq!((task.summary(), task.crashes), (("completed", 2, 0), 1));
    assert_eq!(scene.attempts(1).await, ["retry lease_expired", "completed"]);
    let beside = "select count(*) from embedding_attempts a, embedding_attempts b
        where a.recording_id = $1 and a.alone and b.recording_id <> $1
          and (a.started_at, a.ended_at) overlaps (b.started_at, b.ended_at)";
    assert_eq!(scene.count(beside, 1).await, 0, "something ran beside it");
    let alone = "select count(*) from embedding_attempts where recording_id = $1 and alone";
    assert_eq!(scene.count(alone, 1).await, 1);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_arrives_while_others_are_in_flight_waits_for_its_turn() {
    let scene = Scene::new().await;
    let calls: Vec<_> = (1..=3).map(|recording_id| call(recording_id, 3)).collect();
    scene.database.import(&calls).await;
    scene.database.execute("update embedding_queue set next_retry_at = now() + interval '1 hour', status = 'failed' where recording_id = 1").await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(2).await;
    scene
        .database
        .execute("update embedding_queue set status = 'pending', next_retry_at = null, crashes = 1 where recording_id = 1")
        .await;
    scene.database.import(&[call(4, 3)]).await;
    scene.fake.release();
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 4);
    let beside = "select count(*) from embedding_attempts a, embedding_attempts b
        where a.recording_id = $1 and b.recording_id <> $1
          and (a.started_at, a.ended_at) overlaps (b.started_at, b.ended_at)";
    assert_eq!(scene.count(beside, 1).await, 0, "something ran beside it");
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_falls_due_between_two_looks_is_not_held_up_by_a_later_retry() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3), call(2, 3)]).await;
    scene
        .database
        .execute(
            "update embedding_queue set status = 'failed', crashes = case recording_id when 1 then 1 else 0 end,
                    next_retry_at = now() + case recording_id when 1 then interval '2 s' else '1 hour' end",
        )
        .await;
    scene.store.fail("claim", 1, Fault::HoldReply);
    let tree = scene.serve().await;
    // The first claim looks for suspects, and finds none that is due.
    scene.store.wait_until_struck("claim", 1).await;
    let due =
        "select next_retry_at < clock_timestamp() from embedding_queue where recording_id = 1";
    scene.database.wait_until(due).await;
    scene.store.release();
    let done = "select status = 'completed' from embedding_queue where recording_id = 1";
    scene.database.wait_until(done).await;
    assert_eq!(scene.attempts(2).await, Vec::<String>::new());
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_kills_its_worker_while_alone_twice_is_dead_for_good() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.database.execute(DEAD_WORKER).await;
    scene
        .database
        .execute("update embedding_queue set crashes = 2, crashes_alone = 1, claimed_alone = true")
        .await;
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(1);
    let tree = scene.database.serve(settings).await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.dead_letter, 1);
    assert!(scene.task(1).await.dead_letter_permanent);
    assert_eq!(scene.attempts(1).await, ["dead_letter lease_expired"]);
    assert_eq!(scene.bought_once(), 0);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_renew_its_lease_buys_nothing_until_it_can() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(2);
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(1).await;
    let outage = Failure::DatabaseUnavailable { message: "the test says so".into() };
    scene.store.fail("renew", usize::MAX, Fault::Fail(outage));
    // A third of the lease apart: it is over.
    scene.store.wait_until_struck("renew", 4).await;
    scene.fake.release();
    eventually("what was in flight is stored", async || scene.stored(1).await == 4).await;
    scene.store.wait_until_struck("renew", scene.store.struck("renew") + 2).await;
    assert_eq!(scene.fake.requests().len(), 1, "it might be another's by now");
    scene.store.recover();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"], "nobody swept what could be renewed");
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_queue_and_buy_nothing_twice() {
    let scene = Scene::new().await;
    let calls: Vec<_> = (1..=24).map(|recording_id| call(recording_id, 5)).collect();
    let mut two = [scene.settings(), scene.settings()];
    two.iter_mut().for_each(|settings| settings.recordings_max = 3);
    scene.fake.hold();
    let [first, second] = two;
    let (first, second) = (scene.database.serve(first).await, scene.database.serve(second).await);
    scene.database.import(&calls).await;
    // As many as are in flight in the beginning.
    scene.fake.wait_for_requests(4).await;
    scene.fake.release();
    scene.database.wait_until_settled(&first).await;
    scene.database.wait_until_settled(&second).await;
    for recording_id in 1..=24 {
        assert_eq!(scene.attempts(recording_id).await, ["completed"]);
    }
    let workers = "select count(distinct worker_id) from embedding_attempts";
    assert_eq!(scene.database.value::<i64>(workers).await, 2);
    assert_eq!(scene.bought_once(), 24 * 5);
    first.stop(Duration::from_secs(5)).await;
    scene.end(second).await;
}
