//! Servers that take less in a request than was sent: what they take is learnt, and paid for once.

use super::scene::{DIMENSIONS, Scene, is_turn};
use crate::fakes::openai::Reply;
use crate::harness::calls::call;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_fewer_inputs_is_asked_for_no_more_once_that_is_known() {
    let scene = Scene::with(DIMENSIONS, 2_048).await;
    scene.database.import(&[call(1, 8), call(2, 8)]).await;
    let too_many = "batch size 8 > maximum allowed batch size 2";
    scene.fake.on(|inputs| inputs.len() > 2, Reply::error(422, "validation", too_many));
    let mut settings = scene.settings();
    settings.recordings_max = 1;
    let tree = scene.database.serve(settings).await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (2, 0));
    assert_eq!(scene.bought_once(), 8 + 8);
    let sizes: Vec<usize> = scene.fake.requests().iter().map(|seen| seen.inputs.len()).collect();
    let refused = sizes.iter().filter(|size| **size > 2).count();
    assert_eq!(refused, 3, "8, 4 and 4 inputs, of the first recording only: {sizes:?}");
    scene.end(tree).await;
}

/// Servers by the most inputs that they take, how they refuse more, and the requests of the first
/// recording of 150 chunks that they refuse: packed into 128 and 22, halved until they fit.
const SERVERS: [(usize, u16, &str, &[usize]); 5] = [
    (32, 413, "batch size 128 > maximum allowed batch size 32", &[128, 64, 64]),
    (32, 422, "input must have less than 32 items", &[128, 64, 64]),
    (96, 400, "invalid request: total number of texts must be at most 96", &[128]),
    (100, 400, "at most 100 requests can be in one batch", &[128]),
    (1_000, 400, "at most 1000 inputs", &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_takes_at_most_is_learnt_from_its_refusals_and_not_refused_twice() {
    const CHUNKS: usize = 150;
    for (inputs_max, status, message, refused) in SERVERS {
        let scene = Scene::with(DIMENSIONS, 2_048).await;
        scene.database.import(&[call(1, CHUNKS), call(2, CHUNKS)]).await;
        let refusal = Reply::error(status, "invalid_request", message);
        scene.fake.on(move |inputs| inputs.len() > inputs_max, refusal);
        let mut settings = scene.settings();
        settings.recordings_max = 1;
        let tree = scene.database.serve(settings).await;
        scene.database.wait_until_settled(&tree).await;
        for recording_id in [1, 2] {
            assert_eq!(scene.attempts(recording_id).await, ["completed"], "{message}");
        }
        assert_eq!(scene.bought_once(), 2 * CHUNKS, "{message}");
        let requests = scene.fake.requests();
        let sizes: Vec<usize> = requests.iter().map(|seen| seen.inputs.len()).collect();
        let too_large: Vec<usize> =
            sizes.iter().copied().filter(|size| *size > inputs_max).collect();
        assert_eq!(too_large, refused, "{message}: {sizes:?}");
        assert_eq!(scene.probes(), 0, "{message}");
        scene.end(tree).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_chunk_teaches_nothing_about_the_size_of_requests() {
    let scene = Scene::with(DIMENSIONS, 2_048).await;
    scene.database.import(&[call(1, 8)]).await;
    scene.fake.on(is_turn(1, 3), Reply::error(400, "invalid_value", "This input is invalid."));
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    scene.fake.recover();
    scene.database.import(&[call(2, 8)]).await;
    scene.database.wait_until_settled(&tree).await;
    let last = scene.fake.requests().pop().unwrap();
    assert_eq!(last.inputs.len(), 8);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_the_rate_limit_is_split() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 4)]).await;
    let message = "Request too large for test-model: Limit 30000, Requested 31538.";
    let too_large = Reply::error(429, "rate_limit_exceeded", message);
    scene.fake.on(|inputs| inputs.len() > 2, too_large);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.fake.requests().len(), 3, "the whole, and its halves");
    assert_eq!(scene.bought_once(), 4);
    scene.end(tree).await;
}
