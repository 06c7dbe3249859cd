//! Each protection matters: with one of them switched off the checker complains, and with all of them
//! on the same scenario leaves it nothing to say. So neither is a check asleep nor a protection idle.

mod unprotected;

use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::actors::{Tree, TreeSettings};
use embedding_recovery::ports::Store;

use self::unprotected::{BlamingEmbedder, Protection, UnprotectedStore};
use super::checker::Evidence;
use super::watcher::Watcher;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::{call, key};
use crate::harness::eventually;
use crate::pipeline::scene::{
    DIMENSIONS, INPUTS_MAX, READ_TIMEOUT, Scene, embedder, is_call, is_turn,
};

/// Of the call that most scenarios are about: three requests.
const CHUNKS: usize = 3 * INPUTS_MAX;
/// Its chunks of the first two requests.
const STORED: i64 = 2 * INPUTS_MAX as i64;
/// Whether inputs are of its third request.
fn is_third_request(inputs: &[String]) -> bool {
    is_turn(1, 2 * INPUTS_MAX)(inputs)
}

/// A scene that is watched, without one protection.
struct Stage {
    scene: Scene,
    watcher: Watcher,
    off: Option<Protection>,
}

impl Stage {
    async fn new(off: Option<Protection>) -> Self {
        let scene = Scene::new().await;
        let watcher = Watcher::start(&scene.database.url);
        Self { scene, watcher, off }
    }

    fn settings(&self, fake: &FakeOpenAi) -> TreeSettings {
        let database = &self.scene.database;
        TreeSettings {
            store: Arc::new(UnprotectedStore {
                inner: database.store.clone(),
                pool: database.pool.clone(),
                off: self.off,
            }),
            embedder: Arc::new(BlamingEmbedder {
                inner: embedder(fake, DIMENSIONS, INPUTS_MAX, READ_TIMEOUT),
                blames: self.off == Some(Protection::Circuit),
            }),
            ..self.scene.settings()
        }
    }

    async fn serve(&self) -> Tree {
        self.scene.database.serve(self.settings(&self.scene.fake)).await
    }

    /// Waits until the first two requests' chunks are stored, and were seen to be.
    async fn until_stored(&self) {
        eventually("two requests are stored", async || self.scene.stored(1).await == STORED).await;
        self.watcher.look().await;
    }

    /// Stops the trees, once all is settled, and judges.
    async fn end(self, trees: Vec<Tree>, other_fake: Option<&FakeOpenAi>) -> Vec<String> {
        for tree in &trees {
            self.scene.database.wait_until_settled(tree).await;
        }
        self.watcher.look().await;
        for tree in trees {
            tree.stop(Duration::from_secs(5)).await;
        }
        let mut purchases = self.scene.fake.purchases();
        purchases.extend(other_fake.map(FakeOpenAi::purchases).unwrap_or_default());
        let evidence = Evidence {
            database_url: &self.scene.database.url,
            sightings: &self.watcher.stop().await,
            purchases: &purchases,
            network: Duration::ZERO,
            awakenings: &[],
            own_faults: &["lease_expired", "stalled"],
        };
        evidence.complaints().await
    }
}

/// Runs a scenario with all protections, and without one.
async fn matters(
    protection: Protection,
    scenario: impl AsyncFn(Option<Protection>) -> Vec<String>,
    complaint: &str,
) {
    assert_eq!(scenario(None).await, [""; 0], "with every protection on");
    let complaints = scenario(Some(protection)).await;
    println!("without {protection:?}:\n- {}", complaints.join("\n- "));
    let expected = complaints.iter().any(|found| found.contains(complaint));
    assert!(expected, "without {protection:?}: {complaint}? {complaints:?}");
}

/// A slow worker loses its lease, and its answers come while the next holder is further on.
async fn a_lease_changes_hands(off: Option<Protection>) -> Vec<String> {
    slow_and_quick(off, Reply::Normal).await
}

/// As before, but the slow worker's answers are refusals: to it, the recording is to blame.
async fn a_late_worker_is_refused(off: Option<Protection>) -> Vec<String> {
    slow_and_quick(off, Reply::error(400, "invalid_input", "This input is refused")).await
}

