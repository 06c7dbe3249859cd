//! Each way a provider fails: whose fault it is, which attempts it costs, and what is paid.

use std::time::{Duration, Instant};

use embedding_recovery::actors::{Status, Tree};
use embedding_recovery::embedders::openai::PROBE_TEXT;

use super::scene::{DIMENSIONS, INPUTS_MAX, Scene, embedder, is_call, is_turn, retries};
use crate::fakes::openai::Reply;
use crate::harness::calls::call;
use crate::harness::within_deadline;

/// Waits until the provider is not called any more and nothing is in hand.
async fn until_open(tree: &Tree) -> Status {
    let mut status = tree.status();
    let open = status.wait_for(|status| status.circuit.is_some() && status.is_idle());
    within_deadline("the breaker is open", open).await.unwrap().clone()
}

fn is_no_probe(inputs: &[String]) -> bool {
    inputs != [PROBE_TEXT]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_5xx_for_one_chunk_only_is_that_recordings_fault() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6), call(2, 3)]).await;
    scene.fake.on(is_turn(1, 2), Reply::error(500, "server_error", "The server had an error."));
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 4, 0));
    assert!(!task.dead_letter_permanent);
    let reason = task.dead_letter_reason.unwrap();
    assert!(reason.contains("chunk 2:") && reason.contains("status 500"), "{reason}");
    assert_eq!(scene.attempts(1).await[..2], ["retry provider_rejects_item"; 2]);
    assert_eq!(scene.stored(1).await, 5, "every chunk but that one");
    assert_eq!(scene.attempts(2).await, ["completed"]);
    assert_eq!(scene.bought_once(), 5 + 3, "what is stored is not bought by the retries");
    assert_eq!(tree.status().borrow().circuit, None);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_the_provider_takes_again_needs_only_what_is_missing() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.on(is_turn(1, 5), Reply::error(500, "server_error", "The server had an error."));
    let mut settings = scene.settings();
    settings.retry = retries(Duration::from_secs(2));
    let tree = scene.database.serve(settings).await;
    scene.wait_for_task(1, |task| task.status == "failed").await;
    scene.fake.recover();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 2, 0));
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_provider_is_down_nothing_is_claimed_and_no_attempt_is_used() {
    let scene = Scene::new().await;
    let calls: Vec<_> = (1..=4).map(|recording_id| call(recording_id, 3)).collect();
    scene.database.import(&calls).await;
    scene.fake.on(|_| true, Reply::error(503, "overloaded", "The server is overloaded."));
    let tree = scene.serve().await;
    assert!(!until_open(&tree).await.circuit.unwrap().needs_a_person());
    for recording_id in 1..=4 {
        let task = scene.task(recording_id).await;
        assert_eq!((task.status.as_str(), task.attempts), ("pending", 0));
    }
    let attempts = "select count(*) from embedding_attempts where recording_id < 5 and $1 > 0";
    let before = scene.count(attempts, 1).await;
    scene.database.import(&[call(5, 2)]).await;
    scene.fake.wait_for_requests(scene.fake.requests().len() + 1).await;
    assert_eq!(scene.count(attempts, 1).await, before);
    assert_eq!(scene.attempts(5).await, [""; 0], "it waits until the provider answers");
    scene.fake.recover();
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 5);
    for recording_id in 1..=5 {
        assert_eq!(scene.task(recording_id).await.attempts, 1);
    }
    assert_eq!(scene.bought_once(), 4 * 3 + 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_everyone_and_costs_no_attempt() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    let retry_after = Duration::from_secs(2);
    scene.fake.script([Reply::RateLimited { retry_after }]);
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(1).await;
    let limited = Instant::now();
    scene.database.import(&[call(2, 3)]).await;
    scene.wait_for_task(2, |task| task.status != "pending").await;
    scene.fake.wait_for_requests(2).await;
    // The fake counts a request before it answers: a little less than what it asked for.
    let waited = limited.elapsed();
    assert!(waited > retry_after.mul_f64(0.9), "a request came after {waited:?}");
    scene.database.wait_until_settled(&tree).await;
    for recording_id in [1, 2] {
        assert_eq!(scene.task(recording_id).await.summary(), ("completed", 1, 0));
        assert_eq!(scene.attempts(recording_id).await, ["completed"]);
    }
    assert_eq!(scene.bought_once(), 9);
    scene.end(tree).await;
}

