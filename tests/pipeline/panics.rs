//! A panic in every call that the tree makes of a port: whoever made it is restarted, every recording
//! is completed under its one attempt, and nothing is bought twice.

use std::time::Duration;

use embedding_recovery::actors::{Tree, TreeSettings};
use embedding_recovery::domain::failure::Failure;
use futures::StreamExt;
use tokio::runtime::Handle;

use super::scene::Scene;
use crate::fakes::openai::Reply;
use crate::fakes::store::{Fault, OPERATIONS};
use crate::harness::calls::call;
use crate::harness::eventually;

/// Recordings and their chunks.
const CALLS: [(i64, usize); 3] = [(1, 9), (2, 5), (3, 5)];
/// Trees at once: their work is little, their waits are long, and the connections of a server are few.
const TREES_AT_ONCE: usize = 3;
/// Renewed every two seconds, which a busy machine keeps.
const LEASE: Duration = Duration::from_secs(6);

/// A panic in a call of the store.
#[derive(Debug, Clone, Copy)]
struct Panic {
    operation: &'static str,
    /// Which call of it, from 1.
    nth: usize,
    /// Behind what the call does: its effect stands and its reply is lost.
    after: bool,
}

/// Every operation that a running tree calls: at the first call, at the second, and behind it.
fn panics() -> impl Iterator<Item = Panic> {
    // A running tree asks neither of these; traces are noted only where they are exported, and runs
    // come only where there are dead letters or somebody asks, and everything is kept.
    let not_called = [
        "task_counts",
        "statement_timeout",
        "note_trace",
        "forget_completed",
        "begin_recovery",
        "claim_recovery",
        "end_run",
        "hold_off",
        "begin_main_run",
        "note_main_tick",
    ];
    // A listener listens once, and for as long as it lives; a worker signs off once. Crons are noted,
    // and missed ticks taken, once by each actor that has one.
    let once = ["listen", "sign_off", "note_cron", "take_missed_tick"];
    let operations = OPERATIONS.iter().filter(move |operation| !not_called.contains(operation));
    operations.flat_map(move |operation| {
        let whens: &[_] = match once.contains(operation) {
            true => &[(1, false)],
            false => &[(1, false), (2, false), (1, true)],
        };
        whens.iter().map(|(nth, after)| Panic { operation, nth: *nth, after: *after })
    })
}

/// A scene with its calls, whose API answers nobody yet, and a tree that has much to do.
async fn begin(prepare: impl FnOnce(&Scene)) -> (Scene, Tree) {
    let scene = Scene::new().await;
    scene.database.import(&CALLS.map(|(recording_id, chunks)| call(recording_id, chunks))).await;
    scene.fake.hold();
    prepare(&scene);
    let schedule = "* * * * * *".parse().unwrap();
    let settings = TreeSettings { schedule, lease: LEASE, ..scene.settings() };
    let tree = scene.database.serve(settings).await;
    scene.fake.wait_for_requests(CALLS.len()).await;
    (scene, tree)
}

/// Asserts that all is well in spite of `what`; call 2 was given up `retries` times.
async fn end(scene: Scene, tree: Tree, retries: usize, what: &str) {
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    for (recording_id, chunks) in CALLS {
        let mut outcomes = scene.attempts(recording_id).await;
        // Given back by a Claimer whose reply was lost, or by a provider without quota.
        outcomes.retain(|outcome| !outcome.starts_with("released"));
        let retried = if recording_id == 2 { retries } else { 0 };
        let mut expected = vec!["retry panicked"; retried];
        expected.push("completed");
        assert_eq!(outcomes, expected, "{what}: recording {recording_id}");
        let attempts = scene.task(recording_id).await.attempts;
        assert_eq!(attempts, 1 + retried as i32, "{what}: recording {recording_id}");
        assert_eq!(scene.searchable(recording_id).await, chunks as i64, "{what}");
    }
    let chunks: usize = CALLS.iter().map(|(_, chunks)| chunks).sum();
    assert_eq!(scene.bought_once(), chunks, "{what}");
    assert_eq!(tree.status().borrow().gave_up, None, "{what}");
    scene.database.wait_until(LISTENS).await;
    scene.end(tree).await;
}

/// Notifications still come.
const LISTENS: &str = "select count(*) = 1 from pg_stat_activity
    where datname = current_database() and query ilike 'listen%'";

async fn store_panics(panic: Panic) {
    let Panic { operation, nth, after } = panic;
    let what = format!("{panic:?}");
    let (scene, tree) = begin(|scene| {
        let fault = if after { Fault::PanicAfter } else { Fault::Panic };
        scene.store.fail_at(operation, nth, fault);
        match operation {
            // Whoever gives up after three panics is settled.
            "settle" => scene.embedder.panic_over("call2turn0 ", 3 * nth),
            // A claim that failed leaves a doubt.
            "release_unknown" => scene.store.fail("claim", nth, Fault::Fail(unavailable())),
            _ => {}
        }
    })
    .await;
    if operation == "sign_off" {
        return end(scene, tree, 0, &what).await;
    }
    if operation != "renew" {
        scene.fake.release();
    }
    scene.store.wait_until_struck(operation, 1).await;
    let retries = if operation == "settle" { nth } else { 0 };
    end(scene, tree, retries, &what).await;
}

/// Runs a test for each of the `cases`, each on a thread of its own, since what it drops blocks.
async fn side_by_side<T: Send + 'static, F: Future<Output = ()>>(
    cases: impl Iterator<Item = T>,
    test: impl Fn(T) -> F + Copy + Send + 'static,
) {
    let tests = futures::stream::iter(cases).map(|case| {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(test(case)))
    });
    let ended: Vec<_> = tests.buffer_unordered(TREES_AT_ONCE).collect().await;
    let failed = ended.into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 0, "cases that failed");
}

fn unavailable() -> Failure {
    Failure::DatabaseUnavailable { message: "the test says so".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_call_of_the_store_costs_nothing() {
    side_by_side(panics(), store_panics).await;
}

async fn embedder_panics((method, nth): (&'static str, usize)) {
    let what = format!("{method}, call {nth}");
    let (scene, tree) = begin(|scene| {
        scene.embedder.panic_at(method, nth);
        match method {
            // The Supervisor asks whether the provider works again.
            "probe" => scene.fake.on(|_| true, Reply::QuotaExhausted),
            _ => {
                let too_many = Reply::error(422, "validation", "batch size 4 > maximum 2");
                scene.fake.on(|inputs| inputs.len() > 2, too_many);
            }
        }
    })
    .await;
    scene.fake.release();
    eventually(&what, async || scene.embedder.panicked() == 1).await;
    scene.fake.recover();
    end(scene, tree, 0, &what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_call_of_the_embedder_costs_nothing() {
    let calls = ["limits", "learn_inputs_max", "share", "embed"].into_iter();
    let calls = calls.flat_map(|method| [(method, 1), (method, 2)]).chain([("probe", 1)]);
    side_by_side(calls, embedder_panics).await;
}
