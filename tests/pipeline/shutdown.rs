//! The tree is told to stop: what is in flight is finished or given back, and nothing is lost.

use std::time::Duration;

use super::scene::{INPUTS_MAX, Scene, is_turn};
use crate::fakes::openai::Reply;
use crate::fakes::store::Fault;
use crate::harness::calls::call;
use crate::harness::within_deadline;

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_cannot_finish_in_time_is_released_and_another_tree_goes_on() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 10)]).await;
    scene.fake.on(is_turn(1, INPUTS_MAX), Reply::Hang);
    let tree = scene.serve().await;
    // The second request hangs: the first one's rows are stored.
    scene.fake.wait_for_requests(2).await;
    tree.stop(Duration::from_millis(100)).await;
    assert_eq!(scene.task(1).await.summary(), ("pending", 0, 0));
    assert_eq!(scene.attempts(1).await, ["released shutdown"]);
    assert_eq!(scene.stored(1).await, INPUTS_MAX as i64);
    assert_eq!(scene.bought_once(), INPUTS_MAX);

    scene.fake.recover();
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.bought_once(), 10, "nothing that was stored is bought again");
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_can_finish_in_time_does_and_no_other_is_begun() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 5), call(2, 5), call(3, 5)]).await;
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.recordings_max = 1;
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(1).await;
    let stopping = tokio::spawn(tree.stop(Duration::from_secs(60)));
    scene.fake.release();
    within_deadline("the tree stops", stopping).await.unwrap();
    let counts = "select count(*) filter (where status = 'pending' and attempts = 0) * 10
        + count(*) filter (where status = 'completed') from embedding_queue";
    let counts = scene.database.value::<i64>(counts).await;
    assert!(counts == 21 || counts == 12 || counts == 3, "nothing is left in between: {counts}");
    scene.database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_under_way_at_the_stop_is_given_back() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 5), call(2, 5)]).await;
    scene.store.fail("claim", 2, Fault::HoldReply);
    let tree = scene.serve().await;
    // The first claim looks for suspects and finds none.
    scene.store.wait_until_struck("claim", 1).await;
    scene.store.release();
    scene.store.wait_until_struck("claim", 2).await;
    for recording_id in [1, 2] {
        assert_eq!(scene.task(recording_id).await.summary(), ("processing", 1, 0));
    }
    let stopping = tree.stop(Duration::from_secs(60));
    let stopped = async { tokio::join!(stopping, async { scene.store.release() }) };
    within_deadline("the tree stops", stopped).await;
    for recording_id in [1, 2] {
        // The reply may have come before the word to stop.
        let (task, attempts) = (scene.task(recording_id).await, scene.attempts(recording_id).await);
        // And a look at the queue may have been due before it: then it is given back once more.
        let given_back = attempts.iter().all(|attempt| attempt == "released shutdown");
        let released = task.summary() == ("pending", 0, 0) && given_back;
        let completed = task.summary() == ("completed", 1, 0) && attempts == ["completed"];
        assert!(released || completed, "{task:?} after {attempts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_nothing_to_do_stops_at_once() {
    let scene = Scene::new().await;
    let tree = scene.serve().await;
    within_deadline("the tree stops", tree.stop(Duration::from_secs(600))).await;
}