async fn slow_and_quick(off: Option<Protection>, late: Reply) -> Vec<String> {
    let stage = Stage::new(off).await;
    stage.scene.database.import(&[call(1, CHUNKS)]).await;
    stage.scene.fake.on(is_call(1), late);
    stage.scene.fake.hold();
    let mut slow = stage.settings(&stage.scene.fake);
    slow.recordings_max = 1;
    // Renewed too seldom to notice: the fence alone must hold.
    slow.lease = Duration::from_secs(600);
    let slow = stage.scene.database.serve(slow).await;
    stage.scene.fake.wait_for_requests(1).await;

    let other_fake = FakeOpenAi::start(DIMENSIONS as usize);
    other_fake.on(is_third_request, Reply::Hang);
    let quick = stage.scene.database.serve(stage.settings(&other_fake)).await;
    stage.scene.take_lease_away().await;
    stage.until_stored().await;
    stage.scene.fake.release();
    let status = slow.status();
    eventually("the slow one has nothing in hand", async || status.borrow().is_idle()).await;
    other_fake.recover();
    other_fake.release();
    stage.end(vec![slow, quick], Some(&other_fake)).await
}

/// Somebody searches while a recording is being embedded.
async fn a_set_is_being_built(off: Option<Protection>) -> Vec<String> {
    let stage = Stage::new(off).await;
    stage.scene.database.import(&[call(1, CHUNKS)]).await;
    stage.scene.fake.on(is_third_request, Reply::Hang);
    let tree = stage.serve().await;
    stage.until_stored().await;
    stage.scene.fake.recover();
    stage.scene.fake.release();
    stage.end(vec![tree], None).await
}

/// A recording's actor dies in the middle of it.
async fn a_recording_crashes(off: Option<Protection>) -> Vec<String> {
    let stage = Stage::new(off).await;
    stage.scene.database.import(&[call(1, CHUNKS)]).await;
    stage.scene.fake.on(is_third_request, Reply::Hang);
    let tree = stage.serve().await;
    stage.until_stored().await;
    tree.crash_recording(&key(1));
    let status = tree.status();
    eventually("it is restarted", async || status.borrow().restarts == 1).await;
    stage.scene.fake.recover();
    stage.scene.fake.release();
    stage.end(vec![tree], None).await
}

/// The provider answers everything with 500, until the circuit is open or nothing is left to blame.
async fn the_provider_is_down(off: Option<Protection>) -> Vec<String> {
    let stage = Stage::new(off).await;
    // Fewer than make the provider suspect although it answers probes.
    stage.scene.database.import(&[call(1, 3), call(2, 3)]).await;
    stage.scene.fake.on(|_| true, Reply::error(500, "server_error", "The server had an error"));
    let tree = stage.serve().await;
    let status = tree.status();
    eventually("the circuit is open, or both are dead", async || {
        let counts = stage.scene.database.store.task_counts().await;
        let open = status.borrow().circuit.is_some();
        open || counts.unwrap().dead_letter == 2
    })
    .await;
    stage.scene.fake.recover();
    stage.end(vec![tree], None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_worker_that_lost_its_lease_buys_what_the_next_one_stored() {
    let complaint = "after it was seen stored";
    matters(Protection::Fence, a_lease_changes_hands, complaint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_worker_that_lost_its_lease_buries_what_the_next_one_works_on() {
    let complaint = "an attempt is used or a dead letter made for chunk_refused";
    matters(Protection::Fence, a_late_worker_is_refused, complaint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_swap_search_sees_a_recording_in_part() {
    let complaint = "search saw recording 1: 8 chunks of 1 sets, 12 expected";
    matters(Protection::Swap, a_set_is_being_built, complaint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_checkpoint_a_crash_buys_what_is_stored_again() {
    let complaint = "after it was seen stored";
    matters(Protection::Checkpoint, a_recording_crashes, complaint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_circuit_recordings_die_of_the_providers_fault() {
    let complaint = "an attempt is used or a dead letter made for provider_rejects_item";
    matters(Protection::Circuit, the_provider_is_down, complaint).await;
}
