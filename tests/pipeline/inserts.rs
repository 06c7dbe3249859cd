//! How many inserts are in flight, and whose.

use embedding_recovery::ports::operator::{Operator, RecoverRecording};

use super::scene::Scene;
use crate::fakes::store::Fault;
use crate::harness::calls::call;

const INSERT: &str = "insert_chunks";

#[tokio::test(flavor = "multi_thread")]
async fn long_recordings_use_what_others_leave_idle_and_hold_none_of_them_up() {
    let scene = Scene::new().await;
    let mut settings = scene.settings();
    settings.recovery.small_batches_above = 7;
    settings.requests_in_flight = 3;
    // Those of the long recording never end, until they are let go.
    scene.store.fail(INSERT, 2, Fault::HoldReply);
    scene.database.import(&[call(1, 12)]).await;
    let tree = scene.database.serve(settings).await;
    scene.store.wait_until_struck(INSERT, 2).await;
    scene.database.import(&[call(2, 3), call(3, 6)]).await;
    for recording_id in [2, 3] {
        scene.wait_for_task(recording_id, |task| task.status == "completed").await;
    }
    assert_eq!(scene.stored(1).await, 8, "two inserts of a request's rows, and no third");
    scene.store.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.bought_once(), 21);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_has_one_insert_in_flight_and_holds_no_other_recording_up() {
    let scene = Scene::new().await;
    let mut settings = scene.settings();
    settings.recovery.small_batches_above = 7;
    settings.requests_in_flight = 3;
    scene.database.import(&[call(1, 12)]).await;
    scene
        .database
        .execute(
            "update embedding_queue set status = 'dead_letter', dead_letter_reason = 'the test says so',
                    next_retry_at = null",
        )
        .await;
    scene.store.fail(INSERT, 1, Fault::HoldReply);
    let tree = scene.database.serve(settings).await;
    let recover = RecoverRecording {
        recording_id: 1,
        user_id: None,
        force: true,
        requested_by: "a test".into(),
        trace: None,
    };
    scene.database.store.recover(recover).await.unwrap();
    scene.store.wait_until_struck(INSERT, 1).await;
    scene.database.import(&[call(2, 3), call(3, 12)]).await;
    for recording_id in [2, 3] {
        scene.wait_for_task(recording_id, |task| task.status == "completed").await;
    }
    assert_eq!(scene.stored(1).await, 4, "one insert of a request's rows, and no second");
    scene.store.release();
    scene.wait_for_task(1, |task| task.status == "completed").await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_inserts_are_in_flight_where_the_database_takes_more_at_once() {
    let scene = Scene::with(8, 64).await;
    scene
        .database
        .execute(
            "create function be_slow() returns trigger language plpgsql as $$
             begin perform pg_sleep(0.02); return new; end $$;
             create trigger slow before insert on transcript_chunks for each row execute function be_slow()",
        )
        .await;
    let mut settings = scene.settings();
    settings.inserts_in_flight = 4;
    settings.insert_rows = 1;
    // It begins with two, of which none but the last would ever be more than two at once.
    scene.store.fail_after(INSERT, 40, 4, Fault::HoldReply);
    let calls: Vec<_> = (1..=6).map(|recording_id| call(recording_id, 60)).collect();
    scene.database.import(&calls).await;
    let tree = scene.database.serve(settings).await;
    scene.store.wait_until_struck(INSERT, 4).await;
    scene.store.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.bought_once(), 360);
    scene.end(tree).await;
}
