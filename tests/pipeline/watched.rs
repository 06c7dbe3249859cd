//! What somebody who watches the tree sees, and a recording whose actor is killed before his eyes.

use embedding_recovery::actors::{ChunkProgress, InFlight, Tree};

use super::scene::{Scene, is_turn};
use crate::fakes::openai::Reply;
use crate::harness::calls::{call, key};
use crate::harness::eventually;

/// The one recording in flight.
fn only(tree: &Tree) -> Option<InFlight> {
    let status = tree.status().borrow().clone();
    match &status.recordings[..] {
        [recording] => Some(recording.clone()),
        _ => None,
    }
}

async fn until_chunks_are(tree: &Tree, restarts: u32, expected: ChunkProgress) {
    let what = format!("after {restarts} restarts the chunks are {expected:?}");
    eventually(&what, async || {
        only(tree).is_some_and(|recording| {
            recording.restarts == restarts && recording.chunks() == Some(expected)
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_killed_comes_back_and_buys_nothing_that_was_stored() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 10)]).await;
    scene.fake.on(is_turn(1, 8), Reply::Hang);
    let tree = scene.serve().await;
    until_chunks_are(&tree, 0, ChunkProgress { total: 10, stored: 8, kept: 0 }).await;
    scene.fake.wait_for_requests(3).await;
    let recording = only(&tree).unwrap();
    assert_eq!((recording.key.clone(), recording.title()), (key(1), Some("Call 1".into())));
    assert_eq!(tree.status().borrow().chunks_stored(), 8);

    tree.crash_recording(&key(2));
    tree.crash_recording(&key(1));
    until_chunks_are(&tree, 1, ChunkProgress { total: 10, stored: 8, kept: 8 }).await;
    assert_eq!(tree.status().borrow().restarts, 1);
    assert_eq!(tree.status().borrow().chunks_stored(), 8);

    scene.fake.recover();
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"], "the same attempt");
    assert_eq!(scene.bought_once(), 10);
    assert_eq!(tree.status().borrow().chunks_stored(), 10);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_killed_before_anything_is_known_of_it_comes_back() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.store.fail("load", 1, crate::fakes::store::Fault::HoldReply);
    let tree = scene.serve().await;
    scene.store.wait_until_struck("load", 1).await;
    eventually("it is in flight", async || only(&tree).is_some()).await;
    assert_eq!(only(&tree).unwrap().chunks(), None);
    tree.crash_recording(&key(1));
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), 3);
    let status = tree.status().borrow().clone();
    assert_eq!((status.restarts, status.chunks_stored()), (1, 3));
    scene.end(tree).await;
}
