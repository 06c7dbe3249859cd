//! What the probes feel of a tree: a Supervisor that hangs or gave up, and renewals that fail.

use std::time::Duration;

use embedding_recovery::actors::Pulse;
use embedding_recovery::domain::failure::Failure;

use super::scene::Scene;
use crate::fakes::store::Fault;
use crate::harness::calls::key;
use crate::harness::eventually;

async fn ready(pulse: &Pulse) {
    eventually("leases are renewed", async || pulse.renewal().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_hangs_is_not_alive_until_it_answers_again() {
    let scene = Scene::new().await;
    let tree = scene.serve().await;
    let (pulse, status) = (tree.pulse(), tree.status());
    assert!(pulse.beats().await);
    {
        // Nothing can be published while somebody reads: it hangs over what it hears next.
        let _reading = status.borrow();
        tree.crash_recording(&key(1));
        assert!(!pulse.beats().await, "a supervisor that hangs counts as alive");
    }
    eventually("it answers again", async || pulse.beats().await).await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_gave_up_is_not_alive() {
    let scene = Scene::new().await;
    scene.store.fail("claim", usize::MAX, Fault::Panic);
    let tree = scene.serve().await;
    let pulse = tree.pulse();
    eventually("it gives up", async || !pulse.beats().await).await;
    tree.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_ready_while_its_renewals_are_stored() {
    let scene = Scene::new().await;
    let away = Failure::DatabaseUnavailable { message: "the test says so".into() };
    scene.store.fail("heartbeat", usize::MAX, Fault::Fail(away));
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(1);
    let tree = scene.database.serve(settings).await;
    let pulse = tree.pulse();
    eventually("a failed heartbeat is told", async || {
        pulse.renewal().is_err_and(|reason| reason.contains("the test says so"))
    })
    .await;
    scene.store.recover();
    ready(&pulse).await;
    scene.store.fail("heartbeat", usize::MAX, Fault::Hang);
    eventually("a heartbeat that hangs is told", async || pulse.renewal().is_err()).await;
    scene.store.recover();
    ready(&pulse).await;
    scene.end(tree).await;
    assert!(!pulse.beats().await, "a tree that was stopped is alive");
}