/// The provider refuses everybody for a reason that a person must remove; then it is removed.
async fn needs_a_person(reply: Reply, class: &str) {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6), call(2, 2)]).await;
    scene.fake.on(|_| true, reply);
    let tree = scene.serve().await;
    assert!(until_open(&tree).await.circuit.unwrap().needs_a_person());
    for recording_id in [1, 2] {
        // A claim that was under way when the breaker opened may have taken it once more.
        scene.wait_for_task(recording_id, |task| task.status == "pending").await;
        assert_eq!(scene.task(recording_id).await.attempts, 0);
        let attempts = scene.attempts(recording_id).await;
        let released = format!("released {class}");
        assert!(
            attempts.len() <= 2 && attempts.iter().all(|told| *told == released),
            "{attempts:?}"
        );
    }
    scene.fake.recover();
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 2);
    let task = scene.task(1).await;
    assert_eq!((task.status.as_str(), task.attempts), ("completed", 1));
    assert_eq!(scene.bought_once(), 8);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_quota_stops_the_claims_until_somebody_pays() {
    needs_a_person(Reply::QuotaExhausted, "quota_exhausted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_stops_the_claims_until_it_is_replaced() {
    needs_a_person(Reply::error(401, "invalid_api_key", "Incorrect API key."), "key_refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_three_recordings_in_a_row_are_rejected_the_provider_is_to_blame() {
    let scene = Scene::new().await;
    let calls: Vec<_> = (1..=6).map(|recording_id| call(recording_id, 1)).collect();
    scene.database.import(&calls).await;
    scene.fake.on(is_no_probe, Reply::error(500, "server_error", "The server had an error."));
    scene.fake.hold();
    let mut settings = scene.settings();
    settings.retry = retries(Duration::from_secs(1));
    let tree = scene.database.serve(settings).await;
    // As many as are in flight in the beginning.
    scene.fake.wait_for_requests(4).await;
    scene.fake.release();
    until_open(&tree).await;
    let mut blamed = 0;
    for recording_id in 1..=6 {
        // A claim that was under way when the breaker opened may have taken any of them again.
        let attempts = scene.attempts(recording_id).await;
        blamed += usize::from(attempts.contains(&"retry provider_rejects_item".to_owned()));
    }
    assert_eq!(blamed, 2, "only the two before the third seemed to be to blame");
    scene.fake.recover();
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 6);
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_chunk_is_named_at_once_and_all_others_are_stored() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 7), call(2, 2)]).await;
    scene.fake.on(is_turn(1, 3), Reply::error(400, "invalid_value", "This input is invalid."));
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 1, 0));
    assert!(task.dead_letter_permanent);
    let reason = task.dead_letter_reason.unwrap();
    assert!(reason.starts_with("chunk 3 is refused"), "{reason}");
    assert_eq!(scene.attempts(1).await, ["dead_letter chunk_refused"]);
    assert_eq!((scene.stored(1).await, scene.searchable(1).await), (6, 0));
    assert_eq!(scene.bought_once(), 6 + 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_too_long_for_the_server_is_named_though_it_says_500() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    let too_long = "input is too large to process. increase the physical batch size";
    scene.fake.on(is_turn(1, 1), Reply::error(500, "server_error", too_long));
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 1, 0));
    assert!(task.dead_letter_permanent);
    assert!(task.dead_letter_reason.unwrap().starts_with("chunk 1 is refused"));
    scene.end(tree).await;
}

/// Answers that must not be stored, for one recording only.
async fn is_unusable(reply: Reply) {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3), call(2, 3)]).await;
    scene.fake.on(is_call(1), reply.clone());
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1), "{reply:?}");
    assert_eq!(scene.task(1).await.summary(), ("dead_letter", 4, 0), "{reply:?}");
    let rejected = "dead_letter provider_rejects_item";
    assert_eq!(scene.attempts(1).await[3], rejected, "{reply:?}");
    assert_eq!(scene.stored(1).await, 0, "{reply:?}");
    assert_eq!(scene.searchable(2).await, 3, "{reply:?}");
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_dimension_are_not_stored() {
    is_unusable(Reply::WrongDimension).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_vectors_are_not_stored() {
    is_unusable(Reply::WrongCount).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_that_are_not_finite_are_not_stored() {
    is_unusable(Reply::NaN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_tried_again_within_the_attempt() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.script([Reply::Normal, Reply::CutConnection, Reply::CutConnection]);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.fake.requests().len(), 4);
    assert_eq!(scene.bought_once(), 6);
    assert_eq!(scene.probes(), 0);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_released_too_often_has_its_attempts_counted_after_all() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 1)]).await;
    scene.database.execute("update embedding_queue set releases = 20").await;
    scene.fake.script([503; 4].map(|code| Reply::error(code, "overloaded", "Overloaded.")));
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["retry provider_unavailable", "completed"]);
    assert_eq!(scene.task(1).await.summary(), ("completed", 2, 20));
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_never_answers_for_one_recording_only_is_that_recordings_fault() {
    let mut scene = Scene::new().await;
    scene.embedder = embedder(&scene.fake, DIMENSIONS, INPUTS_MAX, Duration::from_millis(300));
    scene.database.import(&[call(1, 1), call(2, 3)]).await;
    scene.fake.on(is_call(1), Reply::Hang);
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    assert_eq!(scene.attempts(1).await[0], "retry provider_rejects_item");
    assert_eq!(scene.task(1).await.summary(), ("dead_letter", 4, 0));
    assert_eq!(scene.attempts(2).await, ["completed"]);
    scene.end(tree).await;
}
