//! Actors that panic: what is restarted, under which lease, and what it costs.

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::embedders::openai::PROBE_TEXT;

use super::scene::Scene;
use crate::fakes::openai::Reply;
use crate::fakes::store::Fault;
use crate::harness::calls::call;
use crate::harness::{eventually, within_deadline};

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_panics_twice_is_restarted_in_place_and_buys_nothing_again() {
    let scene = Scene::with(8, 2).await;
    scene.database.import(&[call(1, 7)]).await;
    scene.embedder.panic_over("call1turn4 ", 2);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.embedder.panicked(), 2);
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.attempts(1).await, ["completed"], "one lease, one attempt");
    assert_eq!(scene.bought_once(), 7);
    let reused = "select chunks_reused::bigint from embedding_attempts where recording_id = $1";
    assert_eq!(scene.count(reused, 1).await, 4, "what was stored before the panic");
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_always_panics_uses_its_attempts_and_dies_alone() {
    let scene = Scene::with(8, 2).await;
    scene.database.import(&[call(1, 6), call(2, 5), call(3, 1)]).await;
    scene.embedder.panic_over("call1turn4 ", usize::MAX);
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (2, 1));
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 4, 0));
    assert_eq!(task.dead_letter_reason, Some(Failure::Panicked.to_string()));
    assert!(!task.dead_letter_permanent);
    let retried = "retry panicked";
    assert_eq!(scene.attempts(1).await, [retried, retried, retried, "dead_letter panicked"]);
    assert_eq!(scene.embedder.panicked(), 12, "three runs in each of four attempts");
    for neighbour in [2, 3] {
        assert_eq!(scene.attempts(neighbour).await, ["completed"]);
    }
    assert_eq!((scene.stored(1).await, scene.searchable(1).await), (4, 0));
    assert_eq!(scene.bought_once(), 4 + 5 + 1);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_store_panics_once_is_restarted_in_place() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.store.fail("complete", 1, Fault::Panic);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.store.struck("complete"), 1);
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_outlive_a_writer_that_crashes_and_send_their_rows_again() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 9), call(2, 9), call(3, 9)]).await;
    scene.store.fail("insert_chunks", 3, Fault::Panic);
    let mut settings = scene.settings();
    settings.insert_rows = 2;
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.store.struck("insert_chunks"), 3);
    assert_eq!(tree.status().borrow().gave_up, None);
    for recording_id in [1, 2, 3] {
        assert_eq!(scene.attempts(recording_id).await, ["completed"]);
        assert_eq!(scene.stored(recording_id).await, 9);
    }
    assert_eq!(scene.bought_once(), 27);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_claimer_goes_on_renewing_the_leases_of_the_one_that_crashed() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(2);
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(1).await;
    scene.store.fail("renew", 1, Fault::Panic);
    scene.store.wait_until_struck("renew", 1).await;
    scene
        .database
        .execute("create table at_crash as select lease_expires_at from embedding_queue")
        .await;
    scene
        .database
        .wait_until("select clock_timestamp() > lease_expires_at + interval '2 s' from at_crash")
        .await;
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.attempts(1).await, ["completed"], "nobody swept it");
    assert_eq!(scene.bought_once(), 3);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimer_that_crashes_over_a_claim_is_restarted_and_claims() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.store.fail("claim", 2, Fault::Panic);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.store.struck("claim"), 2);
    assert_eq!(scene.attempts(1).await, ["completed"]);
    scene.end(tree).await;
}

/// Connections that wait for notifications.
const LISTENERS: &str = "select count(*) = 1 from pg_stat_activity
    where datname = current_database() and query ilike 'listen%'";
const NO_LISTENER: &str = "select count(*) = 0 from pg_stat_activity
    where datname = current_database() and query ilike 'listen%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_crashes_is_restarted_and_leaves_no_listener_behind() {
    let scene = Scene::new().await;
    let tree = scene.serve().await;
    scene.database.wait_until(LISTENERS).await;
    scene.end(tree).await;
    scene.database.wait_until(NO_LISTENER).await;

    let mut settings = scene.settings();
    settings.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until(LISTENERS).await;
    scene.store.fail("take_tick", 2, Fault::Panic);
    scene.store.wait_until_struck("take_tick", 2).await;
    scene.database.wait_until(LISTENERS).await;
    scene.database.import(&[call(1, 2)]).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_crashes_is_restarted_and_cleans_up() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 4)]).await;
    scene.store.fail("delete_dead_chunks", 2, Fault::Panic);
    let tree = scene.serve().await;
    scene.store.wait_until_struck("delete_dead_chunks", 2).await;
    scene.database.wait_until_settled(&tree).await;
    scene.database.execute("update fathom_transcripts set text = 'new ' || text").await;
    eventually("the old set's rows are gone", async || {
        scene.searchable(1).await == 4 && scene.stored(1).await == 4
    })
    .await;
    scene.database.wait_until_settled(&tree).await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_actors_crash_more_than_five_times_in_half_a_minute_gives_up() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.store.fail("claim", usize::MAX, Fault::Panic);
    let tree = scene.serve().await;
    let mut status = tree.status();
    let gave_up = status.wait_for(|status| status.gave_up.is_some());
    let reason = within_deadline("it gives up", gave_up).await.unwrap().gave_up.clone();
    assert!(reason.unwrap().contains("Claimer"));
    assert_eq!(scene.store.struck("claim"), 6, "the first and five restarts");
    within_deadline("it stops", tree.stop(Duration::from_secs(60))).await;
    assert_eq!(scene.task(1).await.summary(), ("pending", 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_statement_panics_is_sent_again() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.embedder.panic_over("call1turn0 ", 3);
    scene.store.fail("settle", 1, Fault::Panic);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.store.struck("settle"), 1);
    assert_eq!(scene.attempts(1).await, ["retry panicked", "completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_panics_is_a_probe_that_failed() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.script([Reply::error(401, "invalid_api_key", "Incorrect API key.")]);
    scene.embedder.panic_over(PROBE_TEXT, 1);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.embedder.panicked(), 1);
    assert_eq!(scene.attempts(1).await, ["released key_refused", "completed"]);
    scene.end(tree).await;
}

// On one thread the order of events is certain: the Supervisor hears of the crash before it is
// given what the Claimer claimed last.
#[tokio::test]
async fn what_a_claimer_claimed_just_before_it_crashed_is_renewed_by_the_next() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.hold();
    scene.store.fail("claim", 2, Fault::HoldReply);
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(6);
    settings.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    // The first claim looks for suspects and finds none.
    scene.store.wait_until_struck("claim", 1).await;
    scene.store.release();
    scene.store.wait_until_struck("claim", 2).await;
    // A tick has the Claimer poll before it is taken: the next claim waits behind this one.
    let refusal = Failure::DatabaseRefuses { message: "the test says so".into() };
    scene.store.fail("take_tick", 1, Fault::Fail(refusal));
    scene.store.wait_until_struck("take_tick", 1).await;
    scene.store.fail("claim", 1, Fault::Panic);
    scene.store.release();
    scene.store.wait_until_struck("claim", 3).await;
    let swept = "select clock_timestamp() > locked_at + interval '9 s' or status <> 'processing'
        from embedding_queue";
    scene.database.wait_until(swept).await;
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"], "nobody swept it");
    scene.end(tree).await;
}
